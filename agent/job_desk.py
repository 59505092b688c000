"""An open project and its jobs: intents are submitted once, and the ledger is kept up to date with what they do."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from hfagent.agent import jobs
from hfagent.agent.backend_facts import BackendFound, BackendLost, StrayEnded, StrayFound, SubmitRetried
from hfagent.agent.claim import noise
from hfagent.agent.errors import AccountRefused, BackendAway, JobError, NoRoom
from hfagent.agent.events import (
    CancelRequested,
    EpochOpened,
    Event,
    Fact,
    Flagged,
    JobEnded,
    JobIntended,
    JobRejected,
    JobStarted,
    JobSubmitted,
    MetricsLogged,
    Scored,
)
from hfagent.agent.evidence import watched
from hfagent.agent.folding import apply, fold
from hfagent.agent.integrity import check_trained
from hfagent.agent.ledger import Ledger
from hfagent.agent.ports import Ports
from hfagent.agent.records import Job, JobSpec, RunKind, RunSpec, Score
from hfagent.agent.remedy import respond
from hfagent.agent.runs import Attempt, Run
from hfagent.agent.state import State
from hfagent.agent.watch import flags

LOG_TAIL = 50
SCORING: tuple[RunKind, ...] = ("evaluate", "verify")
"""Runs whose result is a score."""
MAX_SUBMITS = 5
"""Requests for one job that got no answer; the next would hardly get one either."""
ERROR_LINE = re.compile(r"^(?:[\w.]+(?:Error|Exception|Interrupt)\b.*|error: .*|[\w.]+: error: .*)$")
"""The line by which a Python traceback or a command's usage message ends."""
ERROR_CHARS = 300


