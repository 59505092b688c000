"""Wishes that no pattern understands, read by a model over HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Reply, Request, completion, text_of

from hfagent.agent.errors import GoalUnclear, PlannerAway, UsageError
from hfagent.agent.plan import Flags
from hfagent.agent.planning import plan_goal
from hfagent.agent.settings import Settings

WISH = "My students want help with their homework on loops and lists; spend at most $3 and 2 hours"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with ChatServer(lambda request, number: Reply(completion(("plan", {"area": "code"})))).running() as running:
        yield running


def planned(server: ChatServer, tmp_path: Path, wish: str = WISH, **flags: Any) -> Any:
    settings = Settings(planner=f"{server.url}#scripted", reports_dir=tmp_path / "reports")
    return plan_goal(wish, Flags(**flags), settings)


def calls(server: ChatServer, *script: tuple[str, dict[str, Any]]) -> None:
    def answer(request: Request, number: int) -> Reply:
        return Reply(completion(script[min(number, len(script) - 1)]))

    server.script = answer


def test_the_plan_says_how_the_wish_was_understood_and_keeps_its_limits(server: ChatServer, tmp_path: Path) -> None:
    plan = planned(server, tmp_path)
    assert (plan.task_area, plan.method) == ("code", "sft")
    assert (plan.budget_micro_usd, plan.max_hours) == (3_000_000, 2.0)
    assert plan.goal == WISH
    assert plan.notes[-1].startswith("scripted understood the goal as: improve code with sft")


def test_limits_that_the_model_makes_up_or_changes_do_not_count(server: ChatServer, tmp_path: Path) -> None:
    calls(server, ("plan", {"area": "code", "budget_usd": 500.0, "max_hours": 99.0}))
    plan = planned(server, tmp_path)
    assert (plan.budget_micro_usd, plan.max_hours) == (3_000_000, 2.0)


def test_a_plan_that_cannot_be_is_refused_with_the_reason_and_put_right(server: ChatServer, tmp_path: Path) -> None:
    wrong = [{"area": "cooking"}, {"area": "code", "benchmark": "mbpp"}]
    calls(server, *[("plan", said) for said in [*wrong, {"area": "code"}]])
    assert planned(server, tmp_path).confirm.name == "procedural_python"
    told = text_of(server.requests[-1])
    assert "'cooking' is not one of code, math" in told
    assert "mbpp" in told


def test_flags_win_over_the_model(server: ChatServer, tmp_path: Path) -> None:
    calls(server, ("plan", {"area": "code", "benchmark": "mbpp"}))
    assert planned(server, tmp_path, benchmark="openai_humaneval").confirm.name == "openai_humaneval"


def test_a_wish_about_something_else_is_told_in_the_models_words(server: ChatServer, tmp_path: Path) -> None:
    calls(server, ("final_answer", {"answer": "You want a pizza, not a model."}))
    with pytest.raises(GoalUnclear, match="You want a pizza"):
        planned(server, tmp_path, "order me something nice to eat")


def test_a_model_that_never_plans_ends(server: ChatServer, tmp_path: Path) -> None:
    calls(server, ("find_models", {"query": ""}))
    with pytest.raises(GoalUnclear, match="found nothing to plan"):
        planned(server, tmp_path, "order me something nice to eat")
    assert len(server.requests) < 12


def test_what_the_patterns_understand_or_refuse_is_never_asked(server: ChatServer, tmp_path: Path) -> None:
    planned(server, tmp_path, "improve code solving with SFT")
    with pytest.raises(UsageError, match="PPO"):
        planned(server, tmp_path, "improve code solving with PPO")
    assert server.requests == []


def test_without_a_model_an_unclear_wish_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GoalUnclear, match="does not say what to improve"):
        plan_goal(WISH, Flags(), Settings(reports_dir=tmp_path))


def test_a_model_that_is_away_is_said(server: ChatServer, tmp_path: Path) -> None:
    server.script = lambda request, number: Reply({"error": {"message": "overloaded"}}, status=503)
    with pytest.raises(PlannerAway, match="no answer"):
        planned(server, tmp_path)
