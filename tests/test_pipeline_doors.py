"""A pipeline by the command line, the chat, the screens and MCP."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from stage_world import QUIET, SKILL, DyingConsole, begin, make_pipeline, resume
from test_cli import Shell
from world import KilledError, World

from hfagent.agent import pipeline, session, wiring
from hfagent.agent.chat import Chat
from hfagent.agent.console import THEME
from hfagent.agent.control import FolderMailbox
from hfagent.agent.errors import UsageError
from hfagent.agent.mcp_server import call
from hfagent.agent.project import watched
from hfagent.agent.session import Session
from hfagent.agent.settings import Settings
from hfagent.agent.view import view

GOAL = "improve code solving with SFT then DPO"


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return Shell(capsys)


@pytest.fixture
def there() -> World:
    world = World(SKILL)
    world.trains = "embedded:SmolLM2-135M-Instruct"
    return world


@pytest.fixture
def chat(tmp_path: Path, there: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(wiring, "preflight", lambda settings: None)
    console = Console(file=io.StringIO(), width=160, theme=THEME, highlight=False, markup=False)
    made = Chat(settings_of(tmp_path), console, ports=lambda settings: there.ports, pid=1)
    yield made
    made.close()


def settings_of(folder: Path) -> Settings:
    return Settings(reports_dir=folder / "reports", state_dir=folder / "state", cache_dir=folder / "cache")


def said(chat: Chat, line: str) -> str:
    assert isinstance(chat.console.file, io.StringIO)
    chat.console.file.seek(0)
    chat.console.file.truncate()
    chat.say(line)
    return chat.console.file.getvalue()


def half_done(folder: Path, there: World) -> None:
    """The first stage is over, and the process died in the second."""
    with pytest.raises(KilledError):
        begin(folder, there, make_pipeline("sft", "dpo"), console=DyingConsole(78))


def test_a_dry_run_shows_every_stage_and_leaves_nothing(shell: Shell, tmp_path: Path) -> None:
    code, out, _ = shell("--dry-run", GOAL)
    assert code == 0
    for words in ("stage 1 of 2: sft", "stage 2 of 2: dpo", "each stage gets its share of what is left"):
        assert words in out
    code, out, _ = shell("--dry-run", "--json", "improve code", "--method", "sft,grpo")
    shown = json.loads(out)
    assert [plan["method"] for plan in shown["pipeline"]["stages"]] == ["sft", "grpo"]
    assert shown["estimate_s"] > 0
    assert list(tmp_path.iterdir()) == []


def test_an_estimate_has_every_stage_and_their_sum(shell: Shell) -> None:
    code, out, _ = shell("estimate", GOAL)
    assert code == 0
    assert "stage 2 of 2: dpo" in out
    assert "all stages: " in out
    shown = json.loads(shell("estimate", GOAL, "--json")[1])
    assert shown["expected_s"] == sum(stage["expected_s"] for stage in shown["stages"])
    assert shown["stages"][1]["jobs"][0]["name"] == "data"


def test_gpu_hours_in_the_sentence_are_those_of_all_stages(shell: Shell) -> None:
    goal = f"{GOAL}, at most 4 GPU hours"
    code, out, _ = shell("--dry-run", goal)
    assert code == 0
    assert "no cap for all, time no limit, 4 GPU hours for all: each stage gets its share of what is left" in out
    assert json.loads(shell("--dry-run", "--json", goal)[1])["pipeline"]["max_gpu_hours"] == 4
    code, out, _ = shell("estimate", goal)
    assert code == 0
    assert "all stages: " in out


def test_status_and_report_of_a_finished_pipeline(shell: Shell, tmp_path: Path) -> None:
    begin(tmp_path, World(SKILL), make_pipeline("sft", "dpo"))
    code, out, _ = shell("status")
    assert code == 0
    for words in ("improve  finished", "1 sft", "2 dpo", "against the original base model", "/m/merged-dpo-01"):
        assert words in out
    shown: dict[str, Any] = json.loads(shell("status", "improve", "--json")[1])
    assert set(shown) == {
        "project", "goal", "state", "stop_reason", "verdict", "claim", "guards", "stages", "model", "export",
        "spent_usd", "held_usd", "started_at", "report", "ledger",
    }  # fmt: skip
    assert [(stage["method"], stage["kept"]) for stage in shown["stages"]] == [("sft", True), ("dpo", True)]
    assert shown["claim"]["label"] == "confirmed_better"
    assert shell("report", "improve")[1].strip().endswith("improve.md")
    assert "Better than the original base model" in shell("report", "--print")[1]
    page = Path(shell("report", "--html")[1].strip()).read_text()
    assert "improve-2-dpo.md" in page
    code, _, err = shell("cancel", "improve")
    assert code == 2
    assert "already finished" in err


def test_an_unfinished_pipeline_waits_and_is_cancelled_by_its_name(shell: Shell, tmp_path: Path) -> None:
    half_done(tmp_path, World(SKILL))
    shown = json.loads(shell("status", "--json")[1])
    assert (shown["project"], shown["state"]) == ("improve", "waiting")
    assert [stage["state"] for stage in shown["stages"]] == ["finished", "begun"]
    out = shell("status")[1]
    assert "hfagent resume improve" in out
    assert "smoke" in out  # the runs of the stage that is worked on
    code, out, _ = shell("cancel", "improve")
    assert (code, out.strip()) == (0, "improve: stopped")
    shown = json.loads(shell("status", "--json")[1])
    assert (shown["state"], [stage["state"] for stage in shown["stages"]]) == ("stopped", ["finished", "stopped"])
    assert shown["claim"]["run"] == "improve-1-sft/sft-01"


def test_the_screens_follow_the_stage_that_is_worked_on(tmp_path: Path) -> None:
    there = World(SKILL)
    half_done(tmp_path, there)
    paths = wiring.find_project(tmp_path / "training_reports", None)
    found = watched(paths)
    assert found is not None
    assert found.paths.project == "improve-2-dpo"
    shown = view(found.state, there.clock.now(), held=False, pipeline=found.pipeline)
    assert shown["pipeline"].startswith("improve  waiting")
    assert shown["method"] == "dpo"


def test_a_pipeline_is_planned_and_started_by_a_yes_in_the_chat(
    chat: Chat, there: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    handed: list[list[str]] = []

    class Started:
        pid = 4711

        def __init__(self, command: list[str], **options: Any) -> None:
            handed.append(command)

    monkeypatch.setattr(session.subprocess, "Popen", Started)
    text = said(chat, GOAL)
    assert "stage 2 of 2: dpo" in text
    assert text.rstrip().endswith("Start? yes, or no")
    assert "runs in a process of its own (4711)" in said(chat, "yes")
    [command] = handed
    assert command[1:5] == ["-m", "hfagent", "resume", "smollm2-135m-instruct-procedural-python-sft-dpo"]
    assert "no stage" in said(chat, "/status")
    assert there.runner.submits == []
    there.runner.name = "local"
    # The other process would do this:
    pipeline.resume(chat.paths(), there.ports, settings_of(tmp_path), console=QUIET)
    text = said(chat, "how is it going?")
    assert "finished: 2 of 2 stages kept" in text
    assert "confirmed better" in text
    assert "already" in said(chat, "/stop")


def test_a_pipeline_without_a_yes_leaves_nothing(chat: Chat) -> None:
    said(chat, GOAL)
    assert "Nothing was started." in said(chat, "no")
    assert not list(chat.settings.reports_dir.iterdir())


def test_a_pipeline_that_waits_for_a_yes_in_the_chat_is_begun_by_nobody_else(chat: Chat, there: World) -> None:
    said(chat, GOAL)
    offered = chat._session.offered
    assert offered is not None
    there.runner.name = "local"
    with pytest.raises(UsageError, match="works on the project"):
        pipeline.begin(offered.state.pipeline, there.ports, chat.settings, ask=None, console=QUIET)
    assert offered.paths.ledger.exists()
    said(chat, "no")
    made = pipeline.begin(offered.state.pipeline, there.ports, chat.settings, ask=None, console=QUIET)
    assert made is not None
    assert made.ended is not None


def test_what_is_asked_in_the_chat_arrives_at_the_stage(chat: Chat, tmp_path: Path, there: World) -> None:
    there.trains = "org/model"
    half_done(tmp_path, there)
    chat.settings = chat.settings.model_copy(update={"reports_dir": tmp_path / "training_reports"})
    assert "pause done" in said(chat, "/pause")
    assert "paused" in said(chat, "/status")
    assert "resume done" in said(chat, "/resume")
    assert resume(tmp_path, there).ended is not None


def test_another_agent_plans_starts_and_hands_over_a_pipeline(
    tmp_path: Path, there: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    handed: list[list[str]] = []

    class Started:
        pid = 4711

        def __init__(self, command: list[str], **options: Any) -> None:
            handed.append(command)

    monkeypatch.setattr(session.subprocess, "Popen", Started)
    open_ = Session(settings_of(tmp_path), lambda settings: there.ports, pid=1)

    def told(name: str, **arguments: Any) -> dict[str, Any]:
        text, _ = call(open_, name, arguments)
        found: dict[str, Any] = json.loads(text)
        return found

    planned = told("plan_night", goal=GOAL, project="mine")
    assert [stage["method"] for stage in planned["stages"]] == ["sft", "dpo"]
    assert "run unattended" in told("check_dataset")["error"]
    assert "not started" in told("hand_over")["error"]
    assert told("start_night")["next"] == "hand_over"
    assert told("hand_over")["project"] == "mine"
    assert len(handed) == 1
    assert FolderMailbox(tmp_path / "state" / "control" / "mine").stop_asked() is None
