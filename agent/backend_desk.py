"""An open project and the place where its jobs run: when that does not answer, and what runs there unasked."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from hfagent.agent import job_ends
from hfagent.agent.backend_facts import BackendFound, BackendLost, StrayFound
from hfagent.agent.errors import AccountRefused, BackendAway, JobError
from hfagent.agent.events import Event, Fact
from hfagent.agent.folding import apply, fold
from hfagent.agent.ledger import Ledger
from hfagent.agent.ports import Ports
from hfagent.agent.records import Job, JobSpec
from hfagent.agent.runs import Stray
from hfagent.agent.state import State


class BackendDesk:
    """Holds a project. The state is always the fold of what the ledger has on disk."""

    def __init__(self, ledger: Ledger, ports: Ports):
        state = fold(ledger.events)
        if state is None:
            raise ValueError("a desk needs a ledger with a plan")
        self.state: State = state
        self.ports = ports
        self.ledger = ledger
        self._asks = False
        """Whether the backend is being asked."""
        self._missed_at: dict[str, tuple[datetime, float]] = {}
        """Job id -> since when the backend says that there is no such job, by the clock and by what passed."""
        self._orphans_due = state.confirmed and bool(state.plan.token)
        """Whether jobs of an earlier process are still to be looked for."""
        ledger.subscribe(self._follow)

    def _follow(self, event: Event) -> None:
        self.state = apply(self.state, event) or self.state

    def append(self, fact: Fact) -> None:
        """Write a fact; the state follows."""
        self.ledger.append(fact)

    @property
    def now(self) -> datetime:
        """The clock's time."""
        return self.ports.clock.now()

    def settle(self) -> None:
        """Find and end every orphan and every stray, those that nobody has seen running, too."""
        with self._asking():
            self._find_orphans()
            self._end_strays(all_of_them=True)
            until = self.now + timedelta(seconds=self.ports.runner.cancel_s)
            while (running := self._open_strays) and (left_s := (until - self.now).total_seconds()) > 0:
                self.ports.runner.wait([stray.job_id for stray in running], timeout_s=left_s)
                self._end_strays()
                if self._open_strays == running:
                    break

    # --- inside ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Record where the backend stops or begins to answer; what was asked of it meanwhile is asked again later."""
        if self._asks:
            yield  # the outermost one records
            return
        self._asks = True
        try:
            yield
        except BackendAway as error:
            if self.state.backend_lost is None:
                self.append(BackendLost(error=str(error)))
        else:
            if self.state.backend_lost is not None:
                self.append(BackendFound())
        finally:
            self._asks = False

    @property
    def _open_strays(self) -> list[Stray]:
        return [stray for stray in self.state.strays.values() if stray.open]

    def _end_strays(self, *, all_of_them: bool = False) -> None:
        """Cancel and settle second jobs of a key, which a lost request has left, and orphans.

        Args:
            all_of_them: also those that ended before anybody saw them; a longer list is asked for.
        """
        runner = self.ports.runner
        if runner.settle_s > 0:  # else it refuses a second job of a key itself
            self._find_strays(ended=all_of_them)
        for stray in self._open_strays:
            seen = self._inspected(stray.job, stray.job_id)
            if seen is not None and seen.ended:
                self.append(job_ends.stray_ended(stray.job, seen))
            elif seen is not None:
                runner.cancel(stray.job_id)

    def _find_strays(self, *, ended: bool) -> None:
        adopted = {attempt.job.key: attempt for run in self.state.runs.values() for attempt in run.attempts}
        for job in self.ports.runner.jobs(self.state.plan.label, ended=ended):
            attempt = adopted.get(job.key)
            # One that is still to be adopted is no stray, nor one of which this ledger knows nothing.
            if attempt is None or attempt.job_id == job.id or (attempt.open and attempt.job_id is None):
                continue
            if job.id not in self.state.strays:
                self.append(StrayFound(key=job.key, job_id=job.id, url=job.url))

    def _find_orphans(self) -> None:
        """Once, as soon as the backend answers: jobs of this project that its ledger knows nothing of.

        Each becomes a stray. Only a plan's own token tells them from jobs of a project of the same name.
        """
        if not self._orphans_due:
            return
        known = {attempt.job.key for run in self.state.runs.values() for attempt in run.attempts}
        known |= {stray.job.key for stray in self.state.strays.values()}
        for job in self.ports.runner.jobs(self.state.plan.label):
            if job.key not in known:
                self.append(job_ends.orphan(self.state.plan, job, self.now, cancel_s=self.ports.runner.cancel_s))
        self._orphans_due = False

    def _inspected(self, spec: JobSpec, job_id: str, started_at: datetime | None = None) -> Job | None:
        """The job now; one that stays unknown to the backend for the time that it may need to show it is gone.

        None before that.
        """
        try:
            job = self.ports.runner.inspect(job_id)
        except (BackendAway, AccountRefused):
            raise
        except JobError as error:
            found = self.ports.runner.find(spec.key)
            if found is not None and found.id == job_id:
                raise
            passed = self.ports.clock.monotonic()
            since, before = self._missed_at.setdefault(job_id, (self.now, passed))
            if passed - before < self.ports.runner.settle_s:
                return None
            return Job(
                id=job_id, key=spec.key, stage="DELETED", url="", flavor=spec.flavor, started_at=started_at,
                finished_at=since, message=f"its files are gone: {error}",
            )  # fmt: skip
        self._missed_at.pop(job_id, None)
        return job
