"""What is known about a project: a pure fold over its events."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from hfagent.agent.events import (
    INCIDENTS,
    CancelRequested,
    Claimed,
    Compared,
    ContaminationChecked,
    Crashed,
    DataPrepared,
    DatasetChecked,
    Decided,
    EpochOpened,
    Event,
    Flagged,
    JobEnded,
    JobIntended,
    JobRejected,
    JobStarted,
    JobSubmitted,
    LookTaken,
    MetricsLogged,
    ModelPrepared,
    NoiseMeasured,
    PlanConfirmed,
    PlanMade,
    ProjectEnded,
    Proposed,
    Refused,
    Resumed,
    Scored,
    SearchEnded,
)
from hfagent.agent.integrity import ContaminationReport
from hfagent.agent.planner_facts import PlannerCalled, PlannerSwitched, PlannerWoke
from hfagent.agent.records import Claim, DatasetReport, Decision, MetricPoint, Plan, ProblemSet, Refusal
from hfagent.agent.runs import Attempt, Comparison, Run, Taken
from hfagent.agent.wishes import Wish, Wishes


@dataclass(frozen=True)
class State:
    """Everything a policy, a planner or a report may know."""

    plan: Plan
    started_at: datetime
    updated_at: datetime
    versions: Mapping[str, str] = field(default_factory=dict)
    confirmed: bool = False
    model_path: str | None = None
    vocab_size: int | None = None
    data_path: str | None = None
    data_cleaned: bool = False
    """Whether the path is a copy without the rows that hold benchmark problems."""
    dataset: DatasetReport | None = None
    contamination: ContaminationReport | None = None
    runs: Mapping[str, Run] = field(default_factory=dict)
    proposals: tuple[Proposed, ...] = ()
    """Sets of hyperparameters beyond the plan's own, oldest first."""
    harness: Mapping[ProblemSet, str] = field(default_factory=dict)
    """Harness of the scores that count."""
    epochs: Mapping[ProblemSet, int] = field(default_factory=dict)
    """How often the harness of a set was new, the first time included."""
    search_ended: str | None = None
    """Why no further set of hyperparameters is tried, once the confirmation has begun."""
    noise: NoiseMeasured | None = None
    looks: tuple[LookTaken, ...] = ()
    claim: Claim | None = None
    comparisons: tuple[Comparison, ...] = ()
    decisions: tuple[Taken, ...] = ()
    incidents: tuple[Event, ...] = ()
    """What the decision log tells beside verdicts and decisions: refusals, flags, looks, resumes, crashes, ..."""
    wakes: int = 0
    tokens: int | None = None
    """Planner tokens; None when no planner reported any."""
    planner_micro_usd: int = 0
    """What the planner's tokens cost, as far as a price is set."""
    stand_in: str | None = None
    """Why the rules plan in place of a model; None while they do not."""
    wishes: Wishes = field(default_factory=Wishes)
    """Of a person."""
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
        """Cost of all ended jobs and of the planner; None when that of a job is unknown."""
        ended = [a for run in self.runs.values() for a in run.attempts if not a.open and a.stage != "REJECTED"]
        costs = [a.cost_micro_usd for a in ended]
        return None if None in costs else sum(cost for cost in costs if cost is not None) + self.planner_micro_usd

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

    def search_scores(self) -> dict[str, float]:
        """Training run -> its score on the whole search set, by the harness that counts."""
        found = {run.spec.name: self.scored(run.spec.name, "search") for run in self.trained}
        scores = {name: run.score for name, run in found.items() if run is not None}
        return {name: score.value for name, score in scores.items() if score is not None and score.complete}

    def rung(self, name: str) -> dict[str, float]:
        """Search scores of the other runs that were extended as often as this one: only they had as much training."""
        depth, line = self.extensions(name), self.line(name)
        return {
            other: score
            for other, score in self.search_scores().items()
            if other not in line and self.extensions(other) == depth
        }

    def extensions(self, name: str) -> int:
        """How many times the line of a training run was extended up to this run."""
        return sum(self.runs[run].spec.parent is not None for run in self.line(name))

    def restarts(self, name: str) -> int:
        """How many times a training run was begun again with changed hyperparameters."""
        before = self.runs[name].spec.instead_of
        return 0 if before is None else 1 + self.restarts(before)

    @property
    def trials(self) -> list[Run]:
        """First runs of each set of hyperparameters, oldest first."""
        return [run for run in self.trained if run.spec.parent is None and run.spec.instead_of is None]

    @property
    def plan_tried(self) -> bool:
        """Whether the plan's own set of hyperparameters was begun, or vetoed."""
        return bool(self.trials) or root_name(self.plan.method, 1) in self.wishes.vetoed

    @property
    def pending(self) -> Proposed | None:
        """The newest proposal, while no run was made of it."""
        if not self.proposals:
            return None
        name = root_name(self.plan.method, self.proposals[-1].number)
        if name in self.runs or name in self.wishes.vetoed:
            return None
        return self.proposals[-1]

    def scored(self, subject: str | None, problems: ProblemSet) -> Run | None:
        """The evaluation of a training run (None: the base model) on a problem set by the harness that counts."""
        return self._scored.get((subject, problems))

    @cached_property
    def _scored(self) -> dict[tuple[str | None, ProblemSet], Run]:
        found: dict[tuple[str | None, ProblemSet], Run] = {}
        for run in self.runs.values():
            spec, score = run.spec, run.score
            if spec.set is None or spec.repeat or score is None or score.harness != self.harness.get(spec.set):
                continue
            found.setdefault((spec.subject, spec.set), run)
        return found

    def line(self, name: str) -> list[str]:
        """A training run and those that it extends or replaces, newest first."""
        found = [name]
        while (before := self.runs[found[-1]].spec.parent or self.runs[found[-1]].spec.instead_of) is not None:
            found.append(before)
        return found

    def comparison(self, candidate: str, reference: str | None, problems: ProblemSet) -> Comparison | None:
        """The newest verdict on a candidate, if one was reached; it may be by a harness that counts no more."""
        for item in reversed(self.comparisons):
            fact = item.fact
            if (fact.candidate, fact.reference, fact.set) == (candidate, reference, problems):
                return item
        return None

    def compared(self, candidate: str, reference: str | None, problems: ProblemSet) -> bool:
        """Whether a candidate was compared by the harness that counts."""
        found = self.comparison(candidate, reference, problems)
        return found is not None and found.harness == self.harness.get(problems)

    def given_up(self, run: str) -> bool:
        """Whether the newest decision about a training run is that nothing more comes of it."""
        decision = self.decision_on(run)
        return decision is not None and decision.action in ("discard", "stop")

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
    if isinstance(fact, INCIDENTS):
        state = replace(state, incidents=(*state.incidents, event))
    if isinstance(fact, JobIntended | JobSubmitted | JobRejected | JobStarted | JobEnded | CancelRequested):
        return _apply_job(state, event)
    if isinstance(fact, Wish):
        return replace(state, wishes=state.wishes.after(fact))
    return _apply_project(state, event)


