"""Events become a state, one after the other. Pure."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import cache
from typing import Any

from hfagent.agent.backend_facts import (
    BackendFact,
    BackendFound,
    BackendLost,
    StrayEnded,
    StrayFound,
    SubmitRetried,
)
from hfagent.agent.changed import changed
from hfagent.agent.events import (
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
    Resumed,
    Scored,
    SearchEnded,
)
from hfagent.agent.growing import Growing
from hfagent.agent.guard_facts import GuardCompared
from hfagent.agent.incidents import INCIDENTS
from hfagent.agent.planner_facts import PlannerCalled, PlannerSwitched, PlannerWoke
from hfagent.agent.records import JobSpec, MetricPoint, ProblemSet
from hfagent.agent.runs import Attempt, Comparison, Run, Stray, Taken
from hfagent.agent.state import State
from hfagent.agent.upkeep_facts import Allotted, ClockJumped, LimitNear, OrphanFound
from hfagent.agent.wishes import Wish


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
    incident, applied = _ways(type(fact))
    if incident:
        state = changed(state, updated_at=event.at, incidents=state.incidents.plus(event))
    else:
        state = changed(state, updated_at=event.at)
    return applied(state, event)


@cache
def _ways(kind: type) -> tuple[bool, Callable[[State, Event], State]]:
    """Whether the decision log tells of such facts, and what they change."""
    incident = issubclass(kind, INCIDENTS)
    if issubclass(kind, MetricsLogged):
        return incident, _apply_metrics
    if issubclass(kind, JobIntended | JobSubmitted | JobRejected | JobStarted | JobEnded | CancelRequested):
        return incident, _apply_job
    if issubclass(kind, BackendFact):
        return incident, _apply_backend
    return incident, _apply_wish if issubclass(kind, Wish) else _apply_project


def _apply_metrics(state: State, event: Event) -> State:
    fact = event.fact
    assert isinstance(fact, MetricsLogged)
    run = state.runs[fact.run]
    progress = run.progress.plus((event.at, max(point.step for point in fact.points)))
    return _with_run(state, fact.run, points=_merge(run.points, fact.points), progress=progress)


def _apply_wish(state: State, event: Event) -> State:
    assert isinstance(event.fact, Wish)
    return changed(state, wishes=state.wishes.after(event.fact))


def _apply_project(state: State, event: Event) -> State:  # noqa: C901 - one flat arm a fact
    match event.fact:
        case PlanConfirmed():
            return changed(state, confirmed=True)
        case ModelPrepared(path=path, vocab_size=vocab_size, teacher=teacher):
            return changed(state, model_path=path, vocab_size=vocab_size, teacher_path=teacher)
        case DataPrepared(path=path, made=True, sha256=sha256):
            # What was found is about the prompts: the data that was made of them is checked anew.
            return changed(
                state, data_path=path, data_made=True, data_sha256=sha256, source=state.dataset, dataset=None
            )
        case DataPrepared(path=path, cleaned=cleaned):
            source = state.data_source if cleaned else path
            return changed(state, data_path=path, data_cleaned=cleaned, data_sha256=None, data_source=source)
        case ContaminationChecked(report=contamination):
            return changed(state, contamination=contamination)
        case DatasetChecked(report=report):
            return changed(state, dataset=report)
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
            return changed(state, noise=fact)
        case Proposed() as fact:
            return changed(state, proposals=(*state.proposals, fact))
        case SearchEnded(reason=reason):
            return changed(state, search_ended=reason)
        case LookTaken() as fact:
            return changed(state, looks=(*state.looks, fact))
        case GuardCompared() as fact:
            return changed(state, guards=(*state.guards, fact))
        case Claimed(claim=claim):
            return changed(state, claim=claim)
        case Compared() as fact:
            comparison = Comparison(event.at, fact, harness=state.harness.get(fact.set))
            return changed(state, comparisons=(*state.comparisons, comparison))
        case Decided(about=about, decision=decision):
            return changed(state, decisions=(*state.decisions, Taken(event.at, about, decision)))
        case PlannerWoke() as fact:
            used = [n for n in (state.tokens, fact.input_tokens, fact.output_tokens) if n is not None]
            cost = state.planner_micro_usd + (fact.cost_micro_usd or 0)
            return changed(state, wakes=state.wakes + 1, tokens=sum(used) if used else None, planner_micro_usd=cost)
        case PlannerCalled() as fact:
            tokens = (state.tokens or 0) + fact.input_tokens + fact.output_tokens
            cost = state.planner_micro_usd + (fact.cost_micro_usd or 0)
            return changed(state, tokens=tokens, planner_micro_usd=cost)
        case PlannerSwitched(planner=planner, why=why):
            return changed(state, stand_in=why if planner == "rules" else None)
        case Resumed():
            return changed(state, crash=None)
        case Allotted() as fact:
            return changed(state, plan=state.plan.model_copy(update=fact.model_dump(exclude={"kind"})))
        case LimitNear(limit=limit):
            return changed(state, warned=state.warned | {limit})
        case OrphanFound(job=JobSpec() as job, job_id=job_id, url=url):
            return changed(state, strays={**state.strays, job_id: Stray(job, job_id, url)})
        case ClockJumped(seconds=seconds):
            return _shifted(state, timedelta(seconds=seconds))
        case Crashed(error=error):
            return changed(state, crash=error)
        case ProjectEnded() as fact:
            return changed(state, ended=fact, ended_at=event.at)
    return state


def _apply_job(state: State, event: Event) -> State:
    match event.fact:
        case JobIntended(run=spec, job=job):
            before = state.runs[spec.name].attempts if spec.name in state.runs else ()
            run = Run(spec=spec, attempts=(*before, Attempt(job=job, intended_at=event.at)))
            return changed(state, runs=state.runs.plus(spec.name, run))
        case JobSubmitted(key=key, job_id=job_id, url=url):
            # An orphan that an attempt takes over counts as the attempt's.
            others = {name: stray for name, stray in state.strays.items() if name != job_id}
            return _with_attempt(changed(state, strays=others), key, stage="SCHEDULING", job_id=job_id, url=url)
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


def _apply_backend(state: State, event: Event) -> State:
    match event.fact:
        case BackendLost(error=error):
            return changed(state, backend_lost=error)
        case BackendFound():
            return changed(state, backend_lost=None)
        case SubmitRetried(key=key):
            attempt = next(a for a in state.open_attempts if a.job.key == key)
            return _with_attempt(state, key, tries=attempt.tries + 1)
        case StrayFound(key=key, job_id=job_id, url=url):
            job = next(a.job for run in state.runs.values() for a in run.attempts if a.job.key == key)
            return changed(state, strays={**state.strays, job_id: Stray(job, job_id, url)})
        case StrayEnded(job_id=job_id, stage=stage, cost_micro_usd=cost):
            ended = changed(state.strays[job_id], stage=stage, cost_micro_usd=cost)
            return changed(state, strays={**state.strays, job_id: ended})
    return state


def _shifted(state: State, by: timedelta) -> State:
    """Open jobs on the clock that was set: what passed for them is unchanged."""
    for name, run in state.runs.items():
        if not run.last.open:
            continue
        last = run.last
        if last.started_at is not None:
            last = changed(last, shift_s=last.shift_s + by.total_seconds())
        progress = Growing((at + by, step) for at, step in run.progress)
        state = _with_run(state, name, attempts=(*run.attempts[:-1], last), progress=progress)
    return state


def _with_harness(state: State, problems: ProblemSet, harness: str) -> State:
    return changed(
        state,
        harness={**state.harness, problems: harness},
        epochs={**state.epochs, problems: state.epochs.get(problems, 0) + 1},
    )


def _with_run(state: State, name: str, **changes: Any) -> State:
    return changed(state, runs=state.runs.plus(name, changed(state.runs[name], **changes)))


def _with_attempt(state: State, key: str, **changes: Any) -> State:
    for name in reversed(state.runs):  # the newest runs have the jobs that anything happens to
        attempts = state.runs[name].attempts
        for place, attempt in enumerate(attempts):
            if attempt.job.key == key:
                new = (*attempts[:place], changed(attempt, **changes), *attempts[place + 1 :])
                return _with_run(state, name, attempts=new)
    return state


def _merge(old: Growing[MetricPoint], new: tuple[MetricPoint, ...]) -> Growing[MetricPoint]:
    """Points by step; a later row of the same step adds to it (training and evaluation log separately)."""
    last = old[-1].step if old else -1
    if all(point.step > before for before, point in zip((last, *(p.step for p in new)), new, strict=False)):
        return old.plus(*new)
    kept = len(old)
    first = min(point.step for point in new)
    while kept and old[kept - 1].step >= first:
        kept -= 1
    by_step = {point.step: point for point in old[kept:]}
    for point in new:
        known = by_step.get(point.step)
        by_step[point.step] = point if known is None else _added(known, point)
    return old.first(kept).plus(*(by_step[step] for step in sorted(by_step)))


def _added(known: MetricPoint, more: MetricPoint) -> MetricPoint:
    return MetricPoint(step=known.step, values={**known.values, **more.values})
