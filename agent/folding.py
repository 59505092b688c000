"""Events become a state, one after the other. Pure."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hfagent.agent.backend_facts import (
    BackendFact,
    BackendFound,
    BackendLost,
    StrayEnded,
    StrayFound,
    SubmitRetried,
)
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
from hfagent.agent.guard_facts import GuardCompared
from hfagent.agent.incidents import INCIDENTS
from hfagent.agent.planner_facts import PlannerCalled, PlannerSwitched, PlannerWoke
from hfagent.agent.records import MetricPoint, ProblemSet
from hfagent.agent.runs import Attempt, Comparison, Run, Stray, Taken
from hfagent.agent.state import State
from hfagent.agent.upkeep_facts import ClockJumped
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
    state = replace(state, updated_at=event.at)
    if isinstance(fact, INCIDENTS):
        state = replace(state, incidents=(*state.incidents, event))
    if isinstance(fact, JobIntended | JobSubmitted | JobRejected | JobStarted | JobEnded | CancelRequested):
        return _apply_job(state, event)
    if isinstance(fact, BackendFact):
        return _apply_backend(state, event)
    if isinstance(fact, Wish):
        return replace(state, wishes=state.wishes.after(fact))
    return _apply_project(state, event)


def _apply_project(state: State, event: Event) -> State:  # noqa: C901 - one flat arm a fact
    match event.fact:
        case PlanConfirmed():
            return replace(state, confirmed=True)
        case ModelPrepared(path=path, vocab_size=vocab_size):
            return replace(state, model_path=path, vocab_size=vocab_size)
        case DataPrepared(path=path, made=True):
            # What was found is about the prompts: the data that was made of them is checked anew.
            return replace(state, data_path=path, data_made=True, source=state.dataset, dataset=None)
        case DataPrepared(path=path, cleaned=cleaned):
            source = state.data_source if cleaned else path
            return replace(state, data_path=path, data_cleaned=cleaned, data_source=source)
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
        case GuardCompared() as fact:
            return replace(state, guards=(*state.guards, fact))
        case Claimed(claim=claim):
            return replace(state, claim=claim)
        case Compared() as fact:
            comparison = Comparison(event.at, fact, harness=state.harness.get(fact.set))
            return replace(state, comparisons=(*state.comparisons, comparison))
        case Decided(about=about, decision=decision):
            return replace(state, decisions=(*state.decisions, Taken(event.at, about, decision)))
        case PlannerWoke() as fact:
            used = [n for n in (state.tokens, fact.input_tokens, fact.output_tokens) if n is not None]
            cost = state.planner_micro_usd + (fact.cost_micro_usd or 0)
            return replace(state, wakes=state.wakes + 1, tokens=sum(used) if used else None, planner_micro_usd=cost)
        case PlannerCalled() as fact:
            tokens = (state.tokens or 0) + fact.input_tokens + fact.output_tokens
            cost = state.planner_micro_usd + (fact.cost_micro_usd or 0)
            return replace(state, tokens=tokens, planner_micro_usd=cost)
        case PlannerSwitched(planner=planner, why=why):
            return replace(state, stand_in=why if planner == "rules" else None)
        case Resumed():
            return replace(state, crash=None)
        case ClockJumped(seconds=seconds):
            return _shifted(state, timedelta(seconds=seconds))
        case Crashed(error=error):
            return replace(state, crash=error)
        case ProjectEnded() as fact:
            return replace(state, ended=fact, ended_at=event.at)
    return state


def _apply_job(state: State, event: Event) -> State:
    match event.fact:
        case JobIntended(run=spec, job=job):
            before = state.runs[spec.name].attempts if spec.name in state.runs else ()
            run = Run(spec=spec, attempts=(*before, Attempt(job=job, intended_at=event.at, tried_at=event.at)))
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


def _apply_backend(state: State, event: Event) -> State:
    match event.fact:
        case BackendLost(error=error):
            return replace(state, backend_lost=error)
        case BackendFound():
            return replace(state, backend_lost=None)
        case SubmitRetried(key=key):
            attempt = next(a for a in state.open_attempts if a.job.key == key)
            return _with_attempt(state, key, tried_at=event.at, tries=attempt.tries + 1)
        case StrayFound(key=key, job_id=job_id, url=url):
            job = next(a.job for run in state.runs.values() for a in run.attempts if a.job.key == key)
            return replace(state, strays={**state.strays, job_id: Stray(job, job_id, url)})
        case StrayEnded(job_id=job_id, stage=stage, cost_micro_usd=cost):
            ended = replace(state.strays[job_id], stage=stage, cost_micro_usd=cost)
            return replace(state, strays={**state.strays, job_id: ended})
    return state


def _shifted(state: State, by: timedelta) -> State:
    """Open jobs on the clock that was set: what passed for them is unchanged."""
    for name, run in state.runs.items():
        if not run.last.open:
            continue
        last = replace(run.last, tried_at=run.last.tried_at + by)
        if last.started_at is not None:
            last = replace(last, shift_s=last.shift_s + by.total_seconds())
        progress = tuple((at + by, step) for at, step in run.progress)
        state = _with_run(state, name, attempts=(*run.attempts[:-1], last), progress=progress)
    return state


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
