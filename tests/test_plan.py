from pathlib import Path
from typing import Any

import pytest

from hfagent.agent.errors import PlanRejected
from hfagent.agent.goal import parse_goal
from hfagent.agent.hardware import fallback
from hfagent.agent.plan import OVERNIGHT_HOURS, Flags, Surroundings, make_plan
from hfagent.agent.plan_teacher import wanted_teacher
from hfagent.agent.recipes import load as load_recipe
from hfagent.agent.records import BenchmarkRef, DatasetRef, ModelRef, Plan
from hfagent.agent.settings import load
from hfagent.agent.stages import asked_methods

BENCHMARKS = ("procedural_python", "openai_humaneval")
OFFLINE = Surroundings(hub=False, gpu=False, benchmarks=BENCHMARKS)
ON_HF = Surroundings(
    hub=True, gpu=False, benchmarks=BENCHMARKS, hardware=fallback(), parameters=596_049_920, vocab_size=151_936
)
PAID = {"backend": "hf", "budget_usd": 20}
GPU_BOX = Surroundings(hub=True, gpu=True, benchmarks=BENCHMARKS)


def plan(
    goal: str = "improve code solving with SFT",
    *,
    here: Surroundings = OFFLINE,
    settings: dict[str, Any] | None = None,
    **flags: Any,
) -> Plan:
    hints = parse_goal(goal)
    return make_plan(
        goal,
        method=asked_methods(Flags(**flags), hints)[0],
        hints=hints,
        flags=Flags(**flags),
        recipe=load_recipe(hints.task_area or "code"),
        settings=load(settings or {}, cwd=Path("/"), env={}),
        here=here,
    )


def test_offline_the_code_recipe_falls_back_to_its_embedded_parts_and_says_so() -> None:
    made = plan()
    assert (made.model.id, made.dataset.id) == ("embedded:SmolLM2-135M-Instruct", "embedded:procedural-python")
    assert (made.search.name, made.confirm.name, made.max_extensions) == ("procedural_python", "procedural_python", 1)
    assert "the Hub does not answer" in made.notes[0]
    assert "Qwen/Qwen3-0.6B" in made.notes[0]
    assert "open-r1/codeforces-cots" in made.notes[1]


def test_with_hub_and_gpu_the_recipe_is_taken_as_it_is() -> None:
    made = plan(here=GPU_BOX)
    assert made.model.id == "Qwen/Qwen3-0.6B"
    assert made.dataset == DatasetRef(id="open-r1/codeforces-cots", config="solutions_py_decontaminated")
    assert made.confirm == BenchmarkRef(name="openai_humaneval", set="confirm")
    assert made.notes == ()


def test_a_hub_without_a_gpu_still_takes_the_embedded_parts() -> None:
    made = plan(here=GPU_BOX.model_copy(update={"gpu": False}))
    assert made.model.id.startswith("embedded:")
    assert "no GPU" in made.notes[0]


def taught(here: Surroundings, teacher: ModelRef | None, **flags: Any) -> Plan:
    return plan("improve code solving with distillation", here=here.model_copy(update={"teacher": teacher}), **flags)


def test_distillation_has_its_teacher_in_the_plan_and_the_tasks_as_prompts() -> None:
    teacher = ModelRef(id="/nights/merged", parameters=134_515_008)
    made = taught(OFFLINE, teacher)
    assert (made.method, made.teacher, made.dataset.config) == ("distillation", teacher, "grpo")
    assert made.train.max_completion_length == 64
    assert plan().teacher is None


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (None, "distillation needs a teacher"),
        (ModelRef(id="/nights/merged/"), "the teacher is the model itself, '/nights/merged'"),
    ],
)
def test_a_teacher_that_teaches_nothing_is_refused(teacher: ModelRef | None, message: str) -> None:
    with pytest.raises(PlanRejected, match=message):
        taught(OFFLINE, teacher, model="/nights/merged")