class JobDesk:
    """Holds a project. The state is always the fold of what the ledger has on disk."""

    def __init__(self, ledger: Ledger, ports: Ports):
        state = fold(ledger.events)
        if state is None:
            raise ValueError("a desk needs a ledger with a plan")
        self.state: State = state
        self.ports = ports
        self.ledger = ledger
        ledger.subscribe(self._follow)

    def _follow(self, event: Event) -> None:
        state = apply(self.state, event)
        if state is not None:
            self.state = state

    def append(self, fact: Fact) -> None:
        """Write a fact; the state follows."""
        self.ledger.append(fact)

    @property
    def now(self) -> datetime:
        """The clock's time."""
        return self.ports.clock.now()

    def start(self, run: RunSpec, job: JobSpec) -> None:
        """Submit a job, its intent on disk first."""
        self.append(JobIntended(run=run, job=job))
        self._submit(job)

    def reconcile(self) -> None:
        """Adopt or submit jobs that were intended and of which nothing more is known, e.g. after a restart."""
        with self._asking():
            for attempt in self.state.open_attempts:
                if attempt.job_id is None:
                    self._settle(attempt)

    def observe(self) -> None:
        """Bring the ledger up to date with the jobs and their metrics."""
        with self._asking():
            for run in self.state.runs.values():
                attempt = run.last
                if attempt.open and attempt.job_id is not None:
                    self._look_at(run, attempt, attempt.job_id)
            self._end_strays()
        for run in self.state.runs.values():
            if run.spec.kind in SCORING and run.done and run.score is None:
                self._record_score(run.spec, _score(run.result))
        self._measure_noise()

    def wait(self, timeout_s: float) -> None:
        """Sleep until a job ends, at most so long."""
        ids = [attempt.job_id for attempt in self.state.open_attempts if attempt.job_id is not None]
        self.ports.runner.wait(ids, timeout_s=timeout_s)

    def settle(self) -> None:
        """Find and end every stray, those that nobody has seen running, too."""
        with self._asking():
            self._end_strays(all_of_them=True)
            running = [stray.job_id for stray in self.state.strays.values() if stray.open]
            if running:
                self.ports.runner.wait(running, timeout_s=self.ports.runner.cancel_s)
                self._end_strays()

    def cancel(self, attempt: Attempt, why: str) -> None:
        """Ask a job to stop; its end is observed like any other."""
        self.append(CancelRequested(key=attempt.job.key, why=why))
        with self._asking():
            if attempt.job_id is not None and self.ports.runner.find(attempt.job.key) is not None:
                self.ports.runner.cancel(attempt.job_id)

    # --- inside ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Record where the backend stops or begins to answer; what was asked of it meanwhile is asked again later."""
        try:
            yield
        except BackendAway as error:
            if self.state.backend_lost is None:
                self.append(BackendLost(error=str(error)))
        else:
            if self.state.backend_lost is not None:
                self.append(BackendFound())

    def _settle(self, attempt: Attempt) -> None:
        """Adopt the job, or submit it again once a request that got lost would have been taken by now.

        After `MAX_SUBMITS` it counts as rejected; should one of the requests be taken after all, it is a stray.
        """
        key = attempt.job.key
        found = self.ports.runner.find(key)
        if found is not None:
            self._record(attempt.job, found)
        elif self._unsettled_s(attempt) <= 0:
            # A runner that starts a key once is asked as often as it takes: hfagent may have been killed each time.
            if attempt.tries >= MAX_SUBMITS and self.ports.runner.settle_s > 0:
                self.append(JobRejected(key=key, message=f"submitted {attempt.tries} times without an answer"))
                return
            self.append(SubmitRetried(key=key))
            self._submit(attempt.job)

    def _unsettled_s(self, attempt: Attempt) -> float:
        """Seconds until it can be told whether the last submit was taken."""
        return self.ports.runner.settle_s - (self.now - attempt.tried_at).total_seconds()

    def _adopt(self) -> None:
        """Learn the ids of jobs that were submitted but not recorded; start nothing."""
        unknown = [attempt for attempt in self.state.open_attempts if attempt.job_id is None]
        unsettled_s = max(map(self._unsettled_s, unknown), default=0.0)
        if unsettled_s > 0:
            self.ports.runner.wait([], timeout_s=unsettled_s)
        with self._asking():
            for attempt in unknown:
                self._record(attempt.job, self.ports.runner.find(attempt.job.key))

    def _end_strays(self, *, all_of_them: bool = False) -> None:
        """Cancel and settle second jobs of a key, which a lost request has left.

        Args:
            all_of_them: also those that ended before anybody saw them; a longer list is asked for.
        """
        runner, attempts = self.ports.runner, [a for run in self.state.runs.values() for a in run.attempts]
        if runner.settle_s == 0:  # it refuses a second job of a key itself
            return
        adopted = {attempt.job.key: attempt for attempt in attempts}
        for job in runner.jobs(self.state.plan.label, ended=all_of_them):
            attempt = adopted.get(job.key)
            # One that is still to be adopted is no stray, nor one of which this ledger knows nothing.
            if attempt is None or attempt.job_id == job.id or (attempt.open and attempt.job_id is None):
                continue
            if job.id not in self.state.strays:
                self.append(StrayFound(key=job.key, job_id=job.id, url=job.url))
        for stray in [stray for stray in self.state.strays.values() if stray.open]:
            job = runner.inspect(stray.job_id)
            if not job.ended:
                runner.cancel(stray.job_id)
                continue
            self.append(
                StrayEnded(
                    job_id=job.id,
                    stage=job.stage,
                    finished_at=job.finished_at,
                    running_s=job.running_s,
                    cost_micro_usd=_cost(stray.job, job),
                )
            )

    def _record_score(self, spec: RunSpec, score: Score) -> None:
        """The harness that counts is known before the score; another one begins a new epoch."""
        problems = score.benchmark.set
        counts = self.state.harness.get(problems)
        if spec.kind == "evaluate" and not spec.repeat and counts not in (None, score.harness):
            self.append(EpochOpened(set=problems, harness=score.harness, before=str(counts)))
        self.append(Scored(run=spec.name, score=score))

    def _measure_noise(self) -> None:
        base = self.state.scored(None, "search")
        repeated = next((run.score for run in self.state.runs.values() if run.spec.repeat), None)
        if self.state.noise is None and base is not None and base.score is not None and repeated is not None:
            self.append(noise(base.score, repeated))

    def _submit(self, job: JobSpec) -> None:
        with self._asking():
            try:
                self._record(job, self.ports.runner.submit(job))
            except (BackendAway, NoRoom):
                raise  # the key stays alive and its money held: nobody knows, or it is asked again with more room
            except AccountRefused as error:
                self.append(JobRejected(key=job.key, message=str(error)))
                raise
            except JobError as error:
                if self.ports.runner.find(job.key) is not None:
                    raise
                self.append(JobRejected(key=job.key, message=str(error)))

    def _record(self, job: JobSpec, found: Job | None) -> None:
        if found is None:
            self.append(JobRejected(key=job.key, message="never started"))
        else:
            self.append(JobSubmitted(key=job.key, job_id=found.id, url=found.url))

    def _look_at(self, run: Run, attempt: Attempt, job_id: str) -> None:
        try:
            job = self.ports.runner.inspect(job_id)
        except (BackendAway, AccountRefused):
            raise
        except JobError as error:
            if self.ports.runner.find(attempt.job.key) is not None:
                raise
            job = Job(
                id=job_id, key=attempt.job.key, stage="DELETED", url=attempt.url or "", flavor=attempt.job.flavor,
                started_at=attempt.started_at, finished_at=self.now, message=f"its files are gone: {error}",
            )  # fmt: skip
        self._observe(run, attempt, job)

    def _observe(self, run: Run, attempt: Attempt, job: Job) -> None:
        if job.started_at is not None and attempt.started_at is None:
            self.append(JobStarted(key=attempt.job.key, started_at=job.started_at))
        if run.spec.kind in ("train", "smoke"):
            self._observe_metrics(run)
        if not job.ended:
            if attempt.cancel_why is not None:
                self.ports.runner.cancel(job.id)  # again: hfagent may have been killed before it came to that
            elif run.spec.kind == "train":
                self._watch(run.spec.name)
            return
        ended = JobEnded(
            key=attempt.job.key,
            stage=job.stage,
            finished_at=job.finished_at,
            running_s=job.running_s,
            cost_micro_usd=_cost(attempt.job, job),
            exit_code=job.exit_code,
            message=job.message,
            result=job.result,
        )
        if job.stage == "ERROR" and (cause := last_error(self.ports.runner.logs(job.id, tail=LOG_TAIL))):
            ended = ended.model_copy(update={"message": f"{job.message or 'failed'}: {cause}"})
        if run.spec.kind in SCORING and job.stage == "COMPLETED" and (flaw := _flaw(job)):
            ended = ended.model_copy(
                update={"stage": "ERROR", "message": f"the evaluation's result is unusable: {flaw}"}
            )
        if run.spec.kind == "train" and job.stage == "COMPLETED" and (flaw := self._mistrained(job)):
            ended = ended.model_copy(update={"stage": "ERROR", "message": f"the trained model is unusable: {flaw}"})
        self.append(ended)

    def _mistrained(self, job: Job) -> str | None:
        """What is wrong with a trained model: another base than planned, or weights that never moved."""
        earlier = [run.result.get("base_fingerprint") for run in self.state.trained if run.done]
        return check_trained(
            planned_model=self.state.model_path or self.state.plan.model.id,
            result=job.result or {},
            base_fingerprint=earlier[0] if earlier else None,
        )

    def _watch(self, name: str) -> None:
        """Record what is wrong with a training job for the first time; cancel it where that is the answer."""
        run = self.state.runs[name]
        attempt, train = run.last, run.spec.train or self.state.plan.train
        known = {flagged.flag.name for flagged in run.flags}
        for flagged in run.flags:
            if flagged.response.action != "go_on":
                self.cancel(attempt, flagged.response.reason)
                return
        for flag in flags(watched(self.state, run, self.now)):
            if flag.name in known:
                continue
            # Which checkpoint is good is known once the job has ended and told what it left.
            response = respond(
                (flag,),
                restarts=self.state.restarts(name),
                learning_rate=train.learning_rate,
                good_checkpoint_step=None,
            )
            self.append(Flagged(run=name, key=attempt.job.key, flag=flag, response=response))
            if response.action != "go_on":
                self.cancel(attempt, response.reason)
                return

    def _observe_metrics(self, run: Run) -> None:
        known = {point.step: point.values for point in run.points}
        name = jobs.tracker_run(run.spec, len(run.attempts))
        # One step back: a step's evaluation row comes after its training row.
        rows = self.ports.tracker.points(self.state.plan.label, name, after_step=max(known, default=0) - 1)
        new = tuple(row for row in rows if known.get(row.step) != row.values)
        if new:
            self.append(MetricsLogged(run=run.spec.name, points=new))


def _score(result: Mapping[str, Any]) -> Score:
    return Score.model_validate({name: result[name] for name in Score.model_fields if name in result})


def _flaw(job: Job) -> str | None:
    """What is wrong with an evaluation's result; None when it is a score."""
    try:
        _score(job.result or {})
    except ValidationError as error:
        problem = error.errors()[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return None


def last_error(lines: Sequence[str]) -> str | None:
    """The last line of a log that states an error, cut to a bounded length; None when none does."""
    return next((line.strip()[:ERROR_CHARS] for line in reversed(lines) if ERROR_LINE.match(line.strip())), None)


def _cost(spec: JobSpec, job: Job) -> int | None:
    """Price times billed seconds, rounded up; None when the seconds are unknown and not free."""
    if spec.price_micro_usd_per_hour == 0:
        return 0
    return None if job.running_s is None else math.ceil(spec.price_micro_usd_per_hour * job.running_s / 3600)
