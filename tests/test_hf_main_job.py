"""The main job on hf with the real templates as jobs of the emulator, from the plan to a pushed model that loads."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from tests.emulator.jobs import Behavior, Jobs
from tests.emulator.server import Emulator
from tiny_model import write_tiny_model
from world import World

from hfagent.agent.folding import fold
from hfagent.agent.ledger import read
from hfagent.agent.records import JobSpec
from hfagent.agent.state import State
from hfagent.job_templates.remote import ARGS

pytestmark = pytest.mark.slow

DEADLINE_S = 280
REPO = "ada/tuned"
SCORED = """
import json, pathlib
home, left = pathlib.Path({home!r}), {left!r}
home.mkdir(parents=True, exist_ok=True)
(home / "result.json").write_text(left)
(home / "exit.json").write_text('{{"exit_code": 0}}')
"""
LOAD = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokens = AutoTokenizer.from_pretrained(sys.argv[1])("w1 w2", return_tensors="pt")
model.generate(tokens["input_ids"], max_new_tokens=2)
print(model.num_parameters())
"""


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    made = Jobs()
    yield made
    made.close()


@pytest.fixture
def hub(jobs: Jobs, tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(tmp_path / "hub", extra=jobs.routes) as running:
        yield running


def variables(hub: Emulator) -> dict[str, str]:
    return hub.env(hub.hub.add_user("ada")) | {
        "HFAGENT_TRACKIO_SERVER_URL": "http://127.0.0.1:9",
        "TRACKIO_WRITE_TOKEN": "written",
        "HFAGENT_JOB_MOUNT": str(hub.hub.bucket_folder("ada", "hfagent")),
        "HFAGENT_POLL_S": "1",
    }


def night(goal: str, folder: Path, env: Mapping[str, str]) -> State:
    """A quick night."""
    asked = (goal, "--quick", "--backend", "hf", "--flavor", "cpu-basic")
    done = subprocess.run(
        [sys.executable, "-m", "hfagent", *asked, "--budget-usd", "1", "--project", "night", "--yes"],
        cwd=folder, env=env, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    state = fold(read(folder / "training_reports" / "night.jsonl"))
    assert state is not None
    return state


def assert_trained_pushed_and_paid(state: State, hub: Emulator, jobs: Jobs, base: Path, env: Mapping[str, str]) -> None:
    assert {run.last.stage for run in state.runs.values()} == {"COMPLETED"}
    assert {run.spec.kind for run in state.runs.values()} == {"smoke", "evaluate", "train", "export", "publish"}
    assert state.held_micro_usd == 0
    assert state.spent_micro_usd == sum(job.billed_micro_usd for job in jobs.all)
    trained = state.trained[0]
    assert trained.result["base_model"] == trained.result["adapter_base_model"] == state.model_path == str(base)
    assert trained.points  # from its log, since no server has its metrics
    assert hub.hub.repo("model", REPO).private
    fresh = {**env, "HF_HOME": str(hub.hub.root / "fresh")}
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, REPO], env=fresh, capture_output=True, text=True, timeout=120, check=False
    )
    assert loaded.returncode == 0, loaded.stderr[-2000:]
    assert int(loaded.stdout) > 0


def card_of(hub: Emulator) -> ModelCard:
    text = hub.hub.read_file("model", REPO, "README.md").decode()
    assert not [place for place in (str(hub.hub.root.parent), os.environ.get("HOME", "/root")) if place in text]
    card = ModelCard(text)
    assert card.data.library_name == "transformers"
    return card


def write_trained_model(folder: Path) -> None:
    """A tiny model that knows its words: one of random weights counts as diverged, since it only guesses."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_tiny_model(folder)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = [f"<user> say w{i % 7} w{i % 11} <eos> <assistant> w{i % 5} w{i % 3} <eos>" for i in range(60)]
    tokens = tokenizer(texts, return_tensors="pt")["input_ids"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


def planned_scores(body: Mapping[str, Any]) -> Behavior:
    """Evaluations end at once, with a gain, as a tiny model would not have one; all else is as it is."""
    args, home = json.loads(body["environment"][ARGS]), body["command"][-2]
    if "--benchmark" not in args:
        return Behavior()
    spec = JobSpec(
        key="k", project="night", run="r", kind="evaluate", template="evaluate.py", args=tuple(args), flavor="x",
        timeout_s=1, price_micro_usd_per_hour=0,
    )  # fmt: skip
    left = World({"baseline": 0.1, "adapter": 0.4}).behave(spec).result
    return Behavior(script=SCORED.format(home=home, left=json.dumps(left)))


def test_a_local_model_is_trained_and_pushed_and_paid_as_billed(hub: Emulator, jobs: Jobs, tmp_path: Path) -> None:
    write_trained_model(tmp_path / "model")
    rows = [{"instruction": f"say w{i % 7} w{i % 11}", "output": f"w{i % 5} w{i % 3}"} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    jobs.behave = planned_scores
    env = variables(hub)
    goal = f"fine-tune ./model on ./rows.jsonl to improve code, push to {REPO} whatever the verdict"
    state = night(goal, tmp_path, env)
    assert_trained_pushed_and_paid(state, hub, jobs, tmp_path / "model", env)
    card = card_of(hub)
    assert card.data.base_model is None
    assert "`model`, trained with SFT (LoRA, merged) on `rows.jsonl`" in card.content


@pytest.mark.parametrize("method", ["DPO", "KTO"])
def test_a_model_makes_its_own_data_there_and_is_trained_on_them(
    hub: Emulator, jobs: Jobs, tmp_path: Path, method: str
) -> None:
    write_trained_model(tmp_path / "model")
    rows = [
        {"prompt": f"say w{i % 7} w{i % 11}", "answer": str(i % 5), "solution": f"w{i % 5} w{i % 3} {i % 5}"}
        for i in range(60)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    jobs.behave = planned_scores
    state = night(f"improve code by fine-tuning ./model on ./rows.jsonl with {method}", tmp_path, variables(hub))
    assert {run.last.stage for run in state.runs.values()} == {"COMPLETED"}
    assert list(state.runs)[:2] == ["data", "smoke"]
    assert state.spent_micro_usd == sum(job.billed_micro_usd for job in jobs.all)
    told = state.runs["data"].result
    made = Path(told["dataset"])
    assert made.is_relative_to(tmp_path / ".hfagent")
    assert len((made / "train.jsonl").read_text().splitlines()) == told["rows"]
    assert state.trained[0].points
