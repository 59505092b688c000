"""Another agent works a project over MCP: the official client against our server, in this process and over stdio."""

import asyncio
import json
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from world import SKILL, World, claimed

from hfagent.agent import ledger
from hfagent.agent.events import JobIntended
from hfagent.agent.folding import fold
from hfagent.agent.mcp_server import DOORS, listed, make_server
from hfagent.agent.plan import Flags
from hfagent.agent.session import Session
from hfagent.agent.settings import Settings
from hfagent.agent.state import State
from hfagent.agent.wiring import Paths
from hfagent.tools.toolbox import TOOLS

GOAL = "improve code solving with SFT"


def world() -> World:
    there = World(SKILL)
    there.trains = "embedded:SmolLM2-135M-Instruct"
    return there


class Other:
    """The other agent: calls tools and reads their answers."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        result = await self._client.call_tool(name, arguments)
        [content] = result.content
        answer: dict[str, Any] = json.loads(content.text)  # type: ignore[union-attr]
        return answer


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return Settings(
        reports_dir=tmp_path / "reports", state_dir=tmp_path / "state", cache_dir=tmp_path / "cache", poll_s=0.01
    )


def talk(settings: Settings, there: World, conversation: Callable[[Other], Awaitable[None]]) -> None:
    session = Session(settings, lambda settings: there.ports, pid=1)

    async def run() -> None:
        async with Client(make_server(session)) as client:
            await conversation(Other(client))

    try:
        asyncio.run(run())
    finally:
        session.close()


def state_of(settings: Settings, project: str = "night") -> State:
    state = fold(ledger.read(settings.reports_dir / f"{project}.jsonl"))
    assert state is not None
    return state


async def follow(other: Other, answer: dict[str, Any]) -> list[str]:
    """Do what is due until the project is over; the tools called."""
    called = []
    while answer.get("due") is not None or answer.get("state") == "running":
        if answer.get("due") is None:
            answer = await other.call("wait", seconds=100)
            continue
        called.append(answer["due"]["tool"])
        answer = await other.call(answer["due"]["tool"], **answer["due"]["args"])
        if "due" not in answer:
            answer = await other.call("status")
    return called


def test_another_agent_works_a_whole_night(settings: Settings) -> None:
    async def conversation(other: Other) -> None:
        planned = await other.call("plan_night", goal=GOAL, project="night", max_hours=8)
        assert planned["plan"]["model"]["id"] == "embedded:SmolLM2-135M-Instruct"
        assert planned["dataset"]["verdict"] == "READY"
        assert not any(isinstance(e.fact, JobIntended) for e in ledger.read(settings.reports_dir / "night.jsonl"))
        called = await follow(other, await other.call("start_night"))
        assert {"check_contamination", "launch", "evaluate", "compare", "decide", "finish"} <= set(called)
        told = await other.call("status")
        assert told["state"] == "finished"
        assert told["claim"]["label"] == "confirmed_better"
        assert "confirmed better" in (await other.call("report"))["report"]

    talk(settings, world(), conversation)
    assert claimed(state_of(settings)).label == "confirmed_better"
    assert (settings.reports_dir / "night.md").exists()


def test_what_policy_refuses_it_refuses_here(settings: Settings) -> None:
    async def conversation(other: Other) -> None:
        assert "no project is open" in (await other.call("launch", what="smoke", hypothesis="h", why="w"))["error"]
        await other.call("plan_night", goal=GOAL, project="night")
        early = await other.call("launch", what="train", hypothesis="h", why="w")
        assert (early["refused"], early["why"]) == ("launch sft-01", "the plan is not confirmed")
        await other.call("start_night")
        assert "check_contamination first" in (await other.call("launch", what="train", hypothesis="h", why="w"))["why"]
        assert "is open" in (await other.call("open_night"))["error"]
        assert "why is missing" in (await other.call("launch", what="train", hypothesis="h"))["why"]
        assert "no argument 'force'" in (await other.call("status", force=True))["error"]
        assert "there is no tool 'publish_anyway'" in (await other.call("publish_anyway"))["error"]

    talk(settings, world(), conversation)


def test_a_plan_that_nobody_started_leaves_nothing(settings: Settings) -> None:
    async def conversation(other: Other) -> None:
        await other.call("plan_night", goal=GOAL, project="night")
        assert (await other.call("close_night"))["closed"] == "night"

    talk(settings, world(), conversation)
    assert list(settings.reports_dir.iterdir()) == []


def test_a_plan_is_dropped_before_anybody_else_can_take_the_project(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    monkeypatch.setattr(Paths, "abandon", lambda paths: held.append(ledger.is_held(paths.ledger)))
    for goal in (GOAL, f"{GOAL} then DPO"):
        open_ = Session(settings, lambda settings: world().ports, pid=1)
        open_.plan(goal, Flags())
        assert open_.close() is not None
    assert held == [True, True]


def test_a_night_is_taken_up_by_the_next_client_and_its_job_is_attached_again(settings: Settings) -> None:
    there = world()

    async def first(other: Other) -> None:
        await other.call("plan_night", goal=GOAL, project="night")
        await other.call("start_night")
        await other.call("check_contamination")
        assert (await other.call("launch", what="smoke", hypothesis="h", why="w"))["started"] == "smoke"

    async def second(other: Other) -> None:
        await follow(other, await other.call("open_night", project="night"))

    talk(settings, there, first)
    talk(settings, there, second)
    assert claimed(state_of(settings)).label == "confirmed_better"
    assert len(there.runner.submits) == len(set(there.runner.submits))


def test_a_training_that_runs_can_be_cancelled_and_the_night_stopped(settings: Settings) -> None:
    async def conversation(other: Other) -> None:
        await other.call("plan_night", goal=GOAL, project="night")
        answer = await other.call("start_night")
        while "sft-01" not in [run["name"] for run in (await other.call("status"))["runs"]]:
            told = await other.call("status")
            if told["due"] is None:
                await other.call("wait", seconds=100)
            else:
                answer = await other.call(told["due"]["tool"], **told["due"]["args"])
        assert answer["started"] == "sft-01"
        assert await other.call("cancel", run="sft-01", why="too slow") == {"tool": "cancel", "cancelling": "sft-01"}
        assert (await other.call("stop_night", why="enough"))["state"] == "stopped"

    there = world()
    settings = settings.model_copy(update={"poll_s": 1000.0})  # nobody looks on, so that the job still runs
    talk(settings, there, conversation)
    assert state_of(settings).runs["sft-01"].last.stage == "CANCELED"


def test_columns_are_renamed_into_a_dataset_of_their_own(settings: Settings, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "q", "good": "a", "bad": "b"}\n')

    async def conversation(other: Other) -> None:
        made = await other.call("preprocess_dataset", dataset=str(data), rename="good=chosen, bad=rejected")
        assert (made["rows"], made["after"]) == (1, ["prompt", "chosen", "rejected"])
        assert Path(made["path"]).exists()
        wrong = await other.call("preprocess_dataset", dataset=str(data), rename="good")
        assert "write e.g. good_response=chosen" in wrong["error"]

    talk(settings, world(), conversation)


def test_every_tool_has_a_schema_and_a_hint() -> None:
    tools = {tool.name: tool for tool in listed()}
    assert tools.keys() == DOORS.keys() | {spec.name for spec in TOOLS}
    for tool in tools.values():
        schema = getattr(tool, "input_schema", None) or tool.inputSchema
        assert schema["additionalProperties"] is False
        assert set(schema["required"]) <= schema["properties"].keys()


def test_the_program_speaks_mcp_on_stdin_and_stdout(tmp_path: Path) -> None:
    async def run() -> None:
        server = StdioServerParameters(
            command=sys.executable, args=["-m", "hfagent", "mcp"], cwd=tmp_path, env={"HF_HUB_OFFLINE": "1"}
        )
        async with Client(server) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert {"plan_night", "wait", "launch", "compare"} <= names
            other = Other(client)
            assert "no project is open" in (await other.call("status"))["error"]
            assert "does not say what to improve" in (await other.call("plan_night", goal=" . "))["error"]

    asyncio.run(run())


def test_a_job_is_attached_again_also_from_another_state_folder(settings: Settings, tmp_path: Path) -> None:
    there = world()

    async def first(other: Other) -> None:
        await other.call("plan_night", goal=GOAL, project="night")
        await other.call("start_night")

    async def second(other: Other) -> None:
        await other.call("open_night", project="night")

    talk(settings, there, first)
    asked: list[Path] = []
    elsewhere = settings.model_copy(update={"state_dir": tmp_path / "elsewhere"})
    session = Session(elsewhere, lambda chosen: asked.append(chosen.state_dir) or there.ports, pid=1)  # type: ignore[func-returns-value]

    async def run() -> None:
        async with Client(make_server(session)) as client:
            await second(Other(client))

    asyncio.run(run())
    session.close()
    assert asked == [settings.state_dir]


@pytest.mark.parametrize("limits", [{"budget_usd": -5}, {"max_hours": 0}, {"max_trials": -3}])
def test_limits_out_of_range_are_answered(settings: Settings, limits: dict[str, Any]) -> None:
    async def conversation(other: Other) -> None:
        told = await other.call("plan_night", goal=GOAL, project="night", **limits)
        assert next(iter(limits)) in told["error"]

    talk(settings, world(), conversation)


def test_a_look_that_fails_once_does_not_end_the_looking(settings: Settings) -> None:
    there = world()

    async def conversation(other: Other) -> None:
        await other.call("plan_night", goal=GOAL, project="night")
        await other.call("start_night")
        await other.call("check_contamination")
        inspect, failed = there.runner.inspect, threading.Event()

        def broken(job_id: str) -> Any:
            if not failed.is_set():
                failed.set()
                raise OSError("the service answers nothing")
            return inspect(job_id)

        await other.call("launch", what="smoke", hypothesis="h", why="w")
        there.runner.inspect = broken  # type: ignore[method-assign]
        failed.wait(5)
        there.clock.advance(1000)
        while not state_of(settings).runs["smoke"].done:
            await asyncio.sleep(0.02)

    talk(settings, there, conversation)
