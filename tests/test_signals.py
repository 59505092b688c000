"""Signals to the process of a night: the job goes on, a resume attaches it, and nothing runs twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from process_night import starts

from hfagent.agent.folding import fold
from hfagent.agent.ledger import read
from hfagent.agent.state import State

SCRIPT = Path(__file__).parent / "process_night.py"
WAIT_S = 60


class Runner:
    """Starts the night of a folder, as often as asked."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.begun: list[subprocess.Popen[str]] = []

    def start(self, *, seconds: float = 0.05, ignoring: int | None = None) -> "subprocess.Popen[str]":
        def as_in_a_terminal() -> None:
            for number in (signal.SIGINT, signal.SIGHUP):  # whoever runs the tests may ignore them
                signal.signal(number, signal.SIG_IGN if number == ignoring else signal.SIG_DFL)

        folders = [str(SCRIPT.parent), *filter(None, sys.path)]
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(self.folder), str(seconds)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=as_in_a_terminal,
        )  # fmt: skip
        self.begun.append(process)
        return process

    def until(self, kind: str, process: "subprocess.Popen[str]", *, run: str = "baseline") -> None:
        """Wait for a fact about a run."""
        path = self.folder / "night.jsonl"
        deadline = time.monotonic() + WAIT_S
        while not (path.exists() and f'"kind":"{kind}","key":"night-{run}-a1"' in path.read_text()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def finish(self) -> dict[str, Any]:
        process = self.start()
        out, err = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, err
        told: dict[str, Any] = json.loads(out)
        return told

    @property
    def state(self) -> State:
        state = fold(read(self.folder / "night.jsonl"))
        assert state is not None
        return state


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    runner = Runner(tmp_path)
    yield runner
    for process in runner.begun:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        pytest.param(signal.SIGINT, "interrupted", id="Ctrl-C"),
        pytest.param(signal.SIGTERM, "terminated", id="SIGTERM"),
        pytest.param(signal.SIGHUP, "terminated", id="SIGHUP, of a closed terminal"),
    ],
)
def test_a_signal_ends_the_process_and_its_job_goes_on(runner: Runner, number: signal.Signals, said: str) -> None:
    """Signal to hfagent in the middle of a job."""
    process = runner.start(seconds=1.5)
    runner.until("job_started", process)
    process.send_signal(number)
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 128 + number
    assert f"{said}; a running job goes on: take it up with `hfagent resume night`" in err
    assert "Traceback" not in err
    assert json.loads(out)["state"] == "waiting"
    [attempt] = runner.state.open_attempts
    told = runner.finish()
    assert (told["state"], told["verdict"]["label"]) == ("finished", "better")
    assert runner.state.runs["baseline"].attempts[0].job_id == attempt.job_id
    assert set(starts(runner.folder).values()) == {1}
    assert len(starts(runner.folder)) == 9


def test_a_second_ctrl_c_ends_at_once(runner: Runner) -> None:
    """Ctrl-C twice."""
    process = runner.start(seconds=1.5)
    runner.until("job_started", process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    process.communicate(timeout=WAIT_S)
    assert process.returncode in (130, -signal.SIGINT)
    assert time.monotonic() - begun < 5
    assert runner.finish()["state"] == "finished"
    assert set(starts(runner.folder).values()) == {1}


def test_a_night_under_nohup_outlives_its_terminal(runner: Runner) -> None:
    """SIGHUP that is ignored."""
    process = runner.start(ignoring=signal.SIGHUP)
    runner.until("job_started", process, run="smoke")
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=WAIT_S)
    assert (process.returncode, json.loads(out)["state"]) == (0, "finished")


def test_a_process_that_was_stopped_goes_on_where_it_was(runner: Runner) -> None:
    """SIGSTOP and SIGCONT: the job ends meanwhile."""
    process = runner.start(seconds=0.5)
    runner.until("job_started", process)
    process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + WAIT_S
    while not (runner.folder / "jobs" / "night-baseline-a1" / "exit.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    size = (runner.folder / "night.jsonl").stat().st_size
    time.sleep(0.3)
    assert (runner.folder / "night.jsonl").stat().st_size == size
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, json.loads(out)["state"]) == (0, "finished"), err
    assert not any(run.flags for run in runner.state.runs.values())
    assert set(starts(runner.folder).values()) == {1}


def test_a_second_process_is_refused_and_hears_of_the_first(runner: Runner) -> None:
    """Two processes on one project."""
    first = runner.start(seconds=1.5)
    runner.until("job_started", first)
    second = runner.start()
    _, err = second.communicate(timeout=WAIT_S)
    assert second.returncode != 0
    assert f"another hfagent process (pid {first.pid}, since 20" in err
    out, _ = first.communicate(timeout=WAIT_S)
    assert (first.returncode, json.loads(out)["state"]) == (0, "finished")
    assert set(starts(runner.folder).values()) == {1}