def test_a_teacher_is_named_by_the_flag_before_the_sentence_and_for_distillation_alone() -> None:
    assert wanted_teacher("org/flag", "org/said", ("sft", "distillation")) == "org/flag"
    assert wanted_teacher(None, "org/said", ("distillation",)) == "org/said"
    assert wanted_teacher(None, None, ("sft",)) is None
    with pytest.raises(PlanRejected, match="the teacher 'org/big' is for distillation, and the method is sft"):
        wanted_teacher("org/big", None, ("sft",))


def test_rented_hardware_holds_the_teacher_too() -> None:
    small, large = (
        taught(ON_HF, ModelRef(id="org/big", parameters=size), settings=PAID | {"flavor": None}, model="org/small")
        for size in (600_000_000, 14_000_000_000)
    )
    assert small.price_micro_usd_per_hour < large.price_micro_usd_per_hour
    with pytest.raises(PlanRejected, match="nobody knows how many weights the model, or its teacher, has"):
        taught(ON_HF, ModelRef(id="org/big"), settings=PAID, model="org/small")


def test_flags_win_over_the_sentence_and_the_sentence_over_the_recipe() -> None:
    goal = "SFT Qwen/Qwen2.5-0.5B on trl-lib/Capybara to improve code, 2 epochs"
    said = plan(goal, here=GPU_BOX)
    assert (said.model.id, said.dataset.id, said.train.num_train_epochs) == ("Qwen/Qwen2.5-0.5B", "trl-lib/Capybara", 2)
    assert said.dataset.config is None
    flagged = plan(goal, here=GPU_BOX, model="org/other", dataset="org/data", config="py", split="test")
    assert flagged.model.id == "org/other"
    assert flagged.dataset == DatasetRef(id="org/data", config="py", split="test")


def test_humaneval_becomes_the_confirm_set_and_search_stays_apart() -> None:
    made = plan("improve code solving with SFT. Evaluate with the openai_humaneval benchmark")
    assert made.confirm == BenchmarkRef(name="openai_humaneval", set="confirm")
    assert made.search.name == "procedural_python"


def test_quick_is_100_examples_and_a_few_steps() -> None:
    made = plan(quick=True)
    assert (made.train.max_rows, made.max_extensions) == (100, 0)
    assert made.train.max_steps is not None
    assert made.train.max_steps <= 10
    assert made.search.n == made.confirm.n == 40


def test_on_100_examples_limits_the_rows() -> None:
    assert plan("improve code solving with SFT on 100 examples").train.max_rows == 100


def test_the_seed_reaches_data_training_and_both_problem_sets() -> None:
    made = plan(settings={"seed": 7})
    assert (made.train.seed, made.search.seed, made.confirm.seed, made.evaluation.seed) == (7, 7, 7, 7)


def test_a_project_is_named_after_model_data_and_method_and_numbered_when_taken() -> None:
    first = plan().project
    assert first == "smollm2-135m-instruct-procedural-python-sft"
    assert plan(here=OFFLINE.model_copy(update={"taken": (first,)})).project == f"{first}-2"


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("'reward' is not available yet", {"method": "reward"}),
        ("rules out 'sft'", {"goal": "improve code, but do not use SFT"}),
        ("unknown flavor 'a10g-large'", {"settings": {"flavor": "a10g-large"}}),
        ("unknown flavor 'a100-large'", {"goal": "train on an a100-large GPU to improve code"}),
        ("full fine-tuning", {"goal": "improve code by full fine-tuning"}),
        ("full fine-tuning", {"goal": "improve code, no LoRA"}),
        ("quantized", {"goal": "improve code with QLoRA"}),
        ("benchmark 'foobar' is not available", {"goal": "improve code, evaluate with the foobar benchmark"}),
        ("benchmark 'mbpp' is not available", {"benchmark": "mbpp"}),
        ("benchmark 'procedural_math' is not available here", {"goal": "improve math with SFT"}),
        ("does not say where to", {"goal": "improve code with SFT and push it to the Hub"}),
        ("nothing can be pushed", {"goal": "improve code and push it to ada/tuned", "here": OFFLINE}),
        ("must be 1 to 60", {"project": "Not A Name"}),
        ("--config and --split do not fit", {"config": "py"}),
        ("jobs on this machine run one at a time", {"settings": {"max_jobs": 2}}),
        ("jobs on this machine run one at a time", {"goal": "improve code with SFT, 4 jobs at a time"}),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_starts(message: str, arguments: dict[str, Any]) -> None:
    goal = arguments.pop("goal", "improve code solving with SFT")
    with pytest.raises(PlanRejected, match=message):
        plan(goal, **arguments)


