"""Goals as people write them: what is read, and what is refused."""

import pytest

from hfagent.agent.errors import UsageError
from hfagent.agent.goal import GoalHints, parse_goal
from hfagent.agent.goal_numbers import MAX_LENGTH, GoalNumbers

BULLETS = """Start a new fine-tuning experiment to improve code solving abilities using SFT.
- Maintain a report for the experiment in training_reports/my-report.md
- Evaluate models with the openai_humaneval benchmark
- Use the open-r1/codeforces-cots dataset"""


def read(goal):
    return parse_goal(goal).numbers


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
        ("Do a quick test run on 100 examples.", {"numbers": GoalNumbers(max_rows=100)}),
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
        (
            "distill Qwen/Qwen3-4B into Qwen/Qwen3-0.6B for math",
            {
                "stages": ("distillation",),
                "task_area": "math",
                "model": "Qwen/Qwen3-0.6B",
                "teacher": "Qwen/Qwen3-4B",
            },
        ),
        (
            "improve math with distillation from Qwen3-4B",
            {"stages": ("distillation",), "task_area": "math", "teacher": "Qwen/Qwen3-4B"},
        ),
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
    ("goal", "teacher", "model", "dataset"),
    [
        ("code: distill org/big into org/small", "org/big", "org/small", None),
        ("code: distillation of org/big into the student org/small on org/bar", "org/big", "org/small", "org/bar"),
        ("improve code with distillation from ./nights/merged", "./nights/merged", None, None),
        ("code: distillation from ./big into ./small with ./rows.jsonl", "./big", "./small", "./rows.jsonl"),
        ("math: Qwen3-0.6B with Qwen3-4B as the teacher, by distillation", "Qwen/Qwen3-4B", "Qwen/Qwen3-0.6B", None),
        ("math by distillation with the Qwen3-4B teacher on org/bar", "Qwen/Qwen3-4B", None, "org/bar"),
        ("math by distillation; teacher: `org/big`, model org/small", "org/big", "org/small", None),
        ("SFT on the distilled data org/bar for math", None, None, "org/bar"),
        ("SFT deepseek-ai/R1-Distill-Qwen-1.5B for math", None, "deepseek-ai/R1-Distill-Qwen-1.5B", None),
    ],
)
def test_teacher_and_student_are_told_apart(
    goal: str, teacher: str | None, model: str | None, dataset: str | None
) -> None:
    hints = parse_goal(goal)
    assert (hints.teacher, hints.model, hints.dataset) == (teacher, model, dataset)


@pytest.mark.parametrize(
    ("goal", "stages"),
    [
        ("SFT then DPO for code", ("sft", "dpo")),
        ("first SFT, followed by DPO, and finally GRPO on math", ("sft", "dpo", "grpo")),
        ("code: sft -> dpo", ("sft", "dpo")),
        ("DPO after SFT for code", ("sft", "dpo")),
        ("supervised fine-tuning (SFT) for code", ("sft",)),
        ("train on trl-lib/math-dpo", ()),
        ("SFT then distillation from org/big for code", ("sft", "distillation")),
        ("fine-tune org/R1-Distill on org/math-distill", ()),
    ],
)
def test_stages_keep_their_order(goal, stages):
    assert parse_goal(goal).stages == stages


def test_numbers_are_read_with_their_units():
    hints = read("math on the first 1,500 training examples for 2.5 epochs, learning rate 2e-4, 10 samples per problem")
    assert (hints.max_rows, hints.num_train_epochs, hints.learning_rate) == (1500, 2.5, 2e-4)
    assert read("math, 5k rows, one epoch") == GoalNumbers(max_rows=5000, num_train_epochs=1)


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ("on 1M examples", 1_000_000),
        ("on 1k", 1000),
        ("on the first 2k, please", 2000),
        ("with 10k rows", 10_000),
        ("on 1.5 million records", 1_500_000),
        ("on one thousand rows", 1000),
        ("with a 135M model", None),
        ("with 2k tokens", None),
    ],
)
def test_large_numbers_of_rows(words, rows):
    assert read(f"improve code {words}").max_rows == rows


@pytest.mark.parametrize(
    ("words", "hours"),
    [
        ("overnight but at most 2 hours", 2),
        ("in 20 minutes", 1 / 3),
        ("within 1h30m", 1.5),
        ("for 1 hour and 15 minutes", 1.25),
        ("for half an hour", 0.5),
        ("in an hour", 1),
        ("in two hours", 2),
        ("no more than 3 h", 3),
        ("2 days, at most 48 hours", 48),
        ("and say where it stands every 30 minutes", None),
        ("on the chats of the last 2 days", None),
        ("on 3 hours of audio", None),
        ("once a day", None),
        ("on 1k hard tasks", None),
    ],
)
def test_a_time_is_a_limit_unless_it_is_about_something_else(words, hours):
    found = read(f"improve code {words}").max_hours
    assert found == (None if hours is None else pytest.approx(hours, abs=1e-4))


