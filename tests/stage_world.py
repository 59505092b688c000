"""Pipelines in the world of fakes: the plan of one, and how it is begun, killed and gone on with."""

import io
from pathlib import Path
from typing import Any

from rich.console import Console
from world import KilledError, World, make_plan

from hfagent.agent import ledger, pipeline
from hfagent.agent.pipeline_facts import Pipeline
from hfagent.agent.pipeline_rules import named
from hfagent.agent.pipeline_state import PipelineState, fold
from hfagent.agent.records import Method
from hfagent.agent.settings import Settings, load
from hfagent.agent.wiring import Paths

SKILL = {
    "baseline": 0.1,
    "sft-01": 0.4, "sft-01-x1": 0.4,
    "dpo-01": 0.55, "dpo-01-x1": 0.55,
    "grpo-01": 0.7, "grpo-01-x1": 0.7,
    "Q4_K_M": 0.55, "Q8_0": 0.55,
}  # fmt: skip
QUIET = Console(quiet=True)


def make_pipeline(*methods: Method, **changes: Any) -> Pipeline:
    limits = {name: changes.pop(name) for name in ("export",) if name in changes}
    plans = []
    for method in methods:
        plan = make_plan(method=method, max_extensions=0, **changes)
        rewards = {"reward_funcs": "format:1"} if method == "grpo" else {}
        plans.append(plan.model_copy(update={"train": plan.train.model_copy(update={"method": method, **rewards})}))
    first = plans[0]
    return named(
        Pipeline(
            project="improve",
            token="ab12",
            goal=f"improve code solving with {' then '.join(methods)}",
            stages=tuple(plans),
            budget_micro_usd=first.budget_micro_usd,
            max_hours=first.max_hours,
            max_gpu_hours=first.max_gpu_hours,
            max_planner_tokens=first.max_planner_tokens,
            **limits,
        )
    )


def settings_in(folder: Path) -> Settings:
    return load({}, cwd=folder, env={})


def begin(folder: Path, there: World, made: Pipeline, **options: Any) -> PipelineState:
    """A pipeline, begun, to its end."""
    state = pipeline.begin(made, there.ports, settings_in(folder), **{"ask": None, "console": QUIET, **options})
    assert state is not None
    return state


def paths_in(folder: Path) -> Paths:
    return Paths(settings_in(folder).reports_dir, "improve")


def resume(folder: Path, there: World, *, console: Console = QUIET) -> PipelineState:
    """The pipeline gone on with, to its end."""
    return pipeline.resume(paths_in(folder), there.ports, settings_in(folder), console=console)


def facts(folder: Path) -> list[str]:
    """The kinds of the pipeline's facts."""
    return [event.fact.kind for event in ledger.read(paths_in(folder).ledger)]


def state_in(folder: Path) -> PipelineState:
    state = fold(ledger.read(paths_in(folder).ledger))
    assert state is not None
    return state


class DyingConsole(Console):
    """The process dies once the nth event that a terminal shows is on disk, of the pipeline or of a stage."""

    def __init__(self, nth: int):
        super().__init__(file=io.StringIO(), width=200)
        self.left = nth

    def print(self, *objects: Any, **options: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise KilledError


def told(state: PipelineState) -> list[Any]:
    """All that a pipeline concluded, times aside."""
    stages = [ended.model_dump(exclude={"seconds"}) for _, ended in state.closed]
    assert state.ended is not None
    return [stages, state.verdict, state.claim, state.exported, state.ended]
