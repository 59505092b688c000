"""The evaluation script on a model of random weights: real lighteval, real generation, real sandbox."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_model import write_tiny_model

from hfagent.agent.records import Score

SCRIPT = [sys.executable, "-m", "hfagent.job_templates.evaluate"]


def run(folder: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    command = [*SCRIPT, "--model", str(folder / "model"), "--benchmark", "procedural_python", "--set", "search", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def result(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    return found


def read_details(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "details.jsonl").read_text().splitlines()]


def answers(folder: Path) -> list[str]:
    return [detail["completion"] for detail in read_details(folder)]


@pytest.mark.slow
def test_an_evaluation_closes_with_a_score_and_keeps_every_answer(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model")
    args = ("--n", "4", "--batch-size", "3", "--max-new-tokens", "8")
    first = result(run(tmp_path, *args, "--output-dir", str(tmp_path / "a")))
    score = Score.model_validate({name: first[name] for name in Score.model_fields if name in first})
    assert (score.metric, score.n, score.value) == ("pass@1", 4, sum(score.outcomes.values()) / 4)
    assert len(score.outcomes) == 4
    assert score.sandbox != ""
    details = read_details(tmp_path / "a")
    assert {detail["id"] for detail in details} == set(score.outcomes)
    assert all(detail["program"] and detail["kind"] for detail in details)

    again = result(run(tmp_path, *args, "--output-dir", str(tmp_path / "b")))
    assert (again["harness"], again["outcomes"]) == (first["harness"], first["outcomes"])
    assert not (tmp_path / "model" / "cache").exists()
    assert sorted(path.suffix for path in (tmp_path / "model").iterdir() if path.is_dir()) == []

    other = result(
        run(tmp_path, "--n", "4", "--batch-size", "2", "--max-new-tokens", "8", "--output-dir", str(tmp_path / "c"))
    )
    assert other["harness"] != first["harness"]


@pytest.mark.slow
def test_an_adapter_changes_the_answers_and_not_the_harness(tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    write_tiny_model(tmp_path / "model")
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    adapted = get_peft_model(base, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")

    args = ("--n", "2", "--max-new-tokens", "8", "--output-dir")
    plain = result(run(tmp_path, *args, str(tmp_path / "a")))
    trained = result(run(tmp_path, *args, str(tmp_path / "b"), "--adapter", str(tmp_path / "adapter")))
    assert trained["harness"] == plain["harness"]
    assert answers(tmp_path / "a") != answers(tmp_path / "b")


@pytest.mark.slow
def test_sigterm_ends_an_evaluation_within_seconds_and_without_a_score(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model")
    args = ("--model", str(tmp_path / "model"), "--benchmark", "procedural_python", "--set", "search", "--n", "200")
    command = [*SCRIPT, *args, "--max-new-tokens", "4000", "--output-dir", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("model loaded"):
            break
    time.sleep(1)  # into the generation
    process.terminate()
    said += process.stdout
    assert process.wait(timeout=20) == 143
    assert not any(line.startswith("RESULT") for line in said)
    assert not (tmp_path / "out" / "details.jsonl").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--n", "4", "--num-samples", "3", "--output-dir", "x"), "needs a --temperature above 0"),
        (("--output-dir", "x", "--n", "2"), "model"),
    ],
)
def test_arguments_that_cannot_be_used_end_with_one_line(tmp_path: Path, args: tuple[str, ...], message: str) -> None:
    done = run(tmp_path, *args)
    assert done.returncode != 0
    assert message in done.stderr.splitlines()[-1]
    assert "RESULT" not in done.stdout
    assert not (tmp_path / "x").exists()
