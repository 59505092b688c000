"""DPO, KTO, GRPO, reward models and distillation: one contract for all, held by real trainings of a tiny model."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_model import write_tiny_model
from tiny_runs import ROOT, environment, losses, run_all, write_jsonl

from hfagent.agent.errors import UsageError
from hfagent.agent.jobs import hyperparameter_args
from hfagent.agent.records import TrainConfig
from hfagent.job_templates import train_distillation, train_dpo, train_grpo, train_kto, train_reward
from hfagent.job_templates.trainer_run import Rows, equal_rewards
from hfagent.job_templates.training import read_checkpoint
from hfagent.tools.script_command import header

SCRIPTS = {
    "dpo": train_dpo,
    "kto": train_kto,
    "grpo": train_grpo,
    "reward": train_reward,
    "distillation": train_distillation,
}
METHODS = tuple(SCRIPTS)
OWN = {
    "dpo": {"beta": 0.3},
    "kto": {"beta": 0.2, "desirable_weight": 2.0},
    "grpo": {"num_generations": 4, "max_completion_length": 5, "temperature": 0.7, "reward_funcs": "format:0.5"},
    "reward": {"load_in_4bit": True},
    "distillation": {"beta": 0.5, "max_completion_length": 5, "temperature": 0.7},
}
FIRST_MEASURE = {
    "dpo": "rewards/accuracies",
    "kto": "rewards/margins",
    "grpo": "reward",
    "reward": "accuracy",
    "distillation": "entropy",
}
GRPO = ["--num-generations", "4", "--max-completion-length", "5", "--reward-funcs", "tests.tiny_rewards:holds_w1"]
FURTHER = {"distillation": ["--teacher", "t"]}
"""Arguments that a script does not do without, beside those of all."""


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def rows(method: str, count: int = 60) -> list[dict[str, Any]]:
    found = []
    for i in range(count):
        prompt, good, bad = user(f"w{i % 7} w{i % 11}"), assistant(f"w{i % 11} w1"), assistant(f"w{i % 5} w3 w2")
        if method in ("dpo", "reward"):
            found.append({"prompt": prompt, "chosen": good, "rejected": bad, "unrelated": i})
        elif method == "kto":
            found.append({"prompt": prompt, "completion": good if i % 3 else bad, "label": bool(i % 3)})
        else:
            found.append({"prompt": prompt, "answer": str(i)})
    return found


def command(place: Path, method: str, run: str, *flags: str, data: str | None = None) -> list[str]:
    argv = ["--model", str(place / "model"), "--dataset", str(place / f"{data or method}.jsonl"), "--project", "tiny"]
    argv += ["--output-dir", str(place / run), "--per-device-train-batch-size", "8", "--learning-rate", "0.01"]
    own = {"grpo": GRPO, "distillation": ["--teacher", str(place / "teacher"), "--max-completion-length", "5"]}
    return [*argv, *own.get(method, []), *flags]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("methods")
    write_tiny_model(folder / "model")
    write_tiny_model(folder / "teacher", sharp=4.0, seed=1)
    for name, file, change in (
        ("wider", "config.json", lambda text: text.replace('"vocab_size": 45', '"vocab_size": 46')),
        ("other-words", "tokenizer.json", lambda text: text.replace('"w39"', '"w40"')),
    ):
        shutil.copytree(folder / "teacher", folder / name)
        (folder / name / file).write_text(change((folder / name / file).read_text()))
    for method in METHODS:
        write_jsonl(folder / f"{method}.jsonl", rows(method))
    pair = {"prompt": user("w1"), "chosen": assistant("w2"), "rejected": assistant("w2")}
    write_jsonl(folder / "equal.jsonl", [*rows("dpo", 8), pair])
    write_jsonl(folder / "one-label.jsonl", [row | {"label": False} for row in rows("kto", 8)])
    rare = [row | {"label": index != 1} for index, row in enumerate(rows("kto"))]
    write_jsonl(folder / "rare-label.jsonl", rare)
    long = [{"prompt": user("w1 " * 90), "answer": "1"}] * 7
    write_jsonl(folder / "two-short.jsonl", [*long, *long, *rows("grpo", 2)])
    write_jsonl(folder / "long.jsonl", [*long, *rows("grpo", 1)])
    write_jsonl(folder / "long-prompts.jsonl", [{"prompt": user("w1 " * 90)}] * 9)
    chats = [{"messages": [*user("w1"), *assistant("w2"), *user(f"w{i}"), *assistant("w3")]} for i in range(9)]
    write_jsonl(folder / "chats.jsonl", [*chats, {"messages": assistant("w3")}])
    write_jsonl(folder / "no-prompt.jsonl", [*rows("grpo", 8), {"prompt": user(" "), "answer": "1"}])
    return folder


@pytest.fixture(scope="module")
def runs(place: Path) -> dict[str, list[dict[str, Any]]]:
    """By method a run of 5 steps, one of 10 steps, and the extension of the first to 10 steps."""
    commands = []
    for method in METHODS:
        resumed = ["--resume-from-checkpoint", str(place / f"{method}-short" / "checkpoint-4")]
        commands += [
            (f"train_{method}", command(place, method, f"{method}-short", "--max-steps", "5")),
            (f"train_{method}", command(place, method, f"{method}-long", "--max-steps", "10")),
            (f"train_{method}", command(place, method, f"{method}-extended", "--max-steps", "10", *resumed)),
        ]
    found = run_all(place, commands)
    return {method: found[3 * index : 3 * index + 3] for index, method in enumerate(METHODS)}


@pytest.mark.parametrize("method", METHODS)
def test_every_hyperparameter_comes_back_from_its_flag(method: str) -> None:
    config = TrainConfig.model_validate({"method": method, "max_steps": 7, "seed": 4, **OWN[method]})
    argv = ["--model", "m", "--dataset", "d.jsonl", "--output-dir", "out", *hyperparameter_args(config)]
    argv += FURTHER.get(method, [])
    assert SCRIPTS[method].parse_args(argv).config == config


def test_a_field_of_another_method_ends_with_2_and_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train_reward.parse_args(["--model", "m", "--dataset", "d", "--output-dir", "o", "--beta", "0.1"])
    assert ended.value.code == 2
    assert "argument --beta: '0.1': value error, reward has no beta" in capsys.readouterr().err


@pytest.mark.parametrize("method", METHODS)
def test_the_scripts_name_the_packages_of_sft(method: str) -> None:
    folder = ROOT / "job_templates"
    assert header(folder / f"train_{method}.py") == header(folder / "train_sft.py") != {}


@pytest.mark.parametrize("method", METHODS)
def test_a_run_reports_what_it_did_and_leaves_what_it_says(
    method: str, runs: dict[str, list[dict[str, Any]]], place: Path
) -> None:
    run = runs[method][0]
    assert run["code"] == 0
    result = run["result"]
    held_out = 60 - result["rows"]
    assert (result["steps"], result["eval_rows"], held_out > 0) == (5, held_out, True)
    assert result["checkpoint"] == str(place / f"{method}-short" / "checkpoint-5")
    assert result["stable_checkpoint"] == str(place / f"{method}-short" / "checkpoint-4")
    assert (result["trackio_project"], result["trackio_run"]) == ("tiny", f"{method}-short")
    assert Path(result["adapter"], "tokenizer.json").is_file()
    assert result["base_model"] == result["adapter_base_model"] == str(place / "model")
    assert result["weight_change"] > 0
    assert result["tokens"] > 0
    assert (result["eval_loss"] is None) == (method == "grpo")
    first = FIRST_MEASURE[method]
    assert first in result["measures"]
    assert any(name.startswith("eval_") for name in result["measures"])
    assert any(f" {first} " in line for line in run["lines"])
    launched = TrainConfig.model_validate(result["launched"])
    assert (launched.method, launched.max_steps, launched.learning_rate) == (method, 5, 0.01)
    if method in ("dpo", "kto"):
        assert launched.beta == 0.1


def test_groups_are_watched_for_rewards_that_are_gamed(runs: dict[str, list[dict[str, Any]]]) -> None:
    measures = runs["grpo"][0]["result"]["measures"]
    assert 0 <= measures["frac_reward_zero_std"] <= 1
    assert 0 <= measures["completions/clipped_ratio"] <= 1
    assert 1 <= measures["completions/mean_length"] <= 5


def test_the_rarer_label_of_kto_gets_the_weight_that_balances(runs: dict[str, list[dict[str, Any]]]) -> None:
    launched = runs["kto"][0]["result"]["launched"]
    assert launched["desirable_weight"] == 1.0
    assert launched["undesirable_weight"] == pytest.approx(2.0, rel=0.15)


def test_all_methods_but_one_with_a_fresh_head_see_the_same_base(runs: dict[str, list[dict[str, Any]]]) -> None:
    prints = {method: {run["result"]["base_fingerprint"] for run in found} for method, found in runs.items()}
    assert all(len(found) == 1 for found in prints.values())
    assert prints["dpo"] == prints["kto"] == prints["grpo"] == prints["distillation"]


@pytest.mark.parametrize("method", METHODS)
def test_an_extension_goes_as_a_run_that_was_long_from_the_start(
    method: str, runs: dict[str, list[dict[str, Any]]]
) -> None:
    short, long, extended = (losses(run) for run in runs[method])
    assert list(extended) == list(range(5, 11))
    assert runs[method][2]["result"]["stable_checkpoint"].endswith("extended/checkpoint-8")
    joined = short | extended
    for column, tolerance in ((0, 0.02), (1, 1e-6)):
        expected = [long[step][column] for step in range(1, 11)]
        assert [joined[step][column] for step in range(1, 11)] == pytest.approx(expected, abs=tolerance)
    assert runs[method][2]["result"]["tokens"] < runs[method][1]["result"]["tokens"]


def test_each_method_moves_its_own_measure(place: Path) -> None:
    sharp = ["--model", str(write_tiny_model(place / "sharp", sharp=15.0)), "--eval-fraction", "0", "--max-steps", "12"]
    sharp += ["--per-device-train-batch-size", "16"]
    found = run_all(place, [(f"train_{method}", command(place, method, f"{method}-s", *sharp)) for method in METHODS])
    measures = [run["result"]["measures"] for run in found[: len(METHODS)]]
    by_method = dict(zip(METHODS, measures, strict=True))
    assert by_method["dpo"]["rewards/accuracies"] > 0.9
    assert by_method["kto"]["rewards/margins"] > 0.1
    assert by_method["grpo"]["reward"] > 0.7  # an untrained model writes the word in one answer of five
    assert by_method["reward"]["accuracy"] > 0.9
    distances = [loss for loss, _ in losses(found[METHODS.index("distillation")]).values()]
    assert sum(distances[-3:]) < 0.8 * sum(distances[:3])


@pytest.fixture(scope="module")
def refused(place: Path) -> dict[str, Any]:
    """Exit codes by name, and all of stderr, of what cannot be trained."""
    no_room = ["--max-length", "60", "--eval-fraction", "0"]
    commands = {
        "equal pairs": ("train_dpo", command(place, "dpo", "e1", data="equal")),
        "equal pairs of a reward model": ("train_reward", command(place, "reward", "e2", data="equal")),
        "one label": ("train_kto", command(place, "kto", "e3", data="one-label")),
        "empty prompt": ("train_grpo", command(place, "grpo", "e4", data="no-prompt")),
        "batch of one": ("train_kto", command(place, "kto", "e5", "--per-device-train-batch-size", "1")),
        "no groups": ("train_grpo", command(place, "grpo", "e6", "--num-generations", "3")),
        "nan": ("train_grpo", command(place, "grpo", "e7", "--reward-funcs", "tests.tiny_rewards:no_number")),
        "raising": ("train_grpo", command(place, "grpo", "e8", "--reward-funcs", "tests.tiny_rewards:raising")),
        "short": ("train_grpo", command(place, "grpo", "e9", "--reward-funcs", "tests.tiny_rewards:short")),
        "columns": ("train_grpo", command(place, "grpo", "e10", "--reward-funcs", "tests_pass")),
        "few rows": ("train_grpo", command(place, "grpo", "e11", "--max-rows", "1")),
        "no room": ("train_grpo", command(place, "grpo", "e13", *no_room, data="long")),
        "no teacher": ("train_distillation", command(place, "distillation", "t1", "--teacher", str(place / "none"))),
        "own weights": ("train_distillation", command(place, "distillation", "t2", "--teacher", str(place / "model"))),
        "vocabulary": ("train_distillation", command(place, "distillation", "t3", "--teacher", str(place / "wider"))),
        "words": ("train_distillation", command(place, "distillation", "t4", "--teacher", str(place / "other-words"))),
        "few prompts": ("train_distillation", command(place, "distillation", "t5", "--max-rows", "7")),
        "long prompts": ("train_distillation", command(place, "distillation", "t6", *no_room, data="long-prompts")),
        "divergence": ("train_distillation", command(place, "distillation", "t8", "--beta", "1.5")),
        "4 bit": ("train_dpo", command(place, "dpo", "e12", "--load-in-4bit", "true")),
    }
    found = run_all(place, list(commands.values()))
    codes = {name: (run["code"], run["result"]) for name, run in zip(commands, found, strict=False)}
    return {"codes": codes, "stderr": found[-1]["stderr"]}


def test_what_cannot_be_trained_on_ends_with_2_and_the_reason(refused: dict[str, Any], place: Path) -> None:
    import torch

    codes = dict(refused["codes"])
    if torch.cuda.is_available():
        del codes["4 bit"]
    assert codes.pop("no teacher") == (1, None)
    assert set(codes.values()) == {(2, None)}
    for said in (
        "1 of 9 rows cannot be trained on, the first is row 8: chosen and rejected are the same",
        "labels are False: KTO learns from the difference",
        "1 of 9 rows cannot be trained on, the first is row 8: prompt is empty",
        "--per-device-train-batch-size 1 is too small for KTO",
        "a step has 8 completions (--per-device-train-batch-size times --gradient-accumulation-steps), which are no",
        "the reward 'tests.tiny_rewards:no_number' gave nan for completion 0: it must be a finite number",
        "the reward 'tests.tiny_rewards:raising' failed: KeyError: 'gone'",
        "the reward 'tests.tiny_rewards:short' gave 0 numbers for 1 completions",
        "the reward 'tests_pass' needs the columns tests, entry_point; the rows have 'prompt', 'answer'",
        "1 rows are fewer than the 2 prompts of a step",
        f"cannot load model '{place / 'none'}'",
        f"the teacher '{place / 'model'}' has the weights of the model itself",
        f"the teacher '{place / 'wider'}' chooses from 46 tokens, the model '{place / 'model'}' from 45",
        f"the teacher '{place / 'other-words'}' has another tokenizer than the model",
        "e.g. for 'w39'",
        "6 rows are fewer than the 8 of a step",
        "--max-length 60 leaves 0 rows whose completions have room, fewer than the 8 of a step",
        "beta must be in [0.0, 1.0], got 1.5",
        "--max-length 60 leaves 1 rows whose completions have room, fewer than the 2 prompts of a step",
    ):
        assert said in refused["stderr"]


def test_a_smoke_run_passes_where_the_training_would(place: Path) -> None:
    equal = ["--reward-funcs", "format"]  # few steps of a weak model may have no answer that is worth more
    few = ["--max-length", "60"]  # two of the rows that it sees have room for an answer
    many = ["--num-generations", "2", "--per-device-train-batch-size", "40", "--smoke"]
    found = run_all(
        place,
        [
            ("train_kto", command(place, "kto", "smoke-kto", "--smoke", data="rare-label")),
            ("train_grpo", command(place, "grpo", "smoke-grpo", *many)),
            ("train_grpo", command(place, "grpo", "smoke-equal", *equal, "--smoke")),
            ("train_grpo", command(place, "grpo", "equal", *equal, "--max-steps", "3")),
            ("train_distillation", command(place, "distillation", "smoke-long", *few, "--smoke", data="two-short")),
        ],
    )
    assert [run["code"] for run in found[:5]] == [0, 0, 0, 1, 0], found[-1]["stderr"]
    told = "error: nothing was learned in 3 steps, since all answers to a prompt had the same reward (format 0): the ad"
    assert told in found[-1]["stderr"]
    assert [run["result"]["steps"] for run in found[:3]] == [3, 3, 3]
    assert found[0]["result"]["rows"] == 16  # all of one label
    assert found[1]["result"]["rows"] >= 20  # the prompts of a step


def test_rewards_that_never_differ_within_a_group_are_told_with_their_values() -> None:
    def log(share: float, **means: float) -> dict[str, float]:
        # Those of two groups may differ, which teaches nothing either.
        logged = {f"rewards/{name}/mean": mean for name, mean in means.items()}
        return {"reward_std": 0.2, "frac_reward_zero_std": share, "rewards/format/std": 0.2, **logged}

    assert equal_rewards([log(1.0, format=0.5, tests_pass=0.0), log(1.0, format=0.25, tests_pass=0.0), {"a": 1}]) == (
        "format 0.25 to 0.5, tests_pass 0"
    )
    assert equal_rewards([log(1.0, format=0.5), log(0.75, format=0.5)]) is None
    assert equal_rewards([{"loss": 0.3}]) is None


@pytest.mark.parametrize("implicit", [False, True], ids=["with a prompt", "with a shared beginning"])
def test_kto_takes_pairs_as_good_and_bad_answers_in_turn(implicit: bool, tmp_path: Path) -> None:
    pairs = rows("dpo", 40)
    if implicit:
        pairs = [{name: row["prompt"] + row[name] for name in ("chosen", "rejected")} for row in pairs]
    args = train_kto.parse_args(["--model", "m", "--dataset", "d", "--output-dir", str(tmp_path)])
    found = train_kto.TECHNIQUE.check(args, Rows(pairs, pairs[:2]))
    assert (len(found.train), len(found.held_out)) == (80, 4)
    labels = [row["label"] for row in found.train]
    assert sum(labels) == 40
    assert all(0 < sum(labels[begin : begin + 16]) < 16 for begin in range(0, 80, 16))
    good = [row["completion"][0]["content"] for row in found.train if row["label"]]
    assert sorted(good) == sorted(row["chosen"][-1]["content"] for row in pairs)
    assert all(row["prompt"][0]["role"] == "user" for row in found.train)


def test_the_prompt_of_a_chat_is_all_before_its_last_answer(place: Path) -> None:
    found = run_all(place, [("train_distillation", command(place, "distillation", "chats", "--smoke", data="chats"))])
    assert (found[0]["code"], found[0]["result"]["rows"]) == (0, 9)
    assert "1 of 10 chats left out, since they begin with their only answer" in found[0]["lines"]
    chat = [*user("a"), *assistant("b"), *user("c"), *assistant("d")]
    args = train_distillation.parse_args(command(place, "distillation", "c", "--per-device-train-batch-size", "1"))
    checked = train_distillation.TECHNIQUE.check(args, Rows([{"messages": chat}], []))
    assert checked.train == [{"prompt": chat[:3]}]


def test_a_result_names_the_teacher(runs: dict[str, list[dict[str, Any]]], place: Path) -> None:
    assert runs["distillation"][0]["result"]["teacher"] == str(place / "teacher")
    assert "teacher" not in runs["dpo"][0]["result"]


def test_distillation_without_a_teacher_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train_distillation.parse_args(["--model", "m", "--dataset", "d", "--output-dir", "o"])
    assert ended.value.code == 2
    assert "the following arguments are required: --teacher" in capsys.readouterr().err


def test_grpo_without_a_reward_names_those_there_are(tmp_path: Path) -> None:
    args = train_grpo.parse_args(["--model", "m", "--dataset", "d", "--output-dir", str(tmp_path)])
    with pytest.raises(UsageError, match="grpo needs --reward-funcs: tests_pass, syntax"):
        train_grpo.TECHNIQUE.check(args, Rows([{"prompt": "p"}] * 8, []))


@pytest.mark.parametrize("method", ["dpo", "grpo"])
def test_sigterm_leaves_a_checkpoint(method: str, place: Path) -> None:
    flags = command(place, method, f"{method}-stopped", "--max-steps", "5000")
    argv = [sys.executable, str(SCRIPTS[method].__file__), *flags]
    with subprocess.Popen(argv, env=environment(place), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("step 3/"):
                process.send_signal(signal.SIGTERM)
                started = time.monotonic()
        code = process.wait(timeout=60)
    assert code == 143
    assert time.monotonic() - started < 20
    [result] = [json.loads(line.removeprefix("RESULT ")) for line in lines if line.startswith("RESULT ")]
    assert read_checkpoint(Path(result["checkpoints"][str(result["steps"])])).step == result["steps"] >= 3
