"""Limits over all stages of a pipeline: each stage has its share, and together they never pass them."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, obedient
from stage_world import QUIET, SKILL, DyingConsole, begin, make_pipeline, paths_in, resume, settings_in
from world import FAILED, LOST, KilledError, World

from hfagent.agent import envelope, ledger, pipeline, pipeline_rules
from hfagent.agent.events import Event
from hfagent.agent.fakes import Ending
from hfagent.agent.folding import apply
from hfagent.agent.pipeline_facts import StageBegun
from hfagent.agent.pipeline_report import render
from hfagent.agent.pipeline_state import PipelineState
from hfagent.agent.planner_facts import PlannerSwitched
from hfagent.agent.records import Export, JobSpec, Plan
from hfagent.agent.settings import Settings
from hfagent.agent.state import State
from hfagent.agent.wiring import Paths

ASKED = Export(quantize=("Q8_0",), push="ada/tuned")
PRICE = 1_000_000
"""An hour of one GPU costs a dollar: what is true of the one limit is true of the other."""


def stage_plans(folder: Path) -> list[Plan]:
    return [event.fact.plan for event in ledger.read(paths_in(folder).ledger) if isinstance(event.fact, StageBegun)]


def states(folder: Path) -> Iterator[list[State]]:
    """Those of all stages after each event; stages go one after the other, and an export comes after all of them."""
    order: list[tuple[bool, int, str, Event]] = []
    for number, plan in enumerate(stage_plans(folder)):
        over = False
        for event in ledger.read(Paths(settings_in(folder).reports_dir, plan.project).ledger):
            order.append((over, number, plan.project, event))
            over = over or event.fact.kind == "project_ended"
    found: dict[str, State] = {}
    for _, _, project, event in sorted(order, key=lambda item: item[:2]):
        state = apply(found.get(project), event)
        assert state is not None
        found[project] = state
        yield list(found.values())


def most(folder: Path) -> tuple[float, float]:
    """The most that was ever spent and held, in dollars, and in GPU hours."""
    both = [
        (
            sum(envelope.charged_micro_usd(state) + state.held_micro_usd for state in known) / 1e6,
            sum(envelope.charged_gpu_s(state) for state in known) / 3600,
        )
        for known in states(folder)
    ]
    return max(money for money, _ in both), max(hours for _, hours in both)


def limited(folder: Path, by: str, limit: float, **changes: Any) -> Any:
    limits = {"budget_micro_usd": round(limit * 1e6)} if by == "budget" else {"max_gpu_hours": limit}
    paid = {"price_micro_usd_per_hour": PRICE, "flavor": "a10g-small", "state_dir": str(folder)}
    return make_pipeline("sft", "dpo", **{**paid, **limits, **changes})


def test_gpu_hours_are_shared_and_what_a_stage_leaves_is_for_those_after_it(tmp_path: Path) -> None:
    for hours in (0.6, 0.9, 1.5):
        folder = tmp_path / str(hours)
        state = begin(folder, World(SKILL), make_pipeline("sft", "dpo", "grpo", max_gpu_hours=hours, gpus=2))
        used = 0.0
        for plan, (_, ended) in zip(stage_plans(folder), state.closed, strict=True):
            assert plan.max_gpu_hours is not None
            assert ended.charged_gpu_s is not None
            assert ended.charged_gpu_s / 3600 <= plan.max_gpu_hours <= hours - used + 1e-9
            used += ended.charged_gpu_s / 3600
        first, *_, last = stage_plans(folder)
        assert first.max_gpu_hours is not None
        assert first.max_gpu_hours <= hours / 2
        assert last.max_gpu_hours == pytest.approx(hours - used + (state.closed[-1][1].charged_gpu_s or 0) / 3600)
        assert 0 < used <= hours
        assert most(folder)[1] <= hours + 1e-9


def troubled(seed: int) -> World:
    """Jobs take any time up to their limit, and some are lost or fail; the second stage gains nothing."""
    there, draw = World({**SKILL, "dpo-01": 0.05}), random.Random(seed)
    to_its_limit = Ending(running_s=1e6)

    def ending(spec: JobSpec) -> Ending | None:
        chance = draw.random()
        if spec.kind in ("train", "publish") or spec.run == "export-2":
            return to_its_limit if chance < 0.5 else FAILED if chance < 0.6 else None
        return LOST if chance > 0.95 else None

    there.endings = ending
    there.evaluation_s = lambda run: draw.uniform(5, 90)
    return there


@pytest.mark.parametrize("by", ["budget", "gpu hours"])
@pytest.mark.parametrize("limit", [0.3, 0.35, 0.4, 0.6, 0.8])
def test_no_stage_and_no_export_passes_the_limit_of_all(tmp_path: Path, by: str, limit: float) -> None:
    """The export of a stage whose leftover went to a later one counts against what that one left."""
    for seed in range(4):
        folder = tmp_path / str(seed)
        begin(folder, troubled(seed), limited(folder, by, limit, export=ASKED))
        assert most(folder)[by != "budget"] <= limit + 1e-9


@pytest.mark.parametrize("by", ["budget", "gpu hours"])
@pytest.mark.parametrize("lives", [7, 11])
def test_a_pipeline_that_is_killed_again_and_again_keeps_its_limit(tmp_path: Path, by: str, lives: int) -> None:
    there, limit = troubled(1), 0.4
    with pytest.raises(KilledError):
        begin(tmp_path, there, limited(tmp_path, by, limit, export=ASKED), console=DyingConsole(4))
    state: PipelineState | None = None
    while state is None:
        try:
            state = resume(tmp_path, there, console=DyingConsole(lives))
        except KilledError:
            continue
    assert most(tmp_path)[by != "budget"] <= limit + 1e-9
    assert facts_of(tmp_path, "improve-1-sft").count("allotted") <= 1


def facts_of(folder: Path, project: str) -> list[str]:
    return [event.fact.kind for event in ledger.read(Paths(settings_in(folder).reports_dir, project).ledger)]


def test_an_export_may_use_what_the_stages_after_it_have_left(tmp_path: Path) -> None:
    """Its own stage has too little left."""
    there = World({**SKILL, "dpo-01": 0.05})
    state = begin(tmp_path, there, limited(tmp_path, "gpu hours", 0.35, export=ASKED))
    first = state.closed[0][0].plan.max_gpu_hours
    assert state.exported is not None
    assert state.exported.done
    [known] = [s for s in list(states(tmp_path))[-1] if s.plan.project == "improve-1-sft"]
    assert first is not None
    assert known.plan.max_gpu_hours is not None
    assert first < known.plan.max_gpu_hours < 0.35


def test_a_later_export_has_the_limits_of_all_stages_too(tmp_path: Path) -> None:
    there = World({**SKILL, "dpo-01": 0.05})
    state = begin(tmp_path, there, limited(tmp_path, "gpu hours", 0.35))
    assert state.ended is not None
    there.endings = lambda spec: Ending(running_s=1e6) if spec.kind == "export" else None
    pipeline.export(paths_in(tmp_path), there.ports, settings_in(tmp_path), ASKED, console=QUIET)
    assert most(tmp_path)[1] <= 0.35 + 1e-9


def test_stages_that_no_gpu_hours_are_left_for_are_not_begun(tmp_path: Path) -> None:
    """The first stage's jobs ran longer than they should have."""
    there = World(SKILL)
    whole = begin(tmp_path, there, make_pipeline("sft", "dpo", max_gpu_hours=2.5))
    first, ended = whole.closed[0]
    assert ended.charged_gpu_s is not None
    late = replace(first, ended=ended.model_copy(update={"charged_gpu_s": 9001.0}))
    state = replace(whole, begun=(late,), ended=None)
    due = pipeline_rules.due(state, there.clock.now())
    assert isinstance(due, pipeline_rules.End)
    assert due.fact.state == "stopped"
    assert "the limit of 2.5 GPU hours is reached, 1 stages were not begun" in due.fact.reason


