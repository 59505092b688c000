"""From a plan to a running night: the question, and what is left when the answer is no."""

from pathlib import Path

import pytest
from rich.console import Console
from world import SKILL, World, make_plan

from hfagent.agent.dataset_records import MethodCheck
from hfagent.agent.errors import DatasetError, UsageError
from hfagent.agent.events import PlanMade
from hfagent.agent.fakes import FakeChecker
from hfagent.agent.ledger import open_ledger
from hfagent.agent.night import Ask, begin
from hfagent.agent.records import (
    Plan,
)
from hfagent.agent.settings import Settings, load
from hfagent.agent.state import State


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load({}, cwd=tmp_path, env={})


def start(world: World, settings: Settings, ask: Ask | None) -> State | None:
    return begin(make_plan(), world.ports, settings, ask=ask, console=Console(stderr=True, quiet=True))


def left(settings: Settings) -> list[Path]:
    return list(settings.reports_dir.rglob("*"))


def test_yes_runs_the_night_and_leaves_ledger_report_and_plots(settings: Settings) -> None:
    state = start(World(SKILL), settings, lambda state: True)
    assert state is not None
    assert state.ended is not None
    names = {path.name for path in left(settings)}
    assert {"night.jsonl", "night.md", "loss.svg", "scores.svg"} <= names


def test_no_leaves_nothing(settings: Settings) -> None:
    world = World(SKILL)
    assert start(world, settings, lambda state: False) is None
    assert left(settings) == []
    assert world.runner.submits == []


def test_an_edited_plan_is_checked_and_asked_about_again(settings: Settings) -> None:
    seen: list[Plan] = []

    def ask(state: State) -> Plan | bool:
        assert state.dataset is not None
        seen.append(state.plan)
        train = state.plan.train.model_copy(update={"learning_rate": 3e-4})
        return state.plan.model_copy(update={"train": train}) if len(seen) == 1 else True

    state = start(World(SKILL), settings, ask)
    assert state is not None
    assert [plan.train.learning_rate for plan in seen] == [2e-4, 3e-4]
    assert state.runs["sft-01"].spec.train is not None
    assert state.runs["sft-01"].spec.train.learning_rate == 3e-4


def test_ctrl_c_at_the_question_leaves_nothing(settings: Settings) -> None:
    def interrupt(state: State) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(World(SKILL), settings, interrupt)
    assert left(settings) == []


def test_an_incompatible_dataset_is_told_before_the_question_and_leaves_nothing(settings: Settings) -> None:
    world = World(SKILL)
    world.checker = FakeChecker(MethodCheck(verdict="INCOMPATIBLE", reason="no messages"))
    with pytest.raises(DatasetError, match="no messages"):
        start(world, settings, lambda state: True)
    assert left(settings) == []


def test_a_project_that_nobody_confirmed_is_replaced_and_a_begun_one_is_not(settings: Settings) -> None:
    world = World(SKILL)
    with open_ledger(settings.reports_dir / "night.jsonl", world.clock) as book:
        book.append(PlanMade(plan=make_plan(), versions={}))
    request = settings.state_dir / "control" / "night.stop"
    request.parent.mkdir(parents=True)
    request.write_text("an old request")
    state = start(world, settings, None)
    assert state is not None
    assert state.ended is not None
    assert state.ended.state == "finished"
    with pytest.raises(UsageError, match="hfagent resume night"):
        start(World(SKILL), settings, None)


def test_a_plan_for_hf_is_never_run_by_another_runner(settings: Settings) -> None:
    world = World(SKILL)
    plan = make_plan(backend="hf", price_micro_usd_per_hour=400_000, budget_micro_usd=5_000_000)
    with pytest.raises(UsageError, match="'hf', and the runner that is wired is 'fake'"):
        begin(plan, world.ports, settings, ask=None, console=Console(stderr=True, quiet=True))
    assert world.runner.submits == []
    assert left(settings) == []
