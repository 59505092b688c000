"""A model plans over HTTP: the genuine smolagents and openai clients against a scripted endpoint, fakes elsewhere."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Reply, Request, completion, due, obedient, size, text_of
from world import SKILL, FakeMailbox, World, at_desk, claimed, ended, make_plan, night, work

from hfagent.agent import ledger, thresholds
from hfagent.agent.control import Request as AskedOf
from hfagent.agent.errors import SettingsError
from hfagent.agent.events import Event
from hfagent.agent.fakes import Ending
from hfagent.agent.folding import apply
from hfagent.agent.models import MAX_INPUT_TOKENS, parse_planner
from hfagent.agent.planner import MAX_CALLS
from hfagent.agent.planner_facts import ApprovalAsked, PlannerCalled, PlannerSwitched
from hfagent.agent.planners import planner_for, require_planner, require_price
from hfagent.agent.report import render
from hfagent.agent.settings import Settings, load
from hfagent.agent.state import State
from hfagent.agent.summary import summary

KEY = "sk-test-0123456789abcdef"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(obedient).running() as running:
        yield running


def settings(server: ChatServer, **changes: Any) -> Settings:
    return Settings(planner=f"{server.url}#scripted", openai_api_key=KEY, **changes)


def planned(
    path: Path, there: World, chosen: Settings, *, stop_asked: Callable[[], str | None] = lambda: None, **plan: Any
) -> State:
    """A night planned as the settings say."""
    with at_desk(path, there, **plan) as desk:
        planner = planner_for(desk, chosen, stop_asked=stop_asked)
        return work(desk, planner, mailbox=FakeMailbox(stop=stop_asked))


def events(path: Path, kind: type[Any]) -> list[Any]:
    return [event.fact for event in ledger.read(path) if isinstance(event.fact, kind)]


def outcome(state: State, path: Path) -> dict[str, Any]:
    whole = summary(state, report=path, ledger=path, held=False)
    return {name: whole[name] for name in ("state", "verdict", "claim")} | {"runs": list(state.runs)}


def test_a_whole_night_planned_over_http_ends_as_one_planned_by_the_rules(tmp_path: Path, server: ChatServer) -> None:
    path = tmp_path / "night.jsonl"
    state = planned(path, World(SKILL), settings(server))
    assert outcome(state, path) == outcome(night(tmp_path / "rules.jsonl", World(SKILL)), path)
    assert not events(path, PlannerSwitched)
    assert state.tokens == 1050 * len(server.requests)
    assert f"{state.tokens} tokens" in render(state)
    assert set(server.keys) == {f"Bearer {KEY}"}
    # One call a turn, and no turn that only says that it waits.
    assert len(events(path, PlannerCalled)) == len(server.requests) <= 25


def test_the_instructions_are_the_same_bytes_and_no_call_passes_8000_tokens(tmp_path: Path, server: ChatServer) -> None:
    planned(tmp_path / "night.jsonl", World(SKILL), settings(server))
    fixed = {json.dumps([r["messages"][0], r["tools"]]) for r in server.requests}
    assert len(fixed) == 1
    assert len(fixed.pop()) // 3 < 6000
    assert max(size(request) for request in server.requests) + 1024 < MAX_INPUT_TOKENS


def test_a_limit_on_tokens_has_the_rules_plan_before_it_is_passed(tmp_path: Path, server: ChatServer) -> None:
    path, most = tmp_path / "night.jsonl", 115_000
    state = planned(path, World(SKILL), settings(server), max_planner_tokens=most)
    assert claimed(state).label == "confirmed_better"
    assert state.tokens is not None
    assert 0 < state.tokens <= most
    [switch] = events(path, PlannerSwitched)
    assert "the limit of 115,000 tokens" in switch.why


def test_a_model_that_goes_in_circles_passes_no_limit_on_tokens(tmp_path: Path, server: ChatServer) -> None:
    """It is asked once more with nothing to choose from, where that can be paid, too."""
    path, most = tmp_path / "night.jsonl", MAX_CALLS * (MAX_INPUT_TOKENS + 1024)

    def script(request: Request, number: int) -> Reply:
        call = due(request) if number == 5 else ("note", {"text": f"thought {number}"})
        usage = {"prompt_tokens": MAX_INPUT_TOKENS, "completion_tokens": 1024, "total_tokens": MAX_INPUT_TOKENS + 1024}
        return Reply({**completion(call), "usage": usage})

    server.script = script
    state = planned(path, World(SKILL), settings(server), max_planner_tokens=most)
    assert claimed(state).label == "confirmed_better"
    assert state.tokens is not None
    assert 0 < state.tokens <= most
    assert f"the limit of {most:,} tokens" in events(path, PlannerSwitched)[0].why


def test_500_wakes_have_prompts_of_constant_size(
    tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thresholds, "MAX_STAGNATION", 1000)
    skill = {"baseline": 0.1, **{f"sft-{number:02d}": 0.1 + number / 1000 for number in range(1, 300)}}
    there = World(skill, falling=False)
    state = planned(tmp_path / "night.jsonl", there, settings(server), max_trials=250)
    assert state.wakes >= 500
    first = [size(request) for request in server.requests[100:200]]
    last = [size(request) for request in server.requests[-100:]]
    assert max(last) < 1.05 * max(first) < MAX_INPUT_TOKENS


def failing(server: ChatServer, reply: Reply, *, after: int, count: int) -> None:
    """The endpoint answers so, `count` times from request number `after`."""
    server.script = lambda request, number: reply if after <= number < after + count else obedient(request)


def switched(path: Path) -> list[str]:
    return [fact.planner for fact in events(path, PlannerSwitched)]


def test_an_outage_shorter_than_the_setting_is_waited_for(tmp_path: Path, server: ChatServer) -> None:
    path, there = tmp_path / "night.jsonl", World(SKILL)
    failing(server, Reply({"error": {"message": "overloaded"}}, status=503), after=6, count=8)
    begun = there.clock.now()
    state = planned(path, there, settings(server))
    assert claimed(state).label == "confirmed_better"
    assert switched(path) == []
    assert (there.clock.now() - begun).total_seconds() > 350 + 60


def test_an_hour_without_the_endpoint_is_planned_by_the_rules_and_handed_back(
    tmp_path: Path, server: ChatServer
) -> None:
    path, there = tmp_path / "night.jsonl", World(SKILL)
    away: list[Any] = []

    def script(request: Request, number: int) -> Reply:
        if number == 6:
            away.append(there.clock.now())
        if away and (there.clock.now() - away[0]).total_seconds() < 3600:
            return Reply({"error": {"message": "overloaded"}}, status=503)
        return obedient(request)

    server.script = script
    there.evaluation_s = lambda run: 900
    state = planned(path, there, settings(server))
    assert claimed(state).label == "confirmed_better"
    assert switched(path) == ["rules", "scripted"]
    report = render(state)
    assert "`rules` plans from here on: no answer for" in report
    assert "InternalServerError" in report
    assert "`scripted` plans from here on: it works again" in report
    # While it is away it is asked once a wake.
    assert len(server.requests) < 60


def test_the_endpoint_says_how_long_to_wait(tmp_path: Path, server: ChatServer) -> None:
    there = World(SKILL)
    reply = Reply({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "37"})
    failing(server, reply, after=0, count=2)
    begun = there.clock.now()
    with at_desk(tmp_path / "night.jsonl", there) as desk:
        planner_for(desk, settings(server), stop_asked=lambda: None).wake()
    assert (there.clock.now() - begun).total_seconds() == pytest.approx(74, abs=1)


def test_a_request_to_stop_ends_the_waiting_and_starts_nothing(tmp_path: Path, server: ChatServer) -> None:
    there = World(SKILL)
    failing(server, Reply({"error": {"message": "overloaded"}}, status=503), after=0, count=1000)
    stop = there.clock.now()
    state = planned(
        tmp_path / "night.jsonl",
        there,
        settings(server),
        stop_asked=lambda: "enough" if (there.clock.now() - stop).total_seconds() > 5 else None,
    )
    assert ended(state) == "stopped"
    assert there.runner.submits == []


def cut_short(request: Request) -> Reply:
    name, args = due(request)
    return Reply(completion((name, json.dumps(args)[:-1] or "{"), finish="length"))


def without_usage(request: Request) -> Reply:
    body = completion(due(request))
    del body["usage"]
    return Reply(body)


MALFORMED: dict[str, Callable[[Request], Reply]] = {
    "no usage": without_usage,
    "usage is null": lambda r: Reply({**completion(due(r)), "usage": None}),
    "arguments are no JSON": lambda r: Reply(completion((due(r)[0], "{why: because"))),
    "arguments are cut off": cut_short,
    "arguments are a list": lambda r: Reply(completion((due(r)[0], "[1, 2]"))),
    "an unknown tool": lambda r: Reply(completion(("rm_rf", {"path": "/"}))),
    "an unknown argument": lambda r: Reply(completion((due(r)[0], {**dict(due(r)[1]), "force": True}))),
    "equal ids": lambda r: Reply(completion(("note", {"text": "a"}), due(r), ids=["same", "same"])),
    "no ids": lambda r: Reply(completion(due(r), ids=[""])),
    "one of two calls fails": lambda r: Reply(completion(("metrics", {"run": "nothing"}), due(r))),
    "one of two calls is wrong": lambda r: Reply(completion(("note", {"txt": "a"}), due(r))),
    "a final answer beside a call": lambda r: Reply(completion(("final_answer", {"answer": "done"}), due(r))),
    "a final answer too early": lambda r: Reply(completion(("final_answer", {"answer": "done"}))),
    "a hundred calls": lambda r: Reply(completion(*[("note", {"text": str(n)}) for n in range(100)])),
    "nothing at all": lambda r: Reply(completion(content=None, finish="stop")),
    "only text": lambda r: Reply(completion(content="I think that we should train.", finish="stop")),
    "text that is cut off": lambda r: Reply(completion(content='{"name": "launch", "argum', finish="length")),
    "the call as text": lambda r: Reply(
        completion(content=json.dumps({"name": due(r)[0], "arguments": due(r)[1]}), finish="stop")
    ),
    "no choices": lambda r: Reply({**completion(due(r)), "choices": []}),
    "choices are null": lambda r: Reply({**completion(due(r)), "choices": None}),
    "an empty object": lambda r: Reply({}),
    "a page of a proxy": lambda r: Reply(b"<html>502</html>", headers={"Content-Type": "text/html"}),
    "half a body": lambda r: Reply(b'{"id": "x", "choi'),
    "a window that is too small": lambda r: Reply(
        {"error": {"message": "maximum context length is 4096 tokens", "code": "context_length_exceeded"}}, status=400
    ),
}


@pytest.mark.parametrize("what", MALFORMED)
@pytest.mark.parametrize("every", [1, 3])
def test_malformed_answers_cost_nothing_but_time(tmp_path: Path, server: ChatServer, what: str, every: int) -> None:
    path, there = tmp_path / "night.jsonl", World(SKILL)
    server.script = lambda request, number: MALFORMED[what](request) if number % every == 0 else obedient(request)
    state = planned(path, there, settings(server))
    assert outcome(state, path) == outcome(night(tmp_path / "rules.jsonl", World(SKILL)), path)
    assert len(there.runner.submits) == len(set(there.runner.submits)) == 9
    assert max(size(request) for request in server.requests) < MAX_INPUT_TOKENS


def test_tokens_are_estimated_where_the_endpoint_tells_none(tmp_path: Path, server: ChatServer) -> None:
    server.script = lambda request, number: without_usage(request)
    planned(tmp_path / "night.jsonl", World(SKILL), settings(server))
    called = events(tmp_path / "night.jsonl", PlannerCalled)
    assert len(called) == len(server.requests)
    assert all(call.estimated and call.input_tokens > 1000 for call in called)


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("tool_choice 'required' is not supported", {"tool_choice": "auto"}),
        ("Unsupported parameter: use 'max_completion_tokens' instead", {"max_completion_tokens": 1024}),
    ],
)
def test_a_request_is_put_as_the_endpoint_takes_it(
    tmp_path: Path, server: ChatServer, message: str, wanted: dict[str, Any]
) -> None:
    def script(request: Request, number: int) -> Reply:
        if not wanted.items() <= request.items():
            return Reply({"error": {"message": message}}, status=400)
        return obedient(request)

    server.script = script
    state = planned(tmp_path / "night.jsonl", World(SKILL), settings(server))
    assert claimed(state).label == "confirmed_better"
    assert switched(tmp_path / "night.jsonl") == []
    assert sum(not wanted.items() <= request.items() for request in server.requests) == 1


def test_a_model_that_repeats_itself_is_left_one_call_and_then_the_rules_plan(
    tmp_path: Path, server: ChatServer
) -> None:
    path = tmp_path / "night.jsonl"
    server.script = lambda request, number: Reply(completion(("note", {"text": "I am thinking."})))
    state = planned(path, World(SKILL), settings(server))
    assert claimed(state).label == "confirmed_better"
    assert "note was called 3 times with the same arguments" in str(events(path, PlannerSwitched)[0].why)
    offered = {tuple(sorted(tool["function"]["name"] for tool in request["tools"])) for request in server.requests}
    assert ("check_dataset", "final_answer") in offered
    assert len(server.requests) < 150


def test_a_model_without_any_idea_is_helped_by_having_no_choice(tmp_path: Path, server: ChatServer) -> None:
    def script(request: Request, number: int) -> Reply:
        lost = len(request["tools"]) > 2
        return Reply(completion(("metrics", {"run": "sft-77"}))) if lost else obedient(request)

    server.script = script
    path = tmp_path / "night.jsonl"
    state = planned(path, World(SKILL), settings(server))
    assert claimed(state).label == "confirmed_better"
    assert switched(path) == []


def test_a_key_that_is_refused_is_told_nowhere(
    tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    path = tmp_path / "night.jsonl"
    server.script = lambda request, number: Reply(
        {"error": {"message": f"Incorrect API key provided: {KEY}"}}, status=401
    )
    state = planned(path, World(SKILL), settings(server))
    assert claimed(state).label == "confirmed_better"
    assert "AuthenticationError" in render(state)
    for text in (path.read_text(), render(state), *map(text_of, server.requests)):
        assert KEY not in text
    with pytest.raises(SettingsError, match="cannot be used") as raised:
        require_planner(settings(server))
    assert KEY not in str(raised.value)


def test_tokens_cost_money_and_a_wake_that_cannot_be_paid_is_not_begun(tmp_path: Path, server: ChatServer) -> None:
    path = tmp_path / "night.jsonl"
    chosen = settings(server, budget_usd=0.31, planner_price_in=2.0, planner_price_out=8.0)
    state = planned(path, World(SKILL), chosen, budget_micro_usd=310_000)
    costs = [call.cost_micro_usd for call in events(path, PlannerCalled)]
    assert sum(costs) == state.planner_micro_usd == 2400 * len(server.requests)
    assert state.spent_micro_usd == state.planner_micro_usd
    assert state.planner_micro_usd < 310_000
    assert "are left of the budget" in events(path, PlannerSwitched)[0].why
    assert claimed(state).label == "confirmed_better"


def test_a_budget_needs_a_price_wherever_it_was_said() -> None:
    chosen = Settings(planner="openai:gpt-5-mini", openai_api_key=KEY)
    require_price(chosen, make_plan())
    with pytest.raises(SettingsError, match="planner_price_in"):
        require_price(chosen, make_plan(budget_micro_usd=1))


@pytest.mark.parametrize("text", ["gpt", "openai:", "hf:", "ftp://host/v1", "http://", "rules:x"])
def test_a_planner_that_is_none_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(SettingsError, match="OpenAI-compatible"):
        parse_planner(text)


def test_the_endpoint_names_its_model_and_the_variables_of_openai_are_read(tmp_path: Path, server: ChatServer) -> None:
    env = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url}
    require_planner(load({"planner": server.url}, cwd=tmp_path, env={}))
    require_planner(load({"planner": "openai:other"}, cwd=tmp_path, env=env))
    assert [request["model"] for request in server.requests] == ["scripted", "other"]
    with pytest.raises(SettingsError, match="OPENAI_API_KEY"):
        require_planner(Settings(planner="openai:gpt-5-mini"))
    with pytest.raises(SettingsError, match="HF_TOKEN"):
        require_planner(Settings(planner="hf:org/model"))


def test_ctrl_c_amid_a_call_is_not_swallowed(tmp_path: Path, server: ChatServer) -> None:
    there = World(SKILL)

    def interrupt(event: Event) -> None:
        if event.fact.kind == "job_submitted":
            raise KeyboardInterrupt

    with at_desk(tmp_path / "night.jsonl", there) as desk:
        desk.ledger.subscribe(interrupt)
        with pytest.raises(KeyboardInterrupt):
            work(desk, planner_for(desk, settings(server), stop_asked=lambda: None))
    state = night(tmp_path / "night.jsonl", there)
    assert claimed(state).label == "confirmed_better"
    assert len(there.runner.submits) == len(set(there.runner.submits))


@pytest.mark.parametrize("cap", [330_000, 400_000, 600_000])
def test_jobs_and_tokens_together_never_pass_the_cap(tmp_path: Path, server: ChatServer, cap: int) -> None:
    path, there = tmp_path / "night.jsonl", World(SKILL)
    there.endings = lambda spec: Ending(running_s=10_000) if spec.kind == "train" else None  # to its timeout
    chosen = settings(server, planner_price_in=2.0, planner_price_out=8.0)
    planned(path, there, chosen, budget_micro_usd=cap, price_micro_usd_per_hour=300_000)
    state = None
    for event in ledger.read(path):
        state = apply(state, event)
        assert state is not None
        assert (state.spent_micro_usd or 0) + state.held_micro_usd <= cap


def test_waiting_for_an_endpoint_ends_with_the_time_of_the_night(tmp_path: Path, server: ChatServer) -> None:
    there = World(SKILL)
    failing(server, Reply({"error": {"message": "overloaded"}}, status=503), after=0, count=10_000)
    begun = there.clock.now()
    planned(tmp_path / "night.jsonl", there, settings(server), max_hours=0.1)
    assert (there.clock.now() - begun).total_seconds() < 400


def test_a_model_that_goes_away_while_a_person_is_waited_for_ends_nothing(tmp_path: Path, server: ChatServer) -> None:
    path, there = tmp_path / "night.jsonl", World({**SKILL, "sft-02": 0.5, "sft-02-x1": 0.5})

    def script(request: Request, number: int) -> Reply:
        over = any(isinstance(event.fact, ApprovalAsked) for event in ledger.read(path))
        return Reply({"error": {"message": "gone"}}, status=404) if over else obedient(request)

    server.script = script
    with at_desk(path, there, approve_runs=True, max_trials=2) as desk:

        def asks() -> list[AskedOf]:
            waiting = desk.state.wishes.waiting
            return [AskedOf(ask="approve", run=waiting[0])] if waiting else []

        planner = planner_for(desk, settings(server), stop_asked=lambda: None)
        state = work(desk, planner, mailbox=FakeMailbox(asks=asks))
    assert claimed(state).label == "confirmed_better"