def test_gpu_hours_are_told_as_for_one_night(tmp_path: Path) -> None:
    state = begin(tmp_path, World(SKILL), make_pipeline("sft", "dpo", max_gpu_hours=2.5))
    assert ", no limit, 2.5 GPU hours for all stages |" in render(state)
    assert "tokens" not in render(state)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(obedient).running() as running:
        yield running


def by_model(folder: Path, server: ChatServer) -> Settings:
    changes = {"planner": f"{server.url}#scripted", "reports_dir": settings_in(folder).reports_dir}
    return Settings.model_validate({**changes, "state_dir": folder / "state", "openai_api_key": "sk-test"})


def planned(folder: Path, server: ChatServer, limit: int | None) -> PipelineState:
    """Stages planned by a model that may read and write so much."""
    made = make_pipeline("sft", "dpo", max_planner_tokens=limit)
    chosen = by_model(folder, server)
    state = pipeline.begin(made, World(SKILL).ports, chosen, ask=None, console=QUIET)
    assert state is not None
    assert state.claim is not None
    assert state.claim.label == "confirmed_better"
    return state


def test_planner_tokens_are_shared_and_what_a_stage_leaves_is_for_those_after_it(
    tmp_path: Path, server: ChatServer
) -> None:
    limit = 300_000
    state = planned(tmp_path, server, limit)
    first, last = stage_plans(tmp_path)
    used = [ended.planner_tokens for _, ended in state.closed]
    assert None not in used
    assert first.max_planner_tokens is not None
    assert used[0] is not None
    assert 0 < used[0] <= first.max_planner_tokens < 0.6 * limit
    assert last.max_planner_tokens == limit - used[0]
    assert state.planner_tokens == sum(filter(None, used)) == 1050 * len(server.requests) <= limit
    assert f"{state.planner_tokens} tokens by ended stages, limit {limit} for all |" in render(state)


def test_the_rules_plan_a_stage_whose_share_of_tokens_is_too_small(tmp_path: Path, server: ChatServer) -> None:
    """The last stage has all that the first one left."""
    state = planned(tmp_path, server, 150_000)
    first, last = stage_plans(tmp_path)
    switched = [
        event.fact.why
        for event in ledger.read(Paths(settings_in(tmp_path).reports_dir, first.project).ledger)
        if isinstance(event.fact, PlannerSwitched)
    ]
    assert switched == [f"its next wake may pass the limit of {first.max_planner_tokens:,} tokens, of which 0 are used"]
    assert last.max_planner_tokens == 150_000
    assert [ended.planner_tokens is None for _, ended in state.closed] == [True, False]


def test_a_pipeline_of_an_older_ledger_goes_on(tmp_path: Path) -> None:
    """What its stages used of GPU hours and tokens was not counted then, and nothing limited it."""
    there = World(SKILL)
    whole = begin(tmp_path, there, make_pipeline("sft", "dpo"))
    first, ended = whole.closed[0]
    old = replace(first, ended=ended.model_copy(update={"charged_gpu_s": None, "planner_tokens": None}))
    plan = pipeline_rules.stage_plan(replace(whole, begun=(old,)), there.clock.now())
    assert (plan.max_gpu_hours, plan.max_planner_tokens) == (None, None)
