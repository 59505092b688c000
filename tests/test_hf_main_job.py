"""The main job on hf with nothing faked but the place: the real templates run as jobs of the emulator."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from tests.emulator.jobs import Jobs
from tests.emulator.server import Emulator

from hfagent.agent.folding import fold
from hfagent.agent.ledger import read
from hfagent.tools.embedded_model import default_cache, is_complete, model_folder

DEADLINE_S = 280
REPO = "ada/tuned"
EMBEDDED = model_folder(default_cache(), "SmolLM2-135M-Instruct")
LOAD = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokens = AutoTokenizer.from_pretrained(sys.argv[1])("def f():", return_tensors="pt")
print(model.num_parameters(), model.generate(**tokens, max_new_tokens=2).shape[1] - tokens["input_ids"].shape[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not is_complete(EMBEDDED), reason="the embedded model is not prepared: hfagent fetches it")
def test_a_model_is_trained_evaluated_and_pushed_and_paid_as_billed(tmp_path: Path) -> None:
    jobs = Jobs()
    with Emulator(tmp_path / "hub", extra=jobs.routes) as hub:
        token = hub.hub.add_user("ada")
        env = hub.env(token) | {
            "HFAGENT_CACHE_DIR": str(default_cache()),
            "HFAGENT_TRACKIO_SERVER_URL": "http://127.0.0.1:9",
            "TRACKIO_WRITE_TOKEN": "written",
            "HFAGENT_JOB_MOUNT": str(hub.hub.bucket_folder("ada", "hfagent")),
            "HFAGENT_POLL_S": "1",
        }
        goal = f"improve code solving with SFT, push to {REPO} whatever the verdict"
        asked = (goal, "--quick", "--backend", "hf", "--flavor", "cpu-basic", "--budget-usd", "1", "--project", "night")
        done = subprocess.run(
            [sys.executable, "-m", "hfagent", *asked, "--yes"], cwd=tmp_path, env=env, capture_output=True, text=True,
            timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        jobs.close()
        assert done.returncode == 0, done.stderr[-3000:]

        state = fold(read(tmp_path / "training_reports" / "night.jsonl"))
        assert state is not None
        assert {run.last.stage for run in state.runs.values()} == {"COMPLETED"}
        assert {run.spec.kind for run in state.runs.values()} == {"smoke", "evaluate", "train", "export"}
        assert state.held_micro_usd == 0
        assert state.spent_micro_usd == sum(job.billed_micro_usd for job in jobs.all)
        trained = state.trained[0]
        assert trained.result["base_model"] == trained.result["adapter_base_model"] == state.model_path == str(EMBEDDED)
        assert trained.points  # from its log, since there is no server of metrics

        info = hub.hub.repo("model", REPO)
        assert info.private
        card = ModelCard(hub.hub.read_file("model", REPO, "README.md").decode())
        assert card.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
        assert card.data.library_name == "transformers"
        fresh = {**env, "HF_HOME": str(tmp_path / "fresh")}
        loaded = subprocess.run(
            [sys.executable, "-c", LOAD, REPO], env=fresh, capture_output=True, text=True, check=True
        )
        assert loaded.stdout.split() == ["134515008", "2"]
        assert str(tmp_path) not in card.content
        assert os.environ.get("HOME", "/root") not in card.content
