"""Training data that a model makes: which answers become rows, and the job as a whole on a tiny model."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tiny_model import write_tiny_model
from tiny_runs import run_all, write_jsonl

from hfagent.agent.errors import UsageError
from hfagent.agent.records import DatasetRef
from hfagent.job_templates import make_data
from hfagent.tools.dataset_check import check_rows
from hfagent.tools.dataset_read import load_rows
from hfagent.tools.dataset_store import LocalDatasetStore
from hfagent.tools.procedural_python import Split, tasks
from hfagent.tools.rewards import load
from hfagent.tools.sampled_data import Asked, Sample, labelled, pairs, passing, prompts
from hfagent.tools.script_command import requirements

PROMPT = [{"role": "user", "content": "q"}]


def asked(*samples: tuple[str, float], solution: str | None = None, prompt: Any = PROMPT) -> Asked:
    row = {"prompt": prompt, "solution": solution}
    return Asked(row, tuple(Sample(text, worth, worth >= 1) for text, worth in samples))


def turn(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_the_best_answer_stands_against_the_worst() -> None:
    made = pairs([asked(("a", 0.0), ("b", 1.0), ("c", 1.0), ("d", 0.5))], solutions=True)
    assert made.rows == [{"prompt": PROMPT, "chosen": turn("b"), "rejected": turn("a")}]


def test_prompts_whose_answers_are_worth_the_same_are_left_out_and_counted() -> None:
    made = pairs([asked(("a", 1.0), ("b", 1.0)), asked(("a", 0.0), ("a", 0.0)), asked(("", 0.0))], solutions=True)
    assert (made.rows, made.equal) == ([], 3)


def test_the_datasets_own_solution_is_chosen_where_no_answer_passed() -> None:
    rows = [asked(("a", 0.0), ("b", 0.5), solution="s")]
    made = pairs(rows, solutions=True)
    assert (made.rows[0]["chosen"], made.rows[0]["rejected"], made.from_solutions) == (turn("s"), turn("a"), 1)
    without = pairs(rows, solutions=False)
    assert (without.rows[0]["chosen"], without.from_solutions) == (turn("b"), 0)


def test_every_distinct_answer_gets_its_label() -> None:
    made = labelled([asked(("a", 1.0), ("a", 1.0), ("b", 0.0), solution="s"), asked(("c", 0.0))], solutions=True)
    assert [(row["completion"], row["label"]) for row in made.rows] == [
        (turn("a"), True),
        (turn("b"), False),
        (turn("c"), False),
    ]
    own = labelled([asked(("c", 0.0), solution="s")], solutions=True)
    assert ([row["label"] for row in own.rows], own.from_solutions) == ([False, True], 1)


def test_one_label_only_is_nothing_to_train_on() -> None:
    assert labelled([asked(("a", 0.0)), asked(("b", 0.0))], solutions=True).rows == []


def test_the_shortest_passing_answer_is_kept_once() -> None:
    found = [asked(("long", 1.0), ("ok", 1.0), ("x", 0.0)), asked(("ok", 1.0)), asked(("x", 0.0), solution="s")]
    made = passing(found, solutions=True)
    assert made.rows == [{"prompt": PROMPT, "completion": turn("ok")}]


def test_texts_stay_texts() -> None:
    made = pairs([asked(("a", 0.0), ("b", 1.0), prompt="q")], solutions=True)
    assert made.rows == [{"prompt": "q", "chosen": "b", "rejected": "a"}]


def test_grpo_gets_the_prompts_with_what_judges_them() -> None:
    assert prompts([asked(solution="s")], solutions=True).rows == [{"prompt": PROMPT, "solution": "s"}]


def test_answers_are_judged_by_the_weights_and_pass_with_all_of_them() -> None:
    rows = [{"prompt": PROMPT, "answer": "4"}, {"prompt": PROMPT, "answer": "5"}]
    found = make_data.judge(load("number_equal,format:0.5"), rows, [["4", "```\n4\n```"], ["6"]])
    verdicts = [[(sample.worth, sample.passed) for sample in one.samples] for one in found]
    assert verdicts == [[(1.0, False), (1.5, True)], [(0.0, False)]]


def test_an_answer_of_fair_length_passes_also_where_length_is_judged() -> None:
    rows = [{"prompt": PROMPT, "answer": "4"}]
    [found] = make_data.judge(load("number_equal,length:0.5", max_tokens=8), rows, [["4", "x " * 7 + "4", "5"]])
    assert [sample.passed for sample in found.samples] == [True, False, False]


def test_rewards_of_ones_own_need_to_know_from_where_an_answer_passes(tmp_path: Path) -> None:
    rows = [{"prompt": PROMPT, "answer": "1"}]
    own = ["--reward-funcs", "tests.tiny_rewards:holds_w1:10"]
    with pytest.raises(UsageError, match="give --pass-at"):
        make_data.load_rewards(make_data.parse_args(arguments(tmp_path, "--method", "sft", *own)), rows)
    args = make_data.parse_args(arguments(tmp_path, "--method", "sft", *own, "--pass-at", "5"))
    [found] = make_data.judge(make_data.load_rewards(args, rows), rows, [["w1", "w2"]], pass_at=args.pass_at)
    assert [(sample.worth, sample.passed) for sample in found.samples] == [(10.0, True), (0.0, False)]


@pytest.mark.parametrize("method", ["dpo", "kto", "grpo", "reward", "sft"])
def test_the_embedded_dataset_has_rows_for_every_method(method: Any, tmp_path: Path) -> None:
    ref = DatasetRef(id="embedded:procedural-python", config=None if method == "sft" else method)
    path = LocalDatasetStore(tmp_path).prepare(ref, rows=30, seed=0)
    data = load_rows(DatasetRef(id=path), limit=None)
    report = check_rows(path, data.rows, columns=data.columns, total_rows=30, chat_template=True)
    assert report.methods[method].verdict == "READY"
    asked_for = [row["prompt"][0]["content"] for row in data.rows]
    assert asked_for == [task.prompt for task in tasks("train", 30, 0)]


def test_embedded_prompts_share_no_composition_with_those_that_are_scored() -> None:
    named = ["--model", "m", "--prompts", "embedded:procedural-python", "--n", "60", "--output-dir", "o"]
    args = make_data.parse_args([*named, "--method", "grpo"])
    asked_for = {row["prompt"][0]["content"] for row in make_data.read_prompts(args)}
    splits: tuple[Split, ...] = ("train", "search", "confirm")
    drawn = {split: {task.prompt for task in tasks(split, 60, 0)} for split in splits}
    assert asked_for <= drawn["train"]
    assert not asked_for & (drawn["search"] | drawn["confirm"])


def test_prompts_of_a_package_ask_for_it() -> None:
    needed = requirements(Path(make_data.__file__), ["--prompts", "embedded:reasoning-gym"])
    assert any(one.startswith("reasoning-gym") for one in needed)
    assert not any(one.startswith("reasoning-gym") for one in requirements(Path(make_data.__file__)))


def arguments(folder: Path, *flags: str) -> list[str]:
    found = ["--model", str(folder / "model"), "--prompts", str(folder / "prompts.jsonl"), "--n", "6"]
    return [*found, "--max-new-tokens", "6", "--output-dir", str(folder / "out"), *flags]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--temperature", "0"], "would give equal answers"),
        (["--n", "0"], "argument --n: 0 is less than 1"),
        (["--mapping", "{"], "argument --mapping: '{'"),
        (["--method", "ppo"], "invalid choice"),
    ],
)
def test_a_wrong_flag_ends_with_2(flags: list[str], said: str, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        make_data.parse_args(arguments(tmp_path, "--method", "dpo", *flags))
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"question": "q"}], "has no column 'prompt': give a --mapping"),
        ([{"prompt": "q", "answer": "1"}, {"prompt": " ", "answer": "1"}], "1 of 2 rows cannot be asked, the first is"),
        ([{"prompt": "q"}], "nothing to judge answers by"),
        ([{"prompt": "q", "answer": "1"}, {"prompt": "q", "answer": "?"}], "cannot judge answers to 1 of 2 rows"),
        ([{"prompt": "q", "answer": "1"}], "the model folder .* does not exist"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_a_model_is_loaded(
    rows: list[dict[str, Any]], said: str, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "prompts.jsonl", rows)
    with pytest.raises(UsageError, match=said):
        make_data.make(make_data.parse_args(arguments(tmp_path, "--method", "dpo")))


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model")
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "q", "answer": "1"}])
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "other/llama"}')
    args = make_data.parse_args(arguments(tmp_path, "--method", "dpo", "--adapter", str(adapter)))
    with pytest.raises(UsageError, match="was trained on 'other/llama', not on"):
        make_data.make(args)


def test_a_model_makes_data_that_trains_and_says_how(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model")
    rows = [
        {"prompt": [{"role": "user", "content": f"w{i} w{i + 1}"}], "answer": str(i), "solution": f"it is {i}"}
        for i in range(9)
    ]
    write_jsonl(tmp_path / "prompts.jsonl", rows)
    sampled = ["--num-samples", "3", "--temperature", "1.0", "--reward-funcs", "tests.tiny_rewards:holds_w1"]
    sampled += ["--pass-at", "1"]
    jobs = {method: ["--method", method, "--output-dir", str(tmp_path / method)] for method in ("dpo", "kto", "grpo")}
    jobs |= {"again": ["--method", "dpo", "--output-dir", str(tmp_path / "again")]}
    jobs |= {"fails": ["--method", "dpo", "--reward-funcs", "tests.tiny_rewards:fails_late", "--output-dir"]}
    jobs["fails"].append(str(tmp_path / "fails"))
    jobs |= {"none": ["--method", "sft", "--reward-funcs", "format", "--output-dir", str(tmp_path / "none")]}
    commands = [("make_data", arguments(tmp_path, *sampled, *flags)) for flags in jobs.values()]
    *runs, last = run_all(tmp_path, commands)
    found = dict(zip(jobs, runs, strict=True))
    assert [run["code"] for run in runs] == [0, 0, 0, 0, 2, 2]
    kept = [json.loads(line) for line in (tmp_path / "fails" / "answers.jsonl").read_text().splitlines()]
    assert [len(row["answers"]) for row in kept] == [3] * 6
    assert "nothing is left to train sft on: 0 of 18 answers to 6 prompts passed" in last["stderr"]

    result = found["dpo"]["result"]
    assert (result["method"], result["prompts"], result["samples"]) == ("dpo", 6, 18)
    assert result["rows"] + result["equal"] == 6
    assert found["again"]["result"]["sha256"] == result["sha256"]
    text = (Path(result["dataset"]) / "train.jsonl").read_bytes()
    assert hashlib.sha256(text).hexdigest() == result["sha256"]
    recipe = json.loads(Path(result["recipe"]).read_text())
    assert recipe["made_by"]["num_samples"] == 3
    assert recipe["made_by"]["reward_funcs"] == {"tests.tiny_rewards:holds_w1": 1.0}
    for method in ("dpo", "kto"):
        data = load_rows(DatasetRef(id=found[method]["result"]["dataset"]), limit=None)
        report = check_rows(method, data.rows, columns=data.columns, total_rows=len(data.rows), chat_template=True)
        assert report.methods[method].verdict == "READY"  # type: ignore[index]
    asked_only = load_rows(DatasetRef(id=found["grpo"]["result"]["dataset"]), limit=None).rows
    assert asked_only == rows[:6]
