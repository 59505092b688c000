"""A person is told of what needs one, by the genuine apprise against a web hook of our own."""

import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from nights import START
from pydantic import SecretStr
from rich.console import Console
from world import SKILL, World, make_plan

from hfagent.agent import ledger
from hfagent.agent.errors import SettingsError
from hfagent.agent.events import Claimed, Event, PlanMade, ProjectEnded, Resumed
from hfagent.agent.folding import apply, fold
from hfagent.agent.night import begin
from hfagent.agent.notify import Message, Notifier, apprise_sender, message, pipeline_message
from hfagent.agent.pipeline_facts import StageEnded
from hfagent.agent.planner_facts import ApprovalAsked
from hfagent.agent.records import Claim
from hfagent.agent.settings import Settings, load
from hfagent.agent.upkeep_facts import LimitNear


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"json://127.0.0.1:{server.server_port}/hook", got
    server.shutdown()
    server.server_close()


def test_a_night_tells_its_verdict_and_that_the_budget_runs_out(
    tmp_path: Path, hook: tuple[str, list[dict[str, Any]]]
) -> None:
    url, got = hook
    settings = Settings(reports_dir=tmp_path / "reports", state_dir=tmp_path / "state", notify=SecretStr(url))
    plan = make_plan(price_micro_usd_per_hour=4_000_000, budget_micro_usd=1_100_000, flavor="a10g-small")
    state = begin(plan, World(SKILL).ports, settings, ask=None, console=Console(file=io.StringIO()))
    assert state is not None
    titles = [item["title"] for item in got]
    assert titles.count("night: confirmed better") == 1
    [told] = [item for item in got if "of the budget is spent or held" in item["title"]]
    [near] = [e.fact for e in ledger.read(tmp_path / "reports" / "night.jsonl") if isinstance(e.fact, LimitNear)]
    assert told["title"] == f"night: {near.share:.0%} of the budget is spent or held"
    assert told["message"] == f"${1.1 * near.share:.2f} of $1.10"
    assert "+" in got[titles.index("night: confirmed better")]["message"]


def test_an_approval_is_told(tmp_path: Path) -> None:
    world = World(SKILL)
    with ledger.open_ledger(tmp_path / "n.jsonl", world.clock) as book:
        book.append(PlanMade(plan=make_plan(), versions={}))
        event = book.append(ApprovalAsked(run="sft-02"))
        state = fold(book.events)
    assert state is not None
    told = message(event, state)
    assert told is not None
    assert told.title == "night: sft-02 waits for your approval"


def test_that_the_time_runs_out_is_told() -> None:
    state = apply(None, Event(seq=1, at=START, fact=PlanMade(plan=make_plan(max_hours=2), versions={})))
    assert state is not None
    told = message(Event(seq=2, at=START, fact=LimitNear(limit="time", share=0.81)), state)
    assert told == Message("night: 81% of the time is used", "the limit is 2 h")
    told = message(Event(seq=2, at=START, fact=LimitNear(limit="GPU hours", share=0.9)), state)
    assert told == Message("night: 90% of the GPU hours are used", "the plan has the limit")


def test_a_service_that_hangs_or_fails_does_not_hold_up_anything() -> None:
    warned: list[str] = []

    def hang(item: Message) -> bool:
        time.sleep(60)
        return True

    def fail(item: Message) -> bool:
        raise ConnectionError("refused by hf_abcdefghijklmnopqrstuvwxyz01234567")

    begun = time.monotonic()
    slow = Notifier(hang, warn=warned.append)
    for number in range(200):
        slow.tell(Message(str(number), "x"))
    assert time.monotonic() - begun < 1
    assert "some are dropped" in warned[0]
    broken = Notifier(fail, warn=warned.append)
    broken.tell(Message("a", "b"))
    broken.close()
    assert warned[-1] == "a notification could not be sent: refused by ***"


def test_an_address_that_is_none_is_refused_without_being_told() -> None:
    with pytest.raises(SettingsError, match="address 2 of HFAGENT_NOTIFY") as raised:
        apprise_sender(["json://localhost", "nonsense://secret-password"])
    assert "secret-password" not in str(raised.value)


def test_addresses_come_from_the_variable_alone(tmp_path: Path) -> None:
    assert load({}, cwd=tmp_path, env={"HFAGENT_NOTIFY": "json://h"}).notify == SecretStr("json://h")
    (tmp_path / "hfagent.toml").write_text('notify = "json://user:secret@h"\n')
    with pytest.raises(SettingsError, match="HFAGENT_NOTIFY"):
        load({}, cwd=tmp_path, env={})


def test_a_pipeline_tells_how_its_stages_end_and_what_may_be_claimed() -> None:
    claim = Claim(
        label="confirmed_better", reason="p = 0.001", run="p-2-dpo/dpo-01", gain=0.1, look=2, alpha=0.0076, tried=2,
        noise=0.0,
    )  # fmt: skip
    ended = StageEnded(
        number=1, state="finished", kept=False, why="no gain", run=None, model=None, verdict=None, claim=None,
        seconds=1.0, spent_micro_usd=0, charged_micro_usd=0,
    )  # fmt: skip
    facts = [Claimed(claim=claim), ended, ProjectEnded(state="stopped", reason="enough"), Resumed(pid=1)]
    told = [pipeline_message(Event(seq=1, at=START, fact=fact), "p") for fact in facts]
    assert told == [
        Message("p, all stages: confirmed better", "p = 0.001"),
        Message("p: stage 1 is dropped", "no gain"),
        Message("p: stopped", "enough"),
        None,
    ]
