"""Metrics of jobs elsewhere: from a Trackio server in small steps, from the job's log while it is away."""

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from hfagent.agent.fakes import Ending, FakeClock, FakeJobRunner
from hfagent.agent.records import JobSpec
from hfagent.tools.metrics_http import TrackioServer

AWAY = "http://127.0.0.1:9"


@dataclass
class Store:
    """What the server has of one run, and what it was asked for."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    sent: int = 0
    url: str = ""

    def answer(self, query: str) -> list[dict[str, Any]]:
        if query.startswith("SELECT run_id"):
            return [{"run_id": "r"}] if self.rows else []
        after = int(re.findall(r"id > (\d+)", query)[0])
        found = [{"id": at, "metrics": json.dumps(row)} for at, row in enumerate(self.rows, 1) if at > after]
        self.sent += len(found)
        return found


@pytest.fixture
def store() -> Iterator[Store]:
    held = Store()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps({"data": {"rows": held.answer(asked["query"])}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        held.url = f"http://127.0.0.1:{server.server_port}"
        yield held
        server.shutdown()


class Logged(FakeJobRunner):
    """One job of the run sft-01, with a log."""

    def __init__(self, *log: str, queued_s: float = 0.0):
        super().__init__(FakeClock(), lambda spec: Ending(running_s=60, log=log, queued_s=queued_s))
        self.read = 0
        self.submit(
            JobSpec(
                key="night-sft-01-a1", project="night", run="sft-01", kind="train", template="x.py", args=(),
                flavor="x", timeout_s=60, price_micro_usd_per_hour=0,
            )
        )  # fmt: skip

    def logs(self, job_id: str, *, tail: int = 100) -> Any:
        self.read += 1
        return super().logs(job_id, tail=tail)


def row(step: int, loss: float = 1.0) -> dict[str, Any]:
    return {"train/global_step": step, "train/loss": loss}


def test_each_row_is_sent_once_and_a_look_gives_the_new_ones(store: Store) -> None:
    tracker = TrackioServer(store.url, token=None, runner=Logged())
    store.rows = [row(step) for step in range(1, 101)]
    assert len(tracker.points("night", "sft-01")) == 100
    store.rows += [{"train/global_step": 100, "eval/loss": 0.5}, row(101)]
    found = tracker.points("night", "sft-01", after_step=99)
    assert [(point.step, point.values) for point in found] == [
        (100, {"train/loss": 1.0, "eval/loss": 0.5}),
        (101, {"train/loss": 1.0}),
    ]
    assert store.sent == 102


@pytest.mark.parametrize("away", [True, False])
def test_the_log_tells_while_the_server_does_not(store: Store, away: bool) -> None:
    """Tracker: its server is gone, or was and has nothing yet."""
    runner = Logged(
        "step 1/3 loss 2.5000 lr 0.001 1.20 s/step", "step 2/3 loss nan lr nan", "step 2/3 eval_loss 1.5000"
    )
    tracker = TrackioServer(AWAY if away else store.url, token=None, runner=runner)
    assert [(point.step, point.values) for point in tracker.points("night", "sft-01")] == [
        (1, {"train/loss": 2.5, "train/learning_rate": 0.001}),
        (2, {"train/loss": None, "eval/loss": 1.5}),
    ]


def test_the_log_of_a_job_that_waits_for_its_machine_is_not_waited_for() -> None:
    runner = Logged(queued_s=30)
    assert list(TrackioServer(AWAY, token=None, runner=runner).points("night", "sft-01")) == []
    assert runner.read == 0