def test_what_the_goal_does_not_want_is_not_refused() -> None:
    made = plan("improve code with SFT; do not push to the Hub, no conversion to GGUF, no full fine-tuning")
    assert (made.method, made.export) == ("sft", None)


def test_limits_of_the_sentence_are_kept() -> None:
    made = plan(
        "improve code by 5 points overnight but at most 2 hours, under $10, 3 trials, seed 4, on local hardware"
    )
    assert (made.max_hours, made.budget_micro_usd, made.max_trials) == (2, 10_000_000, 3)
    assert (made.target_delta, made.train.seed, made.search.seed) == (0.05, 4, 4)


def test_settings_win_over_the_limits_of_the_sentence_and_that_is_told() -> None:
    made = plan("improve code in 2 hours for $5", settings={"max_hours": 3, "budget_usd": 5, "flavor": "local"})
    assert (made.max_hours, made.budget_micro_usd) == (3, 5_000_000)
    told = [note for note in made.notes if "does not count" in note]
    assert len(told) == 1
    assert "max_hours is set to 3, so the 2 " in told[0]


def test_overnight_is_a_limit_that_is_told_unless_another_is_given() -> None:
    made = plan("improve code overnight")
    assert made.max_hours == OVERNIGHT_HOURS
    assert any("overnight" in note for note in made.notes)
    for other in (plan("improve code overnight", settings={"max_hours": 3}), plan("improve code")):
        assert not any("overnight" in note for note in other.notes)
        assert other.max_hours != OVERNIGHT_HOURS


def test_hyperparameters_of_the_sentence_reach_the_training() -> None:
    made = plan("improve code, batch size 32, rank 4, sequence length 512, max 50 steps", here=GPU_BOX).train
    assert made.per_device_train_batch_size * made.gradient_accumulation_steps == 32
    assert made.per_device_train_batch_size <= load_recipe("code").train.per_device_train_batch_size
    assert (made.lora_r, made.max_length, made.max_steps) == (4, 512, 50)


def test_a_gpu_that_is_asked_for_and_not_here_is_told() -> None:
    assert any("no" in note and "GPU" in note for note in plan("improve code on a GPU").notes)
    assert not any("GPU" in note for note in plan("improve code on a GPU", here=GPU_BOX).notes)


def test_the_note_about_humaneval_is_left_out_where_humaneval_is_the_confirm_set() -> None:
    notice = load_recipe("code").embedded
    assert notice is not None
    assert notice.notice in plan().notes
    notes = plan("improve code, evaluate on HumanEval").notes
    assert notice.notice not in notes
    assert any("openai_humaneval" in note for note in notes)


def test_a_project_that_exists_is_not_overwritten() -> None:
    with pytest.raises(PlanRejected, match="hfagent resume mine"):
        plan(project="mine", here=OFFLINE.model_copy(update={"taken": ("mine",)}))


def test_a_persons_own_rows_are_neither_cut_to_the_demo_nor_trained_at_its_rate() -> None:
    made = plan("fine-tune ./model on ./rows.jsonl to improve code")
    recipe = load_recipe("code").train
    assert (made.train.max_rows, made.train.max_length) == (None, recipe.max_length)
    assert made.train.learning_rate == recipe.learning_rate


