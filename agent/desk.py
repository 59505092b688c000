"""The desk at which a night is worked: the open ledger, the state, and the few acts that change the world.

Every act appends what it is about to do before it does it, and what came of it afterwards.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from hfagent.agent import jobs, policy, rules
from hfagent.agent.decide import decide
from hfagent.agent.errors import EvaluationError, JobError
from hfagent.agent.events import (
    CancelRequested,
    Compared,
    DataPrepared,
    DatasetChecked,
    Decided,
    Event,
    Fact,
    JobEnded,
    JobIntended,
    JobRejected,
    JobStarted,
    JobSubmitted,
    MetricsLogged,
    ModelPrepared,
    ProjectEnded,
    Refused,
    Scored,
)
from hfagent.agent.evidence import evidence
from hfagent.agent.ledger import Ledger
from hfagent.agent.ports import Clock, DatasetChecker, DatasetStore, JobRunner, ModelStore, Tracker
from hfagent.agent.records import (
    DatasetReport,
    Decision,
    Job,
    JobSpec,
    ProblemSet,
    Refusal,
    RunSpec,
    Score,
)
from hfagent.agent.state import Attempt, Run, State, apply, fold
from hfagent.agent.verdict import Verdict, compare

LOG_TAIL = 50
ERROR_LINE = re.compile(r"^(?:[\w.]+(?:Error|Exception|Interrupt)\b.*|error: .*|[\w.]+: error: .*)$")
"""The line by which a Python traceback or a command's usage message ends."""
ERROR_CHARS = 300
CANCEL_GRACE_S = 30.0
"""A cancelled local job saves and ends within 20 s, or is killed."""


@dataclass(frozen=True)
class Ports:
    """The outside world of a night."""

    runner: JobRunner
    tracker: Tracker
    checker: DatasetChecker
    models: ModelStore
    datasets: DatasetStore
    clock: Clock


