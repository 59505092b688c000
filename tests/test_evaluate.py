"""The evaluation script on a model of random weights: real lighteval, real generation, real sandbox."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_model import write_tiny_model

import hfagent
from hfagent.agent.errors import UsageError
from hfagent.agent.records import BenchmarkRef, Score
from hfagent.agent.sequential import streaming_order
from hfagent.job_templates.futility import FutilityWatch, parse_reference
from hfagent.job_templates.harness import HARNESS_FILES
from hfagent.tools.benchmarks import problems

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
def test_an_evaluation_ends_once_it_can_no_longer_reach_its_goal(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model")
    args = ("--n", "120", "--batch-size", "55", "--max-new-tokens", "4", "--output-dir")
    full = result(run(tmp_path, *args, str(tmp_path / "a"), "--reference", "0" * 120))
    assert (full["n"], full["planned_n"], full["futility"]) == (120, None, None)

    done = run(tmp_path, *args, str(tmp_path / "b"), "--reference", "1" * 119 + ".")
    ended = result(done)
    assert "ended after" in done.stdout
    score = Score.model_validate({name: ended[name] for name in Score.model_fields if name in ended})
    asked = [problem.id for problem in problems(BenchmarkRef(name="procedural_python", set="search", n=120))]
    first = set(streaming_order(asked, 0)[:55])
    assert list(score.outcomes) == [name for name in asked if name in first]
    assert (score.n, score.planned_n, score.complete) == (55, 120, False)
    assert score.futility is not None
    assert (score.futility["total"], score.futility["losses"]) == (119, len(first - {asked[-1]}))
    # what was answered is what it would have been: with a reference or without, the batches are the same
    assert ended["harness"] == full["harness"]
    assert score.outcomes == {name: full["outcomes"][name] for name in score.outcomes}
    whole = {detail["id"]: detail["completion"] for detail in read_details(tmp_path / "a")}
    assert {d["id"]: d["completion"] for d in read_details(tmp_path / "b")} == {name: whole[name] for name in first}


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
        (("--output-dir", "x", "--n", "4", "--reference", "010"), "3 characters for 4 problems"),
        (("--output-dir", "x", "--n", "4", "--reference", "0120"), "contains '2'"),
        (("--output-dir", "x", "--n", "4", "--lead", "3"), "--lead 3 is not a difference of scores"),
        (("--output-dir", "x", "--n", "4", "--alpha", "0.5"), "--alpha 0.5 is not a useful error rate"),
    ],
)
def test_arguments_that_cannot_be_used_end_with_one_line(tmp_path: Path, args: tuple[str, ...], message: str) -> None:
    done = run(tmp_path, *args)
    assert done.returncode != 0
    assert message in done.stderr.splitlines()[-1]
    assert "RESULT" not in done.stdout
    assert not (tmp_path / "x").exists()


def test_a_reference_is_read_as_fractions() -> None:
    ids = ["a", "b", "c", "d"]
    assert parse_reference("0a.4", ids, num_samples=10) == {"a": 0.0, "b": 1.0, "d": 0.4}
    with pytest.raises(UsageError, match="up to 35 samples"):
        parse_reference("0000", ids, num_samples=36)


def test_only_problems_that_the_reference_knows_are_weighed() -> None:
    ids = [str(number) for number in range(200)]
    watch = FutilityWatch(parse_reference("1" * 100 + "." * 100, ids, num_samples=1), "any_gain", lead=0.0, alpha=0.05)
    assert not watch.futile(dict.fromkeys(ids[100:], 0.0))
    assert not watch.futile(dict.fromkeys(ids[:60], 1.0))
    assert watch.futile(dict.fromkeys([*ids[:60], *ids[100:]], 0.0))
    assert watch.found is not None
    assert (watch.found.done, watch.found.total, watch.found.losses) == (60, 100, 60)


def test_the_harness_covers_whatever_judges_an_answer() -> None:
    root = Path(hfagent.__file__).parent
    left, seen = ["tools/judging.py"], set[str]()
    while left:
        name = left.pop()
        seen.add(name)
        imported = re.findall(r"^ *from hfagent\.tools(?:\.(\w+))? import ([\w, ]+)", (root / name).read_text(), re.M)
        names = [part for module, parts in imported for part in ([module] if module else parts.split(", "))]
        left += [f"tools/{name}.py" for name in names if f"tools/{name}.py" not in seen]
    assert {"tools/number_answer.py", "tools/sandbox.py"} <= seen <= set(HARNESS_FILES)