def test_gpu_hours_are_a_limit_of_their_own():
    found = read("improve code with at most 4.5 GPU-hours in 2 hours")
    assert (found.max_gpu_hours, found.max_hours) == (4.5, 2)


def test_a_night_without_a_number_is_told_from_one_with():
    assert read("improve code overnight").overnight
    assert read("improve code by the morning").overnight
    assert not read("improve code overnight, 3 hours").overnight
    assert not read("improve code").overnight


@pytest.mark.parametrize(
    ("words", "dollars"),
    [
        ("budget 5 dollars", 5),
        ("for under $2.50", 2.5),
        ("with a budget of 20", 20),
        ("USD 7", 7),
        ("at most 12 USD, so $12", 12),
        ("at most $1,500", 1500),
        ("with a budget of 12 hours", None),
    ],
)
def test_money_is_a_budget(words, dollars):
    assert read(f"improve code {words}").budget_usd == dollars


def test_hyperparameters_and_the_size_of_the_search_are_read():
    said = read(
        "improve code by 5 points, 3 trials, batch size 16, LoRA rank 64, sequence length 4k, 200 training steps, "
        "seed 3, lr=1e-4"
    )
    assert said == GoalNumbers(
        target_points=5, max_trials=3, batch_size=16, lora_r=64, max_length=4096, max_steps=200, seed=3,
        learning_rate=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "flavor"),
    [
        ("on an a100-large GPU", "a100-large"),
        ("on 4 GPUs", "4 GPUs"),
        ("on a10g-largex2", "a10g-largex2"),
        ("with an L4", "L4"),
        ("not on an A100", None),
        ("on a GPU", None),
        ("with SFT", None),
    ],
)
def test_hardware_is_read_as_it_is_spelled(words, flavor):
    assert parse_goal(f"improve code {words}").flavor == flavor


@pytest.mark.parametrize(
    ("goal", "stages", "excluded"),
    [
        ("improve code with SFT, do not use DPO", ("sft",), ("dpo",)),
        ("improve code with SFT, don't use DPO or GRPO", ("sft",), ("dpo", "grpo")),
        ("improve code with SFT instead of KTO", ("sft",), ("kto",)),
        ("improve code without PPO", (), ()),
        ("improve code, no SFT", (), ("sft",)),
        ("improve code, not only with SFT", ("sft",), ()),
        ("do not touch the data; SFT for code", ("sft",), ()),
    ],
)
def test_a_method_that_is_not_wanted_is_not_asked_for(goal, stages, excluded):
    hints = parse_goal(goal)
    assert (hints.stages, hints.excluded) == (stages, excluded)


def test_other_things_that_are_not_wanted_are_not_asked_for_either():
    hints = parse_goal("improve code, not math, and do not use Qwen/Qwen3-0.6B or evaluate on HumanEval")
    assert (hints.task_area, hints.model, hints.benchmark) == ("code", None, None)


def test_another_benchmark_is_not_taken_for_a_known_one():
    assert parse_goal("improve code, measured by HumanEval+").benchmark == "humaneval_plus"
    assert parse_goal("improve code, use the my_tasks benchmark").benchmark == "my_tasks"
    assert parse_goal("improve code; evaluate on Human Eval").benchmark == "openai_humaneval"
    assert parse_goal("improve code; evaluate with the foobar benchmark").benchmark == "foobar"
    assert parse_goal("improve code; evaluate on LiveCodeBench").benchmark == "LiveCodeBench"


@pytest.mark.parametrize(
    "words", ["use the best benchmark", "evaluate with the coding benchmark", "on public benchmarks"]
)
def test_a_benchmark_without_a_name_is_none(words):
    assert parse_goal(f"improve code; {words}").benchmark is None


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
        ("improve code, budget 5 dollars, max $10", "more than one budget in dollars: 10, 5"),
        ("improve code in 2 hours or 3 hours", "more than one time limit in hours: 2, 3"),
        ("improve code for at least 3 hours", "e.g. 'at most 3 hours'"),
        ("improve code over the weekend", "give hours"),
        ("improve code until 7 am", "give hours"),
        ("improve code for 5 euros", "counted in dollars, not '5 euros'"),
        ("improve code for $2 per hour", "is a price, not a limit"),
        ("improve code by 150 %", "must be at most 100"),
        ("improve code, max length 4", "it must be from 8"),
        ("improve code, max length 200000", f"to {MAX_LENGTH}"),
        ("improve code on an A100 or an H100", "more than one flavor"),
        ("fine-tune Qwen on trl-lib/Capybara", "'Qwen' is not a complete model name"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_the_reason(goal, says):
    with pytest.raises(UsageError) as refused:
        parse_goal(goal)
    assert says in str(refused.value)