def test_the_recipes_dataset_keeps_its_config_where_a_person_names_it_alone() -> None:
    goal = "improve code with SFT on open-r1/codeforces-cots"
    for here in (OFFLINE, GPU_BOX):
        assert plan(goal, here=here).dataset.config == "solutions_py_decontaminated"
    assert plan(goal, here=OFFLINE, config="solutions").dataset.config == "solutions"


def test_quick_wins_over_the_sentence() -> None:
    assert plan("improve code with SFT on 500 examples", quick=True).train.max_rows == 100


def test_on_hf_the_recipe_runs_on_the_cheapest_flavor_that_fits() -> None:
    made = plan(here=ON_HF, settings=PAID)
    assert (made.backend, made.flavor, made.price_micro_usd_per_hour) == ("hf", "t4-small", 400_000)
    assert (made.gpu, made.accelerator, made.budget_micro_usd) == (True, "t4", 20_000_000)
    assert (made.model.id, made.dataset.id) == ("Qwen/Qwen3-0.6B", "open-r1/codeforces-cots")
    assert made.model.parameters == 596_049_920
    assert made.confirm.name == "openai_humaneval"
    assert not any("embedded" in note or "no GPU" in note or "GPU here" in note for note in made.notes)


def test_the_size_of_the_model_decides_and_is_recorded() -> None:
    made = plan(here=ON_HF.model_copy(update={"parameters": 8_190_735_360}), settings=PAID, model="Qwen/Qwen3-8B")
    assert (made.model.id, made.model.parameters) == ("Qwen/Qwen3-8B", 8_190_735_360)
    assert made.flavor == "l40sx1"
    with pytest.raises(PlanRejected, match="nobody knows how many weights"):
        plan(here=ON_HF.model_copy(update={"parameters": None}), settings=PAID, model="org/model-7B")


@pytest.mark.parametrize("words", ["on HF Jobs", "on Hugging Face Jobs", "as an hf job"])
def test_the_sentence_may_say_that_jobs_run_on_hf(words: str) -> None:
    made = plan(f"improve code with SFT {words}, l4x1, budget $5", here=ON_HF)
    assert (made.backend, made.flavor, made.budget_micro_usd) == ("hf", "l4x1", 5_000_000)
    assert plan("improve code with SFT, not on HF Jobs", here=OFFLINE).backend == "local"


def test_where_settings_say_local_the_sentence_does_not_spend() -> None:
    made = plan("improve code on HF Jobs", here=OFFLINE, settings={"backend": "local"})
    assert (made.backend, made.flavor, made.price_micro_usd_per_hour) == ("local", "local", 0)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("jobs on hf cost money: name --budget-usd", {"settings": {"backend": "hf"}}),
        ("need the Hub, which does not answer", {"settings": PAID, "here": OFFLINE}),
        ("did you mean 'a10g-large'", {"settings": PAID | {"flavor": "a10g-larg"}}),
        ("unknown flavor 'h100'", {"goal": "improve code on an h100", "settings": PAID}),
        ("a processor trains fewer than", {"settings": PAID | {"flavor": "cpu-basic"}}),
        ("it can be rented: --backend hf", {"goal": "improve code on an a100", "here": OFFLINE}),
    ],
)
def test_what_cannot_be_rented_is_said_before_money_is_spent(message: str, arguments: dict[str, Any]) -> None:
    goal = arguments.pop("goal", "improve code solving with SFT")
    with pytest.raises(PlanRejected, match=message):
        plan(goal, **{"here": ON_HF, **arguments})


def test_a_named_gpu_takes_its_cheapest_flavor_and_a_stale_table_is_told() -> None:
    stale = ON_HF.model_copy(update={"hardware": fallback().model_copy(update={"note": "prices of last year"})})
    made = plan("improve code on HF Jobs with an A100, budget $9", here=stale)
    assert made.flavor == "a100-large"
    assert "prices of last year" in made.notes
