"""A merged model and its files are pushed by the genuine client, here to an emulated Hub."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import HfApi, ModelCard
from safetensors.numpy import save_file
from tests.emulator.server import Emulator

CARD = "---\nlicense: mit\ntags:\n- hfagent\n---\n# tuned\n"


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(tmp_path / "hub") as running:
        yield running


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """What an export leaves."""
    merged = tmp_path / "out" / "merged"
    merged.mkdir(parents=True)
    (merged / "config.json").write_text("{}")
    save_file({"w": np.ones(3, dtype=np.float32)}, merged / "model.safetensors")
    for name in ("m-Q8_0.gguf", "m-Q4_K_M.gguf"):
        (tmp_path / "out" / name).write_bytes(name.encode() * 100)
    (tmp_path / "card.md").write_text(CARD)
    return tmp_path


def publish(emulator: Emulator, made: Path, *args: str) -> tuple[int, dict[str, Any], str]:
    token = emulator.hub.add_user("ada")
    command = [sys.executable, "-m", "hfagent.job_templates.publish", "--model", str(made / "out" / "merged")]
    command += ["--push", "ada/tuned", "--card", str(made / "card.md"), "--output-dir", str(made / "job"), *args]
    done = subprocess.run(
        command, env=emulator.env(token), cwd=made, capture_output=True, text=True, timeout=60, check=False
    )
    last = (done.stdout.splitlines() or [""])[-1]
    return done.returncode, json.loads(last.removeprefix("RESULT ")) if last else {}, done.stderr


def test_the_model_and_only_the_named_files_arrive(emulator: Emulator, made: Path) -> None:
    asked = ("--gguf", str(made / "out" / "m-Q8_0.gguf"), "--gguf-card", str(made / "card.md"))
    code, result, error = publish(emulator, made, *asked)
    assert (code, list(result["pushed"])) == (0, ["ada/tuned", "ada/tuned-GGUF"]), error
    assert result["pushed"]["ada/tuned"]["private"]
    api = HfApi(endpoint=emulator.endpoint, token=emulator.hub.add_user("ada"))
    assert {"config.json", "model.safetensors", "README.md"} <= set(api.list_repo_files("ada/tuned"))
    files = set(api.list_repo_files("ada/tuned-GGUF"))
    assert {"m-Q8_0.gguf", "README.md"} <= files
    assert "m-Q4_K_M.gguf" not in files
    card = api.hf_hub_download("ada/tuned", "README.md", local_dir=made / "down")
    assert ModelCard(Path(card).read_text()).data.tags == ["hfagent"]
    again = publish(emulator, made, *asked)
    assert again[0] == 0
    assert again[1]["pushed"]["ada/tuned"]["revision"] == result["pushed"]["ada/tuned"]["revision"]


def test_a_file_that_is_gone_is_told_before_anything_is_pushed(emulator: Emulator, made: Path) -> None:
    code, _, error = publish(emulator, made, "--gguf", str(made / "none.gguf"), "--gguf-card", str(made / "card.md"))
    assert code == 2
    assert "none.gguf' is not there: export the model again" in error
    assert not HfApi(endpoint=emulator.endpoint, token=emulator.hub.add_user("ada")).repo_exists("ada/tuned")


def test_a_model_that_arrived_is_told_where_its_files_do_not(emulator: Emulator, made: Path) -> None:
    emulator.faults.plan(path="tuned-GGUF/(preupload|commit)", status=403, times=99)
    asked = ("--gguf", str(made / "out" / "m-Q8_0.gguf"), "--gguf-card", str(made / "card.md"))
    code, result, error = publish(emulator, made, *asked)
    assert code == 1
    assert "'ada/tuned-GGUF' could not be pushed" in error
    assert list(result["pushed"]) == ["ada/tuned"]
