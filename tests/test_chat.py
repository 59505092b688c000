"""The chat without a language model: sentences as people write them, slash commands, and answers from the ledger."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Reply, completion, text_of
from rich.console import Console
from world import SKILL, World, at_desk, night, work

from hfagent.agent import session, wiring
from hfagent.agent.chat import COMMANDS, HELP, Chat
from hfagent.agent.chat_terminal import News
from hfagent.agent.chat_words import read_intent
from hfagent.agent.console import THEME
from hfagent.agent.control import FolderMailbox
from hfagent.agent.errors import UsageError
from hfagent.agent.goal import parse_goal
from hfagent.agent.settings import Settings

EXPERIMENT = """Start a new fine-tuning experiment to improve code solving abilities on using SFT.
- Maintain a report for the experiment.
- Evaluate models with the openai_humaneval benchmark
- Use the open-r1/codeforces-cots dataset"""


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
    settings = Settings(reports_dir=tmp_path / "reports", state_dir=tmp_path / "state", cache_dir=tmp_path / "cache")
    made = Chat(settings, console, ports=lambda settings: there.ports, pid=1)
    yield made
    made.close()


def said(chat: Chat, line: str) -> str:
    """The answer to a line."""
    assert isinstance(chat.console.file, io.StringIO)
    chat.console.file.seek(0)
    chat.console.file.truncate()
    chat.say(line)
    return chat.console.file.getvalue()


@pytest.mark.parametrize(
    ("line", "kind", "about"),
    [
        ("Fine-tune Qwen3-0.6B on the dataset open-r1/codeforces-cots", "goal", {}),
        ("fine tune Qwen/Qwen3-1.7B with DPO on trl-lib/ultrafeedback_binarized", "goal", {"method": "dpo"}),
        (EXPERIMENT, "goal", {"dataset": "open-r1/codeforces-cots", "method": "sft"}),
        ("improve code solving with SFT", "goal", {}),
        ("Do a quick test run on 100 examples.", "goal", {}),
        (
            "Check if open-r1/codeforces-cots works for SFT training.",
            "check",
            {"dataset": "open-r1/codeforces-cots", "method": "sft"},
        ),
        ("is data/pairs.jsonl suitable for dpo?", "check", {"dataset": "data/pairs.jsonl", "method": "dpo"}),
        ("validate the dataset trl-lib/Capybara", "check", {"dataset": "trl-lib/Capybara", "method": None}),
        (
            "Preprocess the dataset org/pairs to use 'good_response' and 'bad_response' instead of 'chosen' and "
            "'rejected'.",
            "preprocess",
            {"dataset": "org/pairs", "columns": {"chosen": "good_response", "rejected": "bad_response"}},
        ),
        ("rename question to prompt in data/q.jsonl", "preprocess", {"columns": {"prompt": "question"}}),
        ("Are models outperforming the base model?", "compare", {}),
        ("Is any of them better than the baseline?", "compare", {}),
        ("show me the results", "compare", {}),
        ("did it help?", "compare", {}),
        ("How is it going?", "status", {}),
        ("what is running right now", "status", {}),
        ("why was sft-02 discarded?", "why", {}),
        ("how much did it cost?", "budget", {}),
        ("plot the losses", "losses", {}),
        (
            "Convert my fine-tuned model to GGUF with Q4_K_M quantization. Push to user/name.",
            "export",
            {},
        ),
        ("pause", "pause", {}),
        ("please continue", "resume", {}),
        ("stop the night", "stop", {}),
        ("yes", "yes", {}),
        ("no", "no", {}),
        ("what can you do", "help", {}),
        ("bye", "quit", {}),
    ],
)
def test_sentences_are_understood(line: str, kind: str, about: dict[str, Any]) -> None:
    intent = read_intent(line)
    assert intent.kind == kind
    for name, value in about.items():
        assert getattr(intent, name) == value


def test_the_four_line_experiment_is_a_goal_with_all_that_it_says() -> None:
    hints = parse_goal(EXPERIMENT)
    assert (hints.stages, hints.task_area) == (("sft",), "code")
    assert (hints.dataset, hints.benchmark) == ("open-r1/codeforces-cots", "openai_humaneval")


def test_a_goal_is_planned_and_started_by_a_yes(chat: Chat, there: World, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[list[str]] = []

    class Started:
        pid = 4711

        def __init__(self, command: list[str], **options: Any) -> None:
            handed.append(command)
            assert options["start_new_session"]

    monkeypatch.setattr(session.subprocess, "Popen", Started)
    text = said(chat, "improve code solving with SFT")
    assert "SmolLM2-135M-Instruct" in text
    assert "confirm set procedural_python, 200 problems" in text
    assert text.rstrip().endswith("Start? yes, or no")
    assert there.runner.submits == []
    assert "runs in a process of its own (4711)" in said(chat, "yes")
    [command] = handed
    assert command[1:4] == ["-m", "hfagent", "resume"]
    # The other process would do this:
    night(chat.paths().ledger, there)
    answer = said(chat, "Are models outperforming the base model?")
    assert "Confirmed better: 0." in answer
    assert "confirm" in answer
    assert "points" in answer


@pytest.mark.parametrize("answer", ["no", "how is it going?"])
def test_a_plan_without_a_yes_leaves_nothing(chat: Chat, answer: str) -> None:
    said(chat, "improve code solving with SFT")
    assert "Nothing was started." in said(chat, answer)
    assert not list(chat.settings.reports_dir.iterdir())


def test_a_quick_test_run_takes_what_was_talked_about(chat: Chat, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"p{n}", "completion": f"c{n}"}) + "\n" for n in range(30)))
    assert "READY" in said(chat, f"Check if {data} works for SFT training.")
    text = said(chat, "Do a quick test run on 100 examples.")
    assert str(data) in text
    assert "at most 100" in text


def test_columns_are_renamed_on_disk_and_the_new_data_judged(chat: Chat, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    row = {"prompt": "q", "good_response": "a", "bad_response": "b"}
    data.write_text("".join(json.dumps({**row, "prompt": f"q{n}"}) + "\n" for n in range(8)))
    text = said(
        chat,
        f"Preprocess the dataset {data} to use 'good_response' and 'bad_response' instead of 'chosen' and 'rejected'.",
    )
    assert "8 rows, columns prompt, good_response, bad_response -> prompt, chosen, rejected" in text
    [line] = [line for line in text.splitlines() if line.startswith("dpo ") and "READY" in line]
    assert "chosen" in line


def finished(chat: Chat, there: World, **plan: Any) -> None:
    night(chat.settings.reports_dir / "night.jsonl", there, model={"id": "embedded:SmolLM2-135M-Instruct"}, **plan)


def test_every_command_answers_from_the_ledger(chat: Chat, there: World) -> None:
    finished(chat, there)
    wanted = {
        "/status": "finished",
        "/runs": "sft-01-x1-confirm",
        "/results": "Confirmed better",
        "/why": "extend-while-falling",
        "/why sft-01-x1": "keep-any-gain",
        "/losses": "train/loss",
        "/budget": "no cap",
        "/report": "Decision log",
        "/project": "talking about night",
        "/model": "planned by rules",
        "/help": "/approve",
        "/nonsense": "no command",
    }
    for line, text in wanted.items():
        assert text in said(chat, line), line
    assert not chat.say("/quit")
    assert all(command in HELP for command in COMMANDS if command != "/help")


def test_what_is_asked_of_a_running_night_arrives_there(chat: Chat, there: World) -> None:
    path = chat.settings.reports_dir / "night.jsonl"
    with at_desk(path, there):
        for line in ("/pause", "/veto sft-01 too slow", "/veto it is too slow", "/steer lower rates", "pause"):
            said(chat, line)
    box = FolderMailbox(chat.settings.state_dir / "control" / "night")
    asked = [(request.ask, request.run, request.text) for request in box.take()]
    assert asked == [
        ("pause", None, ""), ("veto", "sft-01", "too slow"), ("veto", None, "it is too slow"),
        ("steer", None, "lower rates"), ("pause", None, ""),
    ]  # fmt: skip


def test_what_is_asked_of_a_night_that_nobody_works_on_is_done_at_once(chat: Chat, there: World) -> None:
    path = chat.settings.reports_dir / "night.jsonl"
    with at_desk(path, there, approve_runs=True):
        pass
    assert "pause done" in said(chat, "/pause")
    assert "paused by a person" in said(chat, "/status")
    assert "no training run waits" in said(chat, "/approve")
    assert "stop done" in said(chat, "/stop")
    assert "stopped already" in said(chat, "/stop")


def test_a_training_that_waits_is_shown_and_approved(chat: Chat, there: World) -> None:
    path = chat.settings.reports_dir / "night.jsonl"

    class Enough(Exception):
        pass

    def stop(event: Any) -> None:
        if event.fact.kind == "approval_asked":
            raise Enough

    with at_desk(path, there, approve_runs=True) as desk:
        desk.ledger.subscribe(stop)
        with pytest.raises(Enough):
            work(desk)
    assert "sft-01 waits for your approval" in said(chat, "/status")
    assert "approve done" in said(chat, "/approve")
    assert "waits" not in said(chat, "/status")


def test_news_of_the_night_is_told_once(chat: Chat, there: World) -> None:
    told: list[str] = []
    news = News(chat, say=told.append)
    news.look(quiet=True)
    finished(chat, there)
    news.look()
    news.look()
    assert sum("claimed label=confirmed_better" in line for line in told) == 1
    assert sum("project_ended" in line for line in told) == 1
    assert not any("metrics_logged" in line for line in told)


def test_what_cannot_be_understood_is_said_with_an_example(chat: Chat) -> None:
    assert "does not say what to improve" in said(chat, "hello there, nice weather")
    assert "no project in" in said(chat, "/status")
    assert said(chat, "") == ""
    with pytest.raises(UsageError):
        chat.paths()


def test_tables_fit_a_narrow_terminal(chat: Chat, there: World) -> None:
    finished(chat, there)
    chat.console.width = 80
    for line in ("/budget", "/status", "/results", "/why"):
        assert max(map(len, said(chat, line).splitlines())) <= 80


def test_other_questions_are_answered_by_the_model_from_the_facts(chat: Chat, there: World) -> None:
    finished(chat, there)
    reply = "The rate was \x1b[31mtoo high\x1b[0m; key hf_abcdefghijklmnopqrstuvwxyz01234567."
    with ChatServer(lambda request, number: Reply(completion(content=reply, finish="stop"))).running() as server:
        said(chat, f"/model {server.url}")
        text = said(chat, "Which hyperparameter should I look at tomorrow?")
    assert text.strip() == "The rate was too high; key ***."
    told = text_of(server.requests[-1])
    assert "sft-01-x1 against base on confirm: better" in told
    assert "Which hyperparameter should I look at tomorrow?" in told


@pytest.mark.parametrize("answer", ["cancel", "stop", "wait", "hold on", "no"])
def test_an_answer_to_a_plan_never_reaches_a_night_that_runs(chat: Chat, there: World, answer: str) -> None:
    with at_desk(chat.settings.reports_dir / "night.jsonl", there):
        said(chat, "improve code solving with SFT")
        assert "Nothing was started." in said(chat, answer)
    box = FolderMailbox(chat.settings.state_dir / "control" / "night")
    assert list(box.take()) == []
    assert box.stop_asked() is None


def test_quit_leaves_also_while_a_plan_waits(chat: Chat) -> None:
    said(chat, "improve code solving with SFT")
    assert not chat.say("quit")


def test_a_veto_names_its_run(chat: Chat, there: World) -> None:
    with at_desk(chat.settings.reports_dir / "night.jsonl", there):
        said(chat, "/veto sft-02 the rate is too high")
    [request] = FolderMailbox(chat.settings.state_dir / "control" / "night").take()
    assert (request.run, request.text) == ("sft-02", "the rate is too high")


@pytest.mark.parametrize("line", ["/steer " + "x" * 5000, "/model http://[x", "/approve", "/veto"])
def test_odd_input_gets_an_answer_and_no_traceback(chat: Chat, there: World, line: str) -> None:
    with at_desk(chat.settings.reports_dir / "night.jsonl", there):
        assert said(chat, line).strip()
