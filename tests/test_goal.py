"""Goals as people write them: what is read, and what is refused."""

import pytest

from hfagent.agent.errors import UsageError
from hfagent.agent.goal import GoalHints, parse_goal

BULLETS = """Start a new fine-tuning experiment to improve code solving abilities using SFT.
- Maintain a report for the experiment in training_reports/my-report.md
- Evaluate models with the openai_humaneval benchmark
- Use the open-r1/codeforces-cots dataset"""


@pytest.mark.parametrize(
    ("goal", "hints"),
    [
        ("improve code solving with SFT", {"stages": ("sft",), "task_area": "code"}),
        (
            BULLETS,
            {
                "stages": ("sft",),
                "task_area": "code",
                "dataset": "open-r1/codeforces-cots",
                "benchmark": "openai_humaneval",
            },
        ),
        (
            "Fine-tune Qwen3-0.6B on the dataset open-r1/codeforces-cots",
            {"task_area": "code", "model": "Qwen/Qwen3-0.6B", "dataset": "open-r1/codeforces-cots"},
        ),
        ("Do a quick test run on 100 examples.", {"max_rows": 100}),
        (
            "SFT Qwen/Qwen2.5-0.5B on trl-lib/Capybara",
            {
                "stages": ("sft",),
                "task_area": "instruction-following",
                "model": "Qwen/Qwen2.5-0.5B",
                "dataset": "trl-lib/Capybara",
            },
        ),
        ("improve math with DPO", {"stages": ("dpo",), "task_area": "math"}),
        ("improve math using GRPO", {"stages": ("grpo",), "task_area": "math"}),
        ("raise the score on gsm8k", {"task_area": "math", "benchmark": "gsm8k"}),
        ("train on the gsm8k dataset", {"task_area": "math", "dataset": "openai/gsm8k"}),
        ("make it better at instruction following", {"task_area": "instruction-following"}),
    ],
)
def test_what_a_goal_says_is_read_and_nothing_else(goal, hints):
    assert parse_goal(goal) == GoalHints(**hints)


@pytest.mark.parametrize(
    ("goal", "model", "dataset"),
    [
        ("improve code: fine-tune org/foo on org/bar", "org/foo", "org/bar"),
        ("the coding ability of org/foo, trained on org/bar", "org/foo", "org/bar"),
        ("use the org/foo model and the dataset org/bar for math", "org/foo", "org/bar"),
        ("SFT on Qwen/Qwen3-0.6B with org/bar, for math", "Qwen/Qwen3-0.6B", "org/bar"),
        ("train the model on openai/gsm8k", None, "openai/gsm8k"),
        ('fine-tune "org/foo" on `org/bar`.', "org/foo", "org/bar"),
        (
            "tune https://huggingface.co/org/foo on https://huggingface.co/datasets/org/bar/viewer?row=1.",
            "org/foo",
            "org/bar",
        ),
        ("fine-tune ./my-model on ./data/train.jsonl.", "./my-model", "./data/train.jsonl"),
        ("SFT with /x/y.parquet", None, "/x/y.parquet"),
        ("math with rows.csv", None, "rows.csv"),
        ("SFT embedded:SmolLM2-135M-Instruct on embedded:tasks", "embedded:SmolLM2-135M-Instruct", "embedded:tasks"),
        ("improve math and/or arithmetic on input/output pairs", None, None),
        ("improve code, push it to me/coder, see https://github.com/org/foo", None, None),
        ("improve math with smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct", None),
        ("improve math with Llama-3.2-1B", "meta-llama/Llama-3.2-1B", None),
        ("improve math with Gemma-3-270M-it", "google/gemma-3-270M-it", None),
        ("improve math, then convert for llama.cpp", None, None),
    ],
)
def test_models_and_datasets_are_told_apart(goal, model, dataset):
    hints = parse_goal(goal)
    assert (hints.model, hints.dataset) == (model, dataset)


@pytest.mark.parametrize(
    ("goal", "stages"),
    [
        ("SFT then DPO for code", ("sft", "dpo")),
        ("first SFT, followed by DPO, and finally GRPO on math", ("sft", "dpo", "grpo")),
        ("code: sft -> dpo", ("sft", "dpo")),
        ("DPO after SFT for code", ("sft", "dpo")),
        ("supervised fine-tuning (SFT) for code", ("sft",)),
        ("train on trl-lib/math-dpo", ()),
    ],
)
def test_stages_keep_their_order(goal, stages):
    assert parse_goal(goal).stages == stages


def test_numbers_are_read_with_their_units():
    hints = parse_goal(
        "math on the first 1,500 training examples for 2.5 epochs, learning rate 2e-4, 10 samples per problem"
    )
    assert (hints.max_rows, hints.num_train_epochs, hints.learning_rate) == (1500, 2.5, 2e-4)
    assert parse_goal("math, 5k rows, one epoch").max_rows == 5000
    assert parse_goal("math, 5k rows, one epoch").num_train_epochs == 1


def test_another_benchmark_is_not_taken_for_a_known_one():
    assert parse_goal("improve code, measured by HumanEval+").benchmark == "humaneval_plus"
    assert parse_goal("improve code, use the my_tasks benchmark").benchmark == "my_tasks"
    assert parse_goal("improve code; evaluate on Human Eval").benchmark == "openai_humaneval"


@pytest.mark.parametrize(
    ("goal", "says"),
    [
        ("", "the goal is empty"),
        (" \n", "the goal is empty"),
        ("make coffee", "the areas are code, math, instruction-following"),
        ("make coffee with SFT", "does not say what to improve"),
        ("fine-tune Qwen/Qwen3-0.6B", "does not say what to improve"),
        ("improve code with SFT and DPO", "several methods: sft, dpo"),
        ("improve math with PPO", "the method 'PPO' is not known"),
        ("improve code on a/b1 and c/d2", "more than one dataset: a/b1, c/d2"),
        ("tune Qwen3-0.6B or Qwen3-1.7B for math", "more than one model: Qwen/Qwen3-0.6B, Qwen/Qwen3-1.7B"),
        ("improve code, evaluate with gsm8k and humaneval", "more than one benchmark: openai_humaneval, gsm8k"),
        ("improve code and math", "more than one task area: code, math"),
        ("math on 100 rows, or 200 rows", "more than one number of rows: 100, 200"),
        ("math on 0 rows", "must be above 0"),
        ("fine-tune Qwen on trl-lib/Capybara", "'Qwen' is not a complete model name"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_the_reason(goal, says):
    with pytest.raises(UsageError) as refused:
        parse_goal(goal)
    assert says in str(refused.value)