class Desk:
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

    # --- acts of the planner -----------------------------------------------------------------------------------------

    def check_dataset(self) -> DatasetReport:
        """Make model and data loadable, then judge the data for every method."""
        plan = self.state.plan
        if self.state.model_path is None:
            self.append(ModelPrepared(path=str(self.ports.models.prepare(plan.model))))
        if self.state.data_path is None:
            path = self.ports.datasets.prepare(plan.dataset, rows=plan.train.max_rows, seed=plan.train.seed)
            self.append(DataPrepared(path=str(path)))
        report = self.ports.checker.check(
            plan.dataset.model_copy(update={"id": self.state.data_path}),
            model=plan.model.model_copy(update={"id": self.state.model_path}),
            max_length=plan.train.max_length,
        )
        report = report.model_copy(update={"dataset": plan.dataset.id})
        self.append(DatasetChecked(report=report))
        return report

    def launch(self, run: RunSpec | Refusal) -> Refusal | JobSpec:
        """Start a run's job, if policy allows: intent on disk first, then the submit under the key."""
        if isinstance(run, Refusal):
            return self.refuse(run)
        refusal = policy.check_launch(self.state, run, self.now)
        if refusal is not None:
            return self.refuse(refusal)
        job = jobs.job_spec(self.state, run, self.now)
        self.append(JobIntended(run=run, job=job))
        self._submit(job)
        return job

    def compare(self, run: str, problems: ProblemSet) -> Refusal | Verdict:
        """Compare a training run with the base model on the same problems."""
        refusal = policy.check_compare(self.state, run, problems)
        if refusal is not None:
            return self.refuse(refusal)
        return self._compare(run, None, problems)

    def decide(self, run: str) -> Refusal | Decision:
        """Decide about a training run by rule; the rule's numbers are recorded with it."""
        refusal = policy.check_decide(self.state, run, self.now)
        if refusal is not None:
            return self.refuse(refusal)
        parent = self.state.runs[run].spec.parent
        done = self.state.scored(run, "search") is not None
        if parent is not None and done and self.state.comparison(run, parent, "search") is None:
            self._compare(run, parent, "search")
        decision = decide(evidence(self.state, run, self.now))
        self.append(Decided(about=run, decision=decision))
        return decision

    def finish(self, outcome: str, reason: str) -> Refusal | None:
        """End the night, if nothing that the plan asks for is left."""
        refusal = rules.check_finish(self.state, self.now, outcome)
        if refusal is not None:
            return self.refuse(refusal)
        self.append(ProjectEnded.model_validate({"state": outcome, "reason": reason}))
        return None

    def refuse(self, refusal: Refusal) -> Refusal:
        """Record a refusal."""
        self.append(Refused(refusal=refusal))
        return refusal

    def stop(self, reason: str) -> None:
        """Cancel what runs and end the project as stopped."""
        for attempt in self.state.open_attempts:
            self.cancel(attempt, reason)
        if self.state.open_attempts:
            self.wait(CANCEL_GRACE_S)
            self.observe()
        self.append(ProjectEnded(state="stopped", reason=reason))

    def cancel(self, attempt: Attempt, why: str) -> None:
        """Ask a job to stop; its end is observed like any other."""
        self.append(CancelRequested(key=attempt.job.key, why=why))
        if attempt.job_id is not None and self.ports.runner.find(attempt.job.key) is not None:
            self.ports.runner.cancel(attempt.job_id)

    # --- acts of the loop --------------------------------------------------------------------------------------------

    def reconcile(self) -> None:
        """Adopt or submit jobs that were intended and of which nothing more is known, e.g. after a restart."""
        for attempt in self.state.open_attempts:
            if attempt.job_id is None:
                self._submit(attempt.job)

    def adopt(self) -> None:
        """Before a stop: learn the ids of jobs that were submitted but not recorded; start nothing."""
        for attempt in self.state.open_attempts:
            if attempt.job_id is None:
                self._record(attempt.job, self.ports.runner.find(attempt.job.key))

    def observe(self) -> None:
        """Bring the ledger up to date with the jobs and their metrics."""
        for run in self.state.runs.values():
            attempt = run.last
            if attempt.open and attempt.job_id is not None:
                self._look_at(run, attempt, attempt.job_id)
        for run in self.state.runs.values():
            if run.spec.kind == "evaluate" and run.done and run.score is None:
                self.append(Scored(run=run.spec.name, score=_score(run.result)))

    def wait(self, timeout_s: float) -> None:
        """Sleep until a job ends, at most so long."""
        ids = [attempt.job_id for attempt in self.state.open_attempts if attempt.job_id is not None]
        self.ports.runner.wait(ids, timeout_s=timeout_s)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _submit(self, job: JobSpec) -> None:
        try:
            self._record(job, self.ports.runner.submit(job))
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
        if run.spec.kind == "evaluate" and job.stage == "COMPLETED" and (flaw := _flaw(job)):
            ended = ended.model_copy(
                update={"stage": "ERROR", "message": f"the evaluation's result is unusable: {flaw}"}
            )
        self.append(ended)

    def _observe_metrics(self, run: Run) -> None:
        known = {point.step: point.values for point in run.points}
        name = jobs.tracker_run(run.spec, len(run.attempts))
        # One step back: a step's evaluation row comes after its training row.
        rows = self.ports.tracker.points(self.state.plan.label, name, after_step=max(known, default=0) - 1)
        new = tuple(row for row in rows if known.get(row.step) != row.values)
        if new:
            self.append(MetricsLogged(run=run.spec.name, points=new))

    def _compare(self, candidate: str, reference: str | None, problems: ProblemSet) -> Verdict:
        ours, theirs = self._score(candidate, problems), self._score(reference, problems)
        if ours.harness != theirs.harness:
            raise EvaluationError(
                f"{candidate} and {reference or 'the base model'} were evaluated by different harnesses"
                f" ({ours.harness!r}, {theirs.harness!r}): packages or templates changed; start a new project"
            )
        verdict = compare(theirs.outcomes, ours.outcomes)
        self.append(Compared(candidate=candidate, reference=reference, set=problems, verdict=verdict))
        return verdict

    def _score(self, subject: str | None, problems: ProblemSet) -> Score:
        run = self.state.scored(subject, problems)
        if run is None or run.score is None:
            raise EvaluationError(f"{subject or 'the base model'} has no score on the {problems} set")
        return run.score


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