def _apply_project(state: State, event: Event) -> State:  # noqa: C901 - one flat arm a fact
    match event.fact:
        case PlanConfirmed():
            return replace(state, confirmed=True)
        case ModelPrepared(path=path, vocab_size=vocab_size):
            return replace(state, model_path=path, vocab_size=vocab_size)
        case DataPrepared(path=path, cleaned=cleaned):
            return replace(state, data_path=path, data_cleaned=cleaned)
        case ContaminationChecked(report=contamination):
            return replace(state, contamination=contamination)
        case DatasetChecked(report=report):
            return replace(state, dataset=report)
        case MetricsLogged(run=name, points=points):
            run = state.runs[name]
            progress = (*run.progress, (event.at, max(point.step for point in points)))
            return _with_run(state, name, points=_merge(run.points, points), progress=progress)
        case Flagged(run=name) as fact:
            return _with_run(state, name, flags=(*state.runs[name].flags, fact))
        case Scored(run=name, score=score):
            spec = state.runs[name].spec
            if spec.set is not None and not spec.repeat and spec.set not in state.harness:
                state = _with_harness(state, spec.set, score.harness)
            return _with_run(state, name, score=score)
        case EpochOpened(set=problems, harness=harness):
            return _with_harness(state, problems, harness)
        case NoiseMeasured() as fact:
            return replace(state, noise=fact)
        case Proposed() as fact:
            return replace(state, proposals=(*state.proposals, fact))
        case SearchEnded(reason=reason):
            return replace(state, search_ended=reason)
        case LookTaken() as fact:
            return replace(state, looks=(*state.looks, fact))
        case Claimed(claim=claim):
            return replace(state, claim=claim)
        case Compared() as fact:
            comparison = Comparison(event.at, fact, harness=state.harness.get(fact.set))
            return replace(state, comparisons=(*state.comparisons, comparison))
        case Decided(about=about, decision=decision):
            return replace(state, decisions=(*state.decisions, Taken(event.at, about, decision)))
        case PlannerWoke() as fact:
            used = [n for n in (state.tokens, fact.input_tokens, fact.output_tokens) if n is not None]
            return replace(state, wakes=state.wakes + 1, tokens=sum(used) if used else None)
        case PlannerCalled() as fact:
            tokens = (state.tokens or 0) + fact.input_tokens + fact.output_tokens
            cost = state.planner_micro_usd + (fact.cost_micro_usd or 0)
            return replace(state, tokens=tokens, planner_micro_usd=cost)
        case PlannerSwitched(planner=planner, why=why):
            return replace(state, stand_in=why if planner == "rules" else None)
        case Resumed():
            return replace(state, crash=None)
        case Crashed(error=error):
            return replace(state, crash=error)
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


def root_name(method: str, number: int) -> str:
    """Name of the first training run of a set of hyperparameters; 1 is the plan's own."""
    return f"{method}-{number:02d}"


def _with_harness(state: State, problems: ProblemSet, harness: str) -> State:
    return replace(
        state,
        harness={**state.harness, problems: harness},
        epochs={**state.epochs, problems: state.epochs.get(problems, 0) + 1},
    )


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
