"""`hfagent estimate`: what a goal would take, on which hardware, at what cost; nothing is launched."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from world import make_plan

from hfagent.agent import estimate_view
from hfagent.agent.estimate import DataSize
from hfagent.agent.hardware import fallback
from hfagent.agent.records import ModelRef, TrainConfig

GOAL = "improve code solving with SFT on HF Jobs"
GPU = {"type": "gpu", "manufacturer": "Nvidia", "quantity": "1"}
FLAVORS = [
    {"name": "t4-small", "prettyName": "T4", "cpu": "4 vCPU", "ram": "15 GB", "ephemeralStorage": "50 GB",
     "accelerator": GPU | {"model": "T4", "vram": "16 GB"},
     "unitCostMicroUSD": 7000, "unitCostUSD": 0.007, "unitLabel": "minute"},
    {"name": "h300", "prettyName": "new", "cpu": "20 vCPU", "ram": "256 GB",
     "accelerator": GPU | {"model": "H300", "vram": "288 GB"},
     "unitCostMicroUSD": 100000, "unitCostUSD": 0.1, "unitLabel": "minute"},
]  # fmt: skip

TEACHER = {
    "id": "Qwen/Qwen3-4B",
    "sha": "1cfa9a7208912126459214e8b04321603b3df60c",
    "safetensors": {"parameters": {"BF16": 4022468096}, "total": 4022468096},
}


class Hub(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        answers: dict[str, Any] = {
            "/api/jobs/hardware": FLAVORS,
            "/api/models/Qwen/Qwen3-0.6B": {
                "id": "Qwen/Qwen3-0.6B",
                "safetensors": {"parameters": {"BF16": 596049920}, "total": 596049920},
            },
            "/api/models/Qwen/Qwen3-4B": TEACHER,
            f"/api/models/Qwen/Qwen3-4B/revision/{TEACHER['sha']}": TEACHER,
            "/api/models/org/unknown-7B": {"id": "org/unknown-7B"},
        }
        answer = answers.get(self.path.partition("?")[0])
        body = json.dumps(answer if answer is not None else {"error": "not found"}).encode()
        self.send_response(200 if answer is not None else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Asked", (Hub,), {"asked": asked}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


@pytest.fixture
def shell(hub: tuple[str, list[str]], tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_ENDPOINT": hub[0], "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}

    def call(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "hfagent", *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    return call


def test_the_estimate_is_made_of_live_prices_and_counted_weights_and_launches_nothing(
    shell: Any, hub: tuple[str, list[str]], tmp_path: Path
) -> None:
    done = shell("estimate", GOAL, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    plan = found["plan"]
    assert (plan["backend"], plan["flavor"], plan["price_micro_usd_per_hour"]) == ("hf", "t4-small", 420_000)
    assert plan["model"]["parameters"] == 596_049_920
    assert found["prices"].startswith("from the Hub, ")
    assert found["need"]["vram_gb"] <= 0.85 * 16
    assert [job["name"] for job in found["jobs"]] == [
        "smoke", "baseline", "training", "evaluation", "baseline again", "confirmation",
    ]  # fmt: skip
    assert sum(job["expected_micro_usd"] for job in found["jobs"]) == found["expected_micro_usd"]
    assert found["expected_micro_usd"] < found["reserved_micro_usd"]
    assert [other["flavor"] for other in found["others"]] == ["h300"]
    assert not any(line.startswith("POST") for line in hub[1])
    assert not (tmp_path / "training_reports").exists()


def test_a_person_reads_flavor_memory_jobs_and_totals(shell: Any) -> None:
    done = shell("estimate", GOAL, "--budget-usd", "1")
    assert done.returncode == 0, done.stderr
    for words in ("t4-small", "596,049,920 weights", "usable", "confirmation", "total", "$0.42/h", "budget of $1.00"):
        assert words in done.stdout
    assert "10,000 are assumed" in done.stdout


def test_the_teacher_is_taken_at_its_commit_and_counted(shell: Any) -> None:
    goal = "distill Qwen/Qwen3-4B into Qwen/Qwen3-0.6B for code on HF Jobs"
    done = shell("estimate", goal, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    pinned = {"id": "Qwen/Qwen3-4B", "revision": TEACHER["sha"], "parameters": 4_022_468_096}
    assert found["plan"]["teacher"] == pinned
    assert found["terms"]["teacher"] == pytest.approx(8.04, abs=0.01)
    shown = shell("estimate", "improve code with distillation on HF Jobs", "--teacher", "Qwen/Qwen3-4B").stdout
    assert "teacher   Qwen/Qwen3-4B, 4,022,468,096 weights" in shown


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("estimate", GOAL, "--teacher", "Qwen/Qwen3-4B"), "is for distillation, and the method is sft"),
        (("estimate", GOAL, "--flavor", "t4-smal"), "did you mean 't4-small'?"),
        (("estimate", GOAL, "--model", "org/unknown-7B"), "nobody knows how many weights"),
        ((GOAL, "--yes"), "jobs on hf cost money: name --budget-usd"),
        ((GOAL, "--dry-run"), "jobs on hf cost money: name --budget-usd"),
    ],
)
def test_what_is_missing_is_one_line(shell: Any, words: tuple[str, ...], says: str) -> None:
    done = shell(*words)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("hfagent:")]
    assert says in line


def test_a_dry_run_on_hf_shows_its_price(shell: Any) -> None:
    done = shell(GOAL, "--dry-run", "--budget-usd", "5", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["estimate_usd"] > 0


def test_offline_a_local_goal_is_estimated_at_no_cost(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hfagent", "estimate", "improve code solving with SFT"]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "$0.00" in done.stdout
    refused = subprocess.run(
        [*command, "--backend", "hf"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "need the Hub, which does not answer" in refused.stderr


def test_the_text(golden: Callable[[str, str], None]) -> None:
    plan = make_plan(
        backend="hf", flavor="l4x1", accelerator="l4", gpu=True, price_micro_usd_per_hour=800_000, max_trials=4,
        model=ModelRef(id="Qwen/Qwen3-1.7B", parameters=1_720_574_976), budget_micro_usd=20_000_000,
        train=TrainConfig(per_device_train_batch_size=1, gradient_accumulation_steps=8, max_length=2048),
        notes=("a note of the plan",),
    )  # fmt: skip
    found = estimate_view.price(plan, DataSize(rows=8130), fallback())
    golden("estimate.txt", estimate_view.text(found) + "\n")
    assert estimate_view.as_json(found)["need"]["parameters"] == 1_720_574_976


@pytest.mark.parametrize(
    ("micro_usd", "text"), [(0, "$0.00"), (1, "$0.01"), (10_000, "$0.01"), (10_001, "$0.02"), (32_000_000, "$32.00")]
)
def test_dollars_are_never_less_than_they_are(micro_usd: int, text: str) -> None:
    assert estimate_view.dollars(micro_usd) == text
