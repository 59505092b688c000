"""What is known about a pipeline: a pure fold over its own events. Its stages have ledgers of their own."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from hfagent.agent.dataset_records import DatasetReport
from hfagent.agent.events import (
    Claimed,
    Compared,
    Crashed,
    DatasetChecked,
    Event,
    LookTaken,
    PlanConfirmed,
    ProjectEnded,
    Resumed,
)
from hfagent.agent.guard_facts import GuardCompared
from hfagent.agent.pipeline_facts import ModelExported, Pipeline, PipelineMade, StageBegun, StageEnded
from hfagent.agent.records import Claim, ModelRef, Plan
from hfagent.agent.verdict import Verdict


@dataclass(frozen=True)
class Stage:
    """One that was begun."""

    number: int
    plan: Plan
    begun_at: datetime
    ended: StageEnded | None = None


@dataclass(frozen=True)
class PipelineState:
    """Everything that its rules and its report may know."""

    pipeline: Pipeline
    started_at: datetime
    updated_at: datetime
    versions: Mapping[str, str] = field(default_factory=dict)
    confirmed: bool = False
    datasets: tuple[DatasetReport, ...] = ()
    """What was found about the data of each stage before anything started."""
    begun: tuple[Stage, ...] = ()
    looks: tuple[LookTaken, ...] = ()
    verdict: Verdict | None = None
    """The last good model against the original base model, on the confirm set."""
    guards: tuple[GuardCompared, ...] = ()
    """The same two models on abilities that must not be lost, as far as they could be compared."""
    claim: Claim | None = None
    claimed_at: datetime | None = None
    exported: ModelExported | None = None
    crash: str | None = None
    """What ended the last process; None once the pipeline was resumed."""
    ended: ProjectEnded | None = None
    ended_at: datetime | None = None

    @property
    def current(self) -> Stage | None:
        """The stage that is worked on."""
        return next((stage for stage in self.begun if stage.ended is None), None)

    @property
    def closed(self) -> list[tuple[Stage, StageEnded]]:
        """The stages that have ended, oldest first."""
        return [(stage, stage.ended) for stage in self.begun if stage.ended is not None]

    @property
    def carried(self) -> list[tuple[Stage, StageEnded]]:
        """Those of them whose models were built upon."""
        return [(stage, ended) for stage, ended in self.closed if ended.kept]

    @property
    def base(self) -> ModelRef:
        """The model that the pipeline began with."""
        return self.pipeline.stages[0].model

    @property
    def model(self) -> ModelRef:
        """What the next stage begins with: the last good model."""
        models = [ended.model for _, ended in self.carried if ended.model is not None]
        return models[-1] if models else self.base

    @property
    def guarded(self) -> dict[str, Verdict | None]:
        """Each guard of the plans with what was found, None where that could not be evaluated; empty without a verdict
        to tell it beside."""
        if self.verdict is None or self.claim is None:
            return {}
        found = {told.guard: told.verdict for told in self.guards}
        return {guard.name: found.get(guard.name) for plan in self.pipeline.stages for guard in plan.guards}

    @property
    def spent_micro_usd(self) -> int | None:
        """Cost of all ended stages and of the export; None where one is unknown."""
        costs = [ended.spent_micro_usd for _, ended in self.closed]
        if self.exported is not None and self.exported.run is not None:
            costs.append(self.exported.spent_micro_usd)
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    @property
    def money_left_micro_usd(self) -> int | None:
        """What the next stages may still spend; None without a cap."""
        cap = self.pipeline.budget_micro_usd
        return None if cap is None else cap - sum(ended.charged_micro_usd for _, ended in self.closed)

    @property
    def gpu_s_left(self) -> float | None:
        """What jobs of the next stages may still run, times their GPUs; None without a limit."""
        hours = self.pipeline.max_gpu_hours
        return None if hours is None else 3600 * hours - sum(ended.charged_gpu_s or 0 for _, ended in self.closed)

    @property
    def planner_tokens(self) -> int | None:
        """Of all ended stages; None when no planner reported any."""
        told = [ended.planner_tokens for _, ended in self.closed if ended.planner_tokens is not None]
        return sum(told) if told else None

    @property
    def planner_tokens_left(self) -> int | None:
        """What the planner may still read and write in the next stages; None without a limit."""
        limit = self.pipeline.max_planner_tokens
        return None if limit is None else limit - (self.planner_tokens or 0)

    def time_left_s(self, now: datetime) -> float | None:
        """Seconds to the deadline of all stages; None without one."""
        hours = self.pipeline.max_hours
        return None if hours is None else (self.started_at + timedelta(hours=hours) - now).total_seconds()


def fold(events: Iterable[Event]) -> PipelineState | None:
    """The state after the events; None where they are no pipeline's."""
    state: PipelineState | None = None
    for event in events:
        state = apply(state, event)
    return state


def apply(state: PipelineState | None, event: Event) -> PipelineState | None:  # noqa: C901 - one flat arm a fact
    """The state after one more event."""
    fact = event.fact
    if isinstance(fact, PipelineMade):
        return PipelineState(fact.pipeline, event.at, event.at, fact.versions)
    if state is None:
        return None
    state = replace(state, updated_at=event.at)
    match fact:
        case DatasetChecked(report=report):
            return replace(state, datasets=(*state.datasets, report))
        case PlanConfirmed():
            return replace(state, confirmed=True)
        case StageBegun(number=number, plan=plan):
            return replace(state, begun=(*state.begun, Stage(number, plan, event.at)))
        case StageEnded(number=number):
            stages = (replace(stage, ended=fact) if stage.number == number else stage for stage in state.begun)
            return replace(state, begun=tuple(stages))
        case LookTaken():
            return replace(state, looks=(*state.looks, fact))
        case Compared(verdict=verdict):
            return replace(state, verdict=verdict)
        case GuardCompared():
            return replace(state, guards=(*state.guards, fact))
        case Claimed(claim=claim):
            return replace(state, claim=claim, claimed_at=event.at)
        case ModelExported():
            return replace(state, exported=fact)
        case Resumed():
            return replace(state, crash=None)
        case Crashed(error=error):
            return replace(state, crash=error)
        case ProjectEnded():
            return replace(state, ended=fact, ended_at=event.at)
    return state
