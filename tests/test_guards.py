"""Abilities that must not be lost: asked after the confirmation, told beside the verdict, never part of the claim."""

from pathlib import Path
from typing import Any

import pytest
from world import FAILED, LOST, SKILL, World, night

from hfagent.agent import guards, report
from hfagent.agent.console import closing
from hfagent.agent.errors import PlanRejected, UsageError
from hfagent.agent.plan import Flags
from hfagent.agent.plan_benchmarks import choose_guards
from hfagent.agent.planning import plan_goal
from hfagent.agent.recipes import load
from hfagent.agent.records import BenchmarkRef
from hfagent.agent.settings import Settings
from hfagent.agent.state import State
from hfagent.agent.summary import summary
from hfagent.agent.view import verdict_text
from hfagent.agent.wiring import Paths

GUARD = BenchmarkRef(name="gsm8k", set="confirm", n=200, seed=3)
KEPT = "sft-01-x1"


def guarded(tmp_path: Path, before: float, after: float, *, endings: Any = None, **plan: Any) -> State:
    world = World(SKILL)
    world.guard_skill = {"baseline": before, **dict.fromkeys(SKILL.keys() - {"baseline"}, after)}
    world.endings = endings or world.endings
    state = night(tmp_path / "night.jsonl", world, guards=(GUARD,), **plan)
    assert state.claim is not None
    assert (state.claim.label, state.kept) == ("confirmed_better", KEPT)
    return state


@pytest.mark.parametrize(
    ("before", "after", "label", "says"),
    [
        (0.5, 0.5, "better", "not worse by more than 5 points"),
        (0.5, 0.2, "worse", "worse by more than 5 points"),
        (0.5, 0.47, "no_detectable_difference", "a loss of 5 points is not excluded"),
    ],
)
def test_a_guard_is_told_beside_the_verdict_and_leaves_the_claim(
    tmp_path: Path, before: float, after: float, label: str, says: str
) -> None:
    state = guarded(tmp_path, before, after)
    verdict = guards.verdicts(state)["gsm8k"]
    assert verdict is not None
    assert (verdict.label, verdict.margin) == (label, -0.05)
    assert says in guards.words(verdict)
    text = report.render(state)
    assert f"| Guard `gsm8k` | {says}" in text
    warned = "but worse than the base model by more than 5 points on gsm8k"
    assert (warned in verdict_text(state), warned in text) == (label == "worse", label == "worse")
    shown = summary(state, report=tmp_path / "r", ledger=tmp_path / "l", held=False)["guards"]
    assert shown["gsm8k"]["label"] == label


def test_guards_are_asked_last_by_one_answer_a_problem(tmp_path: Path) -> None:
    state = guarded(tmp_path, 0.5, 0.5, evaluation={"num_samples": 10, "temperature": 0.2})
    names = list(state.runs)
    assert names[-2:] == ["baseline-guard-gsm8k", f"{KEPT}-guard-gsm8k"]
    args = state.runs[names[-1]].last.job.args
    asked = dict(zip(args[::2], args[1::2], strict=False))
    assert {"--benchmark": "gsm8k", "--set": "confirm", "--benchmark-seed": "3", "--n": "200"}.items() <= asked.items()
    assert (asked["--num-samples"], asked["--temperature"]) == ("1", "0.0")
    assert "--reference" not in asked


@pytest.mark.parametrize("ending", [LOST, FAILED])
def test_a_guard_that_cannot_be_evaluated_does_not_cost_the_night(tmp_path: Path, ending: Any) -> None:
    state = guarded(tmp_path, 0.5, 0.5, endings=lambda spec: ending if "guard" in spec.run else None)
    assert state.ended is not None
    assert state.ended.state == "finished"
    assert guards.verdicts(state) == {"gsm8k": None}
    assert "| Guard `gsm8k` | not evaluated |" in report.render(state)


def test_nothing_is_asked_of_a_guard_where_nothing_was_kept(tmp_path: Path) -> None:
    world = World({"baseline": 0.4, "sft-01": 0.3}, falling=False)
    state = night(tmp_path / "night.jsonl", world, guards=(GUARD,))
    assert not any(run.spec.guard for run in state.runs.values())


def test_guards_come_from_the_recipe_where_they_are_to_be_had_or_by_name() -> None:
    recipe = load("code")
    judging = (recipe.search, recipe.confirm)

    def chosen(*wanted: str, available: tuple[str, ...] = ("gsm8k", "mbpp")) -> list[tuple[str, int | None]]:
        found = choose_guards(wanted, recipe, judging, available, seed=1, quick=False)
        return [(guard.name, guard.n) for guard in found]

    assert chosen() == [("gsm8k", 500)]
    assert chosen(available=("mbpp",)) == []
    assert chosen("mbpp", "gsm8k") == [("mbpp", None), ("gsm8k", 500)]
    with pytest.raises(PlanRejected, match="the guard 'ifeval' is not available here"):
        chosen("ifeval")
    with pytest.raises(PlanRejected, match="is what the night is judged by"):
        chosen("openai_humaneval", available=("openai_humaneval",))


def test_a_named_guard_must_be_had_and_is_fixed_in_the_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = Settings(reports_dir=tmp_path, state_dir=tmp_path / "state")
    plan = plan_goal("improve code with SFT", Flags(guards=("procedural_math", "reasoning_gym")), settings)
    assert [guard.name for guard in plan.guards] == ["procedural_math", "reasoning_gym"]
    with pytest.raises(UsageError, match="'mbpp' are read from the Hub"):
        plan_goal("improve code with SFT", Flags(guards=("mbpp",)), settings)
    assert plan_goal("improve code with SFT", Flags(), settings).guards == ()


def test_the_closing_block_tells_each_guard(tmp_path: Path) -> None:
    state = guarded(tmp_path, 0.5, 0.2)
    assert state.ended_at is not None
    text = closing(state, Paths(tmp_path, "night"), state.ended_at, held=False)
    assert any(line.startswith("guard ") and "gsm8k: worse by more than 5 points" in line for line in text.splitlines())
