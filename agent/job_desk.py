"""An open project and its jobs: intents are submitted once, and the ledger is kept up to date with what they do."""

from datetime import timedelta

from hfagent.agent import guards, job_ends, jobs
from hfagent.agent.backend_desk import BackendDesk
from hfagent.agent.backend_facts import SubmitRetried
from hfagent.agent.claim import noise
from hfagent.agent.errors import AccountRefused, BackendAway, DatasetError, JobError, NoRoom, NothingSent
from hfagent.agent.events import (
    CancelRequested,
    DataPrepared,
    EpochOpened,
    Flagged,
    JobIntended,
    JobRejected,
    JobStarted,
    JobSubmitted,
    MetricsLogged,
    Scored,
)
from hfagent.agent.evidence import watched
from hfagent.agent.ledger import Ledger
from hfagent.agent.ports import Ports
from hfagent.agent.records import Job, JobSpec, RunSpec, Score
from hfagent.agent.remedy import respond
from hfagent.agent.runs import Attempt, Run
from hfagent.agent.watch import flags

NEVER_STARTED = "never started"
MAX_SUBMITS = 5
"""Requests for one job that got no answer; the next would hardly get one either."""


class JobDesk(BackendDesk):
    """What is done with the jobs of a project."""

    def __init__(self, ledger: Ledger, ports: Ports):
        super().__init__(ledger, ports)
        self._opened_at = ports.clock.monotonic()
        self._asked_at: dict[str, float] = {}
        """Key -> when its last submit was over, without an answer; by the clock that nobody sets."""
        self._unsent: set[str] = set()
        """Keys whose last submit never got as far as the request."""

    def start(self, run: RunSpec, job: JobSpec) -> None:
        """Submit a job, its intent on disk first."""
        self.append(JobIntended(run=run, job=job))
        self._submit(job)

    def reconcile(self) -> None:
        """Adopt or submit jobs that were intended and of which nothing more is known, e.g. after a restart."""
        if unknown := self._unknown:
            with self._asking():
                for attempt in unknown:
                    self._settle(attempt)

    def observe(self) -> None:
        """Bring the ledger up to date with the jobs and their metrics."""
        with self._asking():
            for run in self.state.runs.values():
                attempt = run.last
                if attempt.open and attempt.job_id is not None:
                    self._look_at(run, attempt, attempt.job_id)
            self._find_orphans()
            self._end_strays()
        for run in self.state.runs.values():
            if run.spec.kind in job_ends.SCORING and run.done and run.score is None:
                self._record_score(run.spec, job_ends.score(run.result))
            if run.spec.kind == "generate" and run.done and not self.state.data_made:
                path, sha256 = str(run.result["dataset"]), str(run.result["sha256"])
                self.append(DataPrepared(path=path, made=True, sha256=sha256))
        self._measure_noise()
        for fact in guards.compared(self.state):
            self.append(fact)

    def wait(self, timeout_s: float) -> None:
        """Sleep until a job ends, at most so long."""
        ids = [attempt.job_id for attempt in self.state.open_attempts if attempt.job_id is not None]
        self.ports.runner.wait(ids, timeout_s=timeout_s)

    def end_jobs(self, why: str) -> None:
        """End every job, and wait for that as long as it may take; what was only intended is not started for it."""
        self._adopt()
        for attempt in self.state.open_attempts:
            if attempt.cancel_why is None:
                self.cancel(attempt, why)
        until = self.now + timedelta(seconds=self.ports.runner.cancel_s)
        while (running := self.state.open_attempts) and (left_s := (until - self.now).total_seconds()) > 0:
            self.wait(left_s)
            self.observe()
            if self.state.open_attempts == running:
                break

    def clear_up(self) -> None:
        """Find and end what outlived the project, count what it cost; an export that was asked for since goes on."""
        ended_at = self.state.ended_at
        if ended_at is not None and all(attempt.intended_at <= ended_at for attempt in self.state.open_attempts):
            self.end_jobs("the project has ended")
        self.settle()

    def cancel(self, attempt: Attempt, why: str) -> None:
        """Ask a job to stop; its end is observed like any other."""
        self.append(CancelRequested(key=attempt.job.key, why=why))
        if attempt.job_id is not None:
            with self._asking():
                if self.ports.runner.find(attempt.job.key) is not None:
                    self.ports.runner.cancel(attempt.job_id)

    # --- inside ------------------------------------------------------------------------------------------------------

    @property
    def _unknown(self) -> list[Attempt]:
        """Jobs that may have been submitted, and whose id is not known."""
        return [attempt for attempt in self.state.open_attempts if attempt.job_id is None]

    def _settle(self, attempt: Attempt) -> None:
        """Adopt the job, or submit it again once a request that got lost would have been taken by now.

        After `MAX_SUBMITS` it counts as rejected; should one of the requests be taken after all, it is a stray.
        """
        key = attempt.job.key
        found = self.ports.runner.find(key)
        if found is not None:
            self._record(attempt.job, found)
        elif self._unsettled_s(attempt) <= 0:
            if attempt.cancel_why is not None:
                self.append(JobRejected(key=key, message=NEVER_STARTED))
                return
            # A runner that starts a key once is asked as often as it takes: hfagent may have been killed each time.
            if attempt.tries >= MAX_SUBMITS and key not in self._unsent and self.ports.runner.settle_s > 0:
                self.append(JobRejected(key=key, message=f"submitted {attempt.tries} times without an answer"))
                return
            self.append(SubmitRetried(key=key))
            self._submit(attempt.job)

    def _unsettled_s(self, attempt: Attempt) -> float:
        """Seconds until it can be told whether the last submit was taken.

        A submit may upload for minutes before it asks: its end counts, and of another process's the latest possible.
        """
        asked_at = self._asked_at.get(attempt.job.key, self._opened_at)
        return self.ports.runner.settle_s - (self.ports.clock.monotonic() - asked_at)

    def _adopt(self) -> None:
        """Learn the ids of jobs that were submitted but not recorded; start nothing."""
        unknown = self._unknown
        unsettled_s = max(map(self._unsettled_s, unknown), default=0.0)
        if unsettled_s > 0:
            self.ports.runner.wait([], timeout_s=unsettled_s)
        if unknown:
            with self._asking():
                for attempt in unknown:
                    self._record(attempt.job, self.ports.runner.find(attempt.job.key))

    def _record_score(self, spec: RunSpec, score: Score) -> None:
        """The harness that counts is known before the score; another one begins a new epoch."""
        problems = score.benchmark.set
        counts = self.state.harness.get(problems)
        if spec.kind == "evaluate" and spec.guard is None and not spec.repeat and counts not in (None, score.harness):
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
            except NoRoom:
                raise  # the key stays alive and its money held: it is asked again with more room
            except BackendAway as error:  # nobody knows: the key stays alive and its money held
                self._asked_at[job.key] = self.ports.clock.monotonic()
                (self._unsent.add if isinstance(error, NothingSent) else self._unsent.discard)(job.key)
                raise
            except AccountRefused as error:
                self.append(JobRejected(key=job.key, message=str(error)))
                raise
            except JobError as error:
                if self.ports.runner.find(job.key) is not None:
                    raise
                self.append(JobRejected(key=job.key, message=str(error)))

    def _record(self, job: JobSpec, found: Job | None) -> None:
        if found is None:
            self.append(JobRejected(key=job.key, message=NEVER_STARTED))
        else:
            self.append(JobSubmitted(key=job.key, job_id=found.id, url=found.url))

    def _look_at(self, run: Run, attempt: Attempt, job_id: str) -> None:
        job = self._inspected(attempt.job, job_id, attempt.started_at)
        if job is not None:
            self._observe(run, attempt, job)

    def _observe(self, run: Run, attempt: Attempt, job: Job) -> None:
        if job.started_at is not None and attempt.started_at is None:
            self.append(JobStarted(key=attempt.job.key, started_at=job.started_at))
        if run.spec.kind in ("train", "smoke"):
            self._observe_metrics(run, whole=job.ended)
        if not job.ended:
            if attempt.cancel_why is not None:
                self.ports.runner.cancel(job.id)  # again: hfagent may have been killed before it came to that
            elif run.spec.kind == "train":
                self._watch(run.spec.name)
            return
        log = self.ports.runner.logs(job.id, tail=job_ends.LOG_TAIL) if job.stage == "ERROR" else ()
        if run.spec.kind == "generate" and job.stage == "COMPLETED":
            job = self._with_data(job)
        self.append(job_ends.judged(self.state, run.spec, attempt.job, job, log))

    def _with_data(self, job: Job) -> Job:
        """A job that has made data, which are where this machine reads them; without them it is lost."""
        told = job.result or {}
        if job_ends.lacking(job) is not None:
            return job
        try:
            path = str(self.ports.runner.fetch(str(told["dataset"])))
            self.ports.datasets.verify(path, sha256=str(told["sha256"]))
        except (BackendAway, AccountRefused, NoRoom):
            raise
        except (JobError, DatasetError) as error:
            return job.model_copy(update={"stage": "ERROR", "exit_code": None, "message": str(error)})
        return job.model_copy(update={"result": {**told, "dataset": path}})

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

    def _observe_metrics(self, run: Run, *, whole: bool) -> None:
        known = {point.step: point.values for point in run.points}
        name = jobs.tracker_run(run.spec, len(run.attempts))
        # One step back: a step's evaluation row comes after its training row. At the end all is asked for once more:
        # rows may have gone and come meanwhile.
        after = -1 if whole else max(known, default=0) - 1
        rows = self.ports.tracker.points(self.state.plan.label, name, after_step=after)
        new = tuple(row for row in rows if known.get(row.step) != row.values)
        if new:
            self.append(MetricsLogged(run=run.spec.name, points=new))
