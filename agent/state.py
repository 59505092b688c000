"""What is known about a project: a pure fold over its events."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from hfagent.agent.events import (
    CancelRequested,
    Compared,
    Crashed,
    DataPrepared,
    DatasetChecked,
    Decided,
    Event,
    JobEnded,
    JobIntended,
    JobRejected,
    JobStarted,
    JobSubmitted,
    MetricsLogged,
    ModelPrepared,
    PlanConfirmed,
    PlanMade,
    PlannerWoke,
    ProjectEnded,
    Refused,
    Resumed,
    Scored,
)
from hfagent.agent.records import (
    DatasetReport,
    Decision,
    JobSpec,
    JobStage,
    MetricPoint,
    Plan,
    Refusal,
    RunSpec,
    Score,
)

SIGNALED = 128
"""Exit codes from here on: 128 + the signal that ended the process."""
OUT_OF_MEMORY = 137
"""SIGKILL, as the kernel sends it when memory runs out."""
TIMED_OUT = "Job timeout"
"""How Hugging Face Jobs and the local runner begin the message of a job that ran out of time."""

Stage = JobStage | Literal["INTENDED", "REJECTED"]


@dataclass(frozen=True)
class Attempt:
    """One job of a run."""

    job: JobSpec
    intended_at: datetime
    stage: Stage = "INTENDED"
    job_id: str | None = None
    url: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    running_s: float | None = None
    cost_micro_usd: int | None = None
    exit_code: int | None = None
    message: str | None = None
    result: Mapping[str, Any] | None = None
    cancel_why: str | None = None

    @property
    def lost(self) -> bool:
        """Whether the machine failed and not the script: no exit code, or one of a signal from outside.

        Too little time or memory would be too little again.
        """
        if self.exit_code == OUT_OF_MEMORY or (self.message or "").startswith(TIMED_OUT):
            return False
        return self.exit_code is None or self.exit_code >= SIGNALED

    @property
    def open(self) -> bool:
        """Whether it runs, waits, or may have been submitted: its reserve is held."""
        return self.stage in ("INTENDED", "SCHEDULING", "RUNNING")


@dataclass(frozen=True)
class Run:
    """A run with its attempts, the metrics it logged and the score it gave."""

    spec: RunSpec
    attempts: tuple[Attempt, ...]
    points: tuple[MetricPoint, ...] = ()
    score: Score | None = None

    @property
    def last(self) -> Attempt:
        """The newest attempt."""
        return self.attempts[-1]

    @property
    def done(self) -> bool:
        """Whether it completed."""
        return self.last.stage == "COMPLETED"

    @property
    def result(self) -> Mapping[str, Any]:
        """What the job script reported; empty while there is nothing."""
        return self.last.result or {}


@dataclass(frozen=True)
class Comparison:
    """A verdict, and when it was reached."""

    at: datetime
    fact: Compared


@dataclass(frozen=True)
class Taken:
    """A decision, when it was taken and about which training run."""

    at: datetime
    about: str
    decision: Decision


@dataclass(frozen=True)
class State:
    """Everything a policy, a planner or a report may know."""

    plan: Plan
    started_at: datetime
    updated_at: datetime
    versions: Mapping[str, str] = field(default_factory=dict)
    confirmed: bool = False
    model_path: str | None = None
    data_path: str | None = None
    dataset: DatasetReport | None = None
    runs: Mapping[str, Run] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()
    decisions: tuple[Taken, ...] = ()
    incidents: tuple[Event, ...] = ()
    """Refusals, resumes and crashes."""
    wakes: int = 0
    tokens: int | None = None
    """Planner tokens; None when no planner reported any."""
    crash: str | None = None
    """What ended the last process; None once the project was resumed."""
    ended: ProjectEnded | None = None
    ended_at: datetime | None = None

    @property
    def open_attempts(self) -> tuple[Attempt, ...]:
        """Jobs that run or may run."""
        return tuple(attempt for run in self.runs.values() for attempt in run.attempts if attempt.open)

    @property
    def spent_micro_usd(self) -> int | None:
        """Cost of all ended jobs; None when one of them is unknown."""
        costs = [
            a.cost_micro_usd for run in self.runs.values() for a in run.attempts if not a.open and a.stage != "REJECTED"
        ]
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    @property
    def held_micro_usd(self) -> int:
        """Worst-case cost of all open jobs."""
        return sum(attempt.job.reserve_micro_usd for attempt in self.open_attempts)

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """What policy refused, oldest first."""
        return tuple(event.fact.refusal for event in self.incidents if isinstance(event.fact, Refused))

    @property
    def trained(self) -> list[Run]:
        """Training runs, oldest first."""
        return [run for run in self.runs.values() if run.spec.kind == "train"]

    @property
    def kept(self) -> str | None:
        """The training run that was kept, if any."""
        for taken in reversed(self.decisions):
            if taken.decision.action == "keep":
                return taken.decision.run
        return None

    def extensions(self, name: str) -> int:
        """How many times the line of a training run was extended up to this run."""
        count, parent = 0, self.runs[name].spec.parent
        while parent is not None:
            count, parent = count + 1, self.runs[parent].spec.parent
        return count

    def scored(self, subject: str | None, problems: str) -> Run | None:
        """The completed evaluation of a training run (None: the base model) on a problem set."""
        for run in self.runs.values():
            if run.spec.subject == subject and run.spec.set == problems and run.score is not None:
                return run
        return None

    def comparison(self, candidate: str, reference: str | None, problems: str) -> Comparison | None:
        """The verdict on a candidate, if it was reached."""
        for item in self.comparisons:
            fact = item.fact
            if (fact.candidate, fact.reference, fact.set) == (candidate, reference, problems):
                return item
        return None

    def decision_on(self, run: str) -> Decision | None:
        """The newest decision about a training run."""
        return next((taken.decision for taken in reversed(self.decisions) if taken.about == run), None)


def fold(events: Iterable[Event]) -> State | None:
    """The state after the events; None before a plan was made."""
    state: State | None = None
    for event in events:
        state = apply(state, event)
    return state


def apply(state: State | None, event: Event) -> State | None:
    """The state after one more event."""
    fact = event.fact
    if isinstance(fact, PlanMade):
        return State(plan=fact.plan, started_at=event.at, updated_at=event.at, versions=fact.versions)
    if state is None:
        return None
    state = replace(state, updated_at=event.at)
    if isinstance(fact, JobIntended | JobSubmitted | JobRejected | JobStarted | JobEnded | CancelRequested):
        return _apply_job(state, event)
    return _apply_project(state, event)


def _apply_project(state: State, event: Event) -> State:  # noqa: C901 - one flat arm a fact
    match event.fact:
        case PlanConfirmed():
            return replace(state, confirmed=True)
        case ModelPrepared(path=path):
            return replace(state, model_path=path)
        case DataPrepared(path=path):
            return replace(state, data_path=path)
        case DatasetChecked(report=report):
            return replace(state, dataset=report)
        case MetricsLogged(run=name, points=points):
            return _with_run(state, name, points=_merge(state.runs[name].points, points))
        case Scored(run=name, score=score):
            return _with_run(state, name, score=score)
        case Compared() as fact:
            return replace(state, comparisons=(*state.comparisons, Comparison(event.at, fact)))
        case Decided(about=about, decision=decision):
            return replace(state, decisions=(*state.decisions, Taken(event.at, about, decision)))
        case Refused():
            return replace(state, incidents=(*state.incidents, event))
        case PlannerWoke() as fact:
            used = [n for n in (state.tokens, fact.input_tokens, fact.output_tokens) if n is not None]
            return replace(state, wakes=state.wakes + 1, tokens=sum(used) if used else None)
        case Resumed():
            return replace(state, incidents=(*state.incidents, event), crash=None)
        case Crashed(error=error):
            return replace(state, incidents=(*state.incidents, event), crash=error)
        case ProjectEnded() as fact:
            return replace(state, ended=fact, ended_at=event.at)
    return state


def _apply_job(state: State, event: Event) -> State:
    match event.fact:
        case JobIntended(run=spec, job=job):
            before = state.runs[spec.name].attempts if spec.name in state.runs else ()
            run = Run(spec=spec, attempts=(*before, Attempt(job=job, intended_at=event.at)))
            return replace(state, runs={**state.runs, spec.name: run})
        case JobSubmitted(key=key, job_id=job_id, url=url):
            return _with_attempt(state, key, stage="SCHEDULING", job_id=job_id, url=url)
        case JobRejected(key=key, message=message):
            return _with_attempt(state, key, stage="REJECTED", message=message)
        case JobStarted(key=key, started_at=started_at):
            return _with_attempt(state, key, stage="RUNNING", started_at=started_at)
        case CancelRequested(key=key, why=why):
            return _with_attempt(state, key, cancel_why=why)
        case JobEnded() as fact:
            values = fact.model_dump(exclude={"kind", "key"})
            return _with_attempt(state, fact.key, **values)
    return state


def _with_run(state: State, name: str, **changes: Any) -> State:
    return replace(state, runs={**state.runs, name: replace(state.runs[name], **changes)})


def _with_attempt(state: State, key: str, **changes: Any) -> State:
    for name, run in state.runs.items():
        attempts = tuple(replace(a, **changes) if a.job.key == key else a for a in run.attempts)
        if attempts != run.attempts:
            return _with_run(state, name, attempts=attempts)
    return state


def _merge(old: tuple[MetricPoint, ...], new: tuple[MetricPoint, ...]) -> tuple[MetricPoint, ...]:
    """Points by step; a later row of the same step adds to it (training and evaluation log separately)."""
    by_step = {point.step: point.values for point in old}
    for point in new:
        by_step[point.step] = {**by_step.get(point.step, {}), **point.values}
    return tuple(MetricPoint(step=step, values=values) for step, values in sorted(by_step.items()))
