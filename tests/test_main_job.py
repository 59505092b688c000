"""The main job with nothing faked but the size of the model: real processes, real training, a real kill -9."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_model import write_tiny_model

from hfagent.agent.folding import fold
from hfagent.agent.ledger import read
from hfagent.agent.records import BenchmarkRef
from hfagent.tools.benchmarks import problems

pytestmark = pytest.mark.slow

DEADLINE_S = 240
PLANTED = 17
"""Row of the training data that holds a problem of the confirm set."""


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "hfagent", *args]


def begin(folder: Path, *args: str) -> "subprocess.Popen[str]":
    write_tiny_model(folder / "model")
    rows = [{"instruction": f"say w{i % 7} w{i % 11}", "output": f"w{i % 5} w{i % 3}"} for i in range(60)]
    [planted] = problems(BenchmarkRef(name="procedural_python", set="confirm", n=1, seed=0))
    rows.insert(PLANTED, {"instruction": planted.prompt, "output": planted.solution})
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    goal = "fine-tune ./model on ./rows.jsonl to improve code"
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command(goal, "--yes", "--quick", "--project", "tiny", "--json", *args),
        cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def call(folder: Path, *args: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(command(*args), cwd=folder, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_killed_night_is_resumed_and_nothing_runs_twice(tmp_path: Path) -> None:
    process = begin(tmp_path)
    ledger = tmp_path / "training_reports" / "tiny.jsonl"
    deadline = time.monotonic() + DEADLINE_S
    submitted = re.compile(r'"job_submitted","key":"tiny-\w+-sft-01-a1"')
    while not (ledger.exists() and submitted.search(ledger.read_text())):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert call(tmp_path, "status", "tiny", "--json")[1]["state"] == "waiting"

    code, shown = call(tmp_path, "resume", "tiny", "--json")
    assert (code, shown["state"]) == (0, "finished")
    state = fold(read(ledger))
    assert state is not None
    assert {name: len(run.attempts) for name, run in state.runs.items()} == dict.fromkeys(
        ("smoke", "baseline", "sft-01", "sft-01-eval"), 1
    )
    label = state.plan.label
    jobs = {path.name.removeprefix(f"{label}-") for path in (tmp_path / ".hfagent" / "jobs").iterdir()}
    assert jobs == {"baseline-a1", "sft-01-a1", "sft-01-eval-a1", "smoke-a1"}
    # A model of random weights solves nothing: no gain is claimed, and the confirm set is never looked at.
    assert [decision["action"] for decision in shown["decisions"]] == ["discard"]
    assert shown["verdict"] is None
    assert state.contamination is not None
    assert state.contamination.flagged == (PLANTED,)
    assert state.data_cleaned
    trained_on = Path(state.data_path or "").read_text()
    assert len(trained_on.splitlines()) == 60
    report = (tmp_path / "training_reports" / "tiny.md").read_text()
    assert "| resumed |" in report
    assert "TBD" not in report
    assert "confirm-0-0000" in report
    assert state.runs["sft-01"].points
    assert json.loads(state.runs["sft-01"].spec.model_dump_json())["train"]["max_rows"] == 100


def test_cancel_ends_a_running_night_and_its_job(tmp_path: Path) -> None:
    process = begin(tmp_path)
    ledger = tmp_path / "training_reports" / "tiny.jsonl"
    deadline = time.monotonic() + DEADLINE_S
    while not (ledger.exists() and '"job_started"' in ledger.read_text()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    done = subprocess.run(command("cancel", "tiny"), cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "will stop" in done.stdout
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    shown = json.loads(out)
    assert (shown["state"], shown["stop_reason"]) == ("stopped", "on request, by hfagent cancel")
    assert shown["runs"][-1]["stage"] == "CANCELED"
