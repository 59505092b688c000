"""From a sentence or a flag to the stages, and from their plans to a pipeline."""

from pathlib import Path
from typing import Any

import pytest
from test_plan import GPU_BOX, OFFLINE, ON_HF, PAID

from hfagent.agent.errors import PlanRejected
from hfagent.agent.goal import parse_goal
from hfagent.agent.pipeline_facts import Pipeline
from hfagent.agent.plan import Flags, Surroundings, make_plan
from hfagent.agent.recipes import load as load_recipe
from hfagent.agent.records import Export, ModelRef
from hfagent.agent.settings import load
from hfagent.agent.stages import asked_methods, make_pipeline, stage_flags


def planned(
    goal: str, *, here: Surroundings = OFFLINE, settings: dict[str, Any] | None = None, **given: Any
) -> Pipeline:
    hints, flags = parse_goal(goal), Flags(**given)
    methods = asked_methods(flags, hints)
    plans = [
        make_plan(
            goal, method=method, hints=hints, flags=said, recipe=load_recipe(hints.task_area or "code"),
            settings=load(settings or {}, cwd=Path("/"), env={}), here=here,
        )
        for method, said in zip(methods, stage_flags(flags, methods), strict=True)
    ]  # fmt: skip
    return make_pipeline(goal, plans, flags, here.taken)


@pytest.mark.parametrize(
    ("goal", "method", "found"),
    [
        ("improve code solving", None, ("sft",)),
        ("improve code solving with DPO", None, ("dpo",)),
        ("improve code with SFT then DPO", None, ("sft", "dpo")),
        ("improve code: SFT -> DPO -> GRPO", None, ("sft", "dpo", "grpo")),
        ("improve code solving", "sft,dpo", ("sft", "dpo")),
        ("improve code solving with GRPO", "SFT then GRPO", ("sft", "grpo")),
        ("improve code solving", " sft -> kto ", ("sft", "kto")),
    ],
)
def test_methods_come_from_the_flag_before_the_sentence(goal: str, method: str | None, found: tuple[str, ...]) -> None:
    assert asked_methods(Flags(method=method), parse_goal(goal)) == found


@pytest.mark.parametrize(
    ("goal", "given", "message"),
    [
        ("improve code", {"method": "sft,ppo"}, "'ppo' is not available yet; there is sft, dpo, grpo, kto, di"),
        ("improve code", {"method": "reward"}, "'reward' is not available yet"),
        ("improve code", {"method": "sft,dpo,sft"}, "name a method twice"),
        ("improve code, but do not use SFT", {}, "rules out 'sft'"),
        ("improve code", {"method": "sft,dpo", "dataset": "a,b,c"}, "names 3 datasets for 2 stages"),
        ("improve code", {"method": "sft,dpo", "project": "x" * 54}, "1 to 53 lower-case letters"),
    ],
)
def test_what_cannot_be_done_is_said(goal: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanRejected, match=message):
        planned(goal, **given)


def test_the_stages_are_named_after_the_pipeline_and_share_what_there_is_to_spend() -> None:
    limits = {"budget_usd": 5, "max_hours": 6, "max_gpu_hours": 4, "max_planner_tokens": 900_000}
    made = planned("improve code with SFT then DPO", settings=limits, project="mine")
    assert [plan.project for plan in made.stages] == ["mine-1-sft", "mine-2-dpo"]
    assert (made.max_gpu_hours, made.max_planner_tokens) == (4, 900_000)
    assert (made.budget_micro_usd, made.max_hours, made.words) == (5_000_000, 6, "sft then dpo")
    assert [plan.export for plan in made.stages] == [Export(), Export()]
    assert made.export is None
    assert len(made.notes) == len(set(made.notes)) == 3


def test_a_name_is_made_and_numbered_where_it_or_a_stage_of_it_is_taken() -> None:
    first = planned("improve code with SFT then DPO").project
    assert first == "smollm2-135m-instruct-procedural-python-sft-dpo"
    taken = OFFLINE.model_copy(update={"taken": (f"{first}-2-dpo",)})
    assert planned("improve code with SFT then DPO", here=taken).project == f"{first}-2"
    here = OFFLINE.model_copy(update={"taken": ("mine-1-sft",)})
    with pytest.raises(PlanRejected, match="'mine-1-sft' exists"):
        planned("improve code with SFT then DPO", here=here, project="mine")


def test_what_is_asked_for_at_the_end_is_the_pipelines() -> None:
    goal = "improve code with SFT then DPO, convert it to GGUF and push it to ada/tuned"
    made = planned(goal, here=GPU_BOX)
    assert made.export == Export(quantize=("Q4_K_M",), push="ada/tuned")
    assert [plan.export for plan in made.stages] == [Export(), Export()]


def test_each_stage_may_have_a_dataset_of_its_own() -> None:
    made = planned("improve code", here=GPU_BOX, method="sft,dpo", dataset="org/chats,org/pairs")
    assert [plan.dataset.id for plan in made.stages] == ["org/chats", "org/pairs"]
    made = planned("improve code with SFT then DPO on org/chats", here=GPU_BOX)
    assert [plan.dataset.id for plan in made.stages] == ["org/chats", "org/chats"]


def test_a_method_has_its_own_hyperparameters_over_the_recipe() -> None:
    small = planned("improve code with DPO then GRPO").stages
    assert [(plan.train.method, plan.train.learning_rate) for plan in small] == [("dpo", 1e-4), ("grpo", 5e-4)]
    assert small[0].train.beta == 0.1
    assert (small[1].train.num_generations, small[1].train.reward_funcs) == (8, None)
    assert {plan.dataset.config for plan in small} == {"grpo"}
    large = planned("improve code with DPO then GRPO", here=GPU_BOX).stages
    assert large[0].train.batch == 16
    assert large[1].train.max_length > (large[1].train.max_completion_length or 0)
    assert large[0].train.learning_rate != large[1].train.learning_rate or large[0].train.beta == 0.1
    assert large[1].generation is not None


def test_the_teacher_belongs_to_the_stage_of_distillation() -> None:
    here = OFFLINE.model_copy(update={"teacher": ModelRef(id="/nights/merged")})
    stages = planned("improve code with SFT then distillation", here=here).stages
    assert [plan.teacher for plan in stages] == [None, here.teacher]


def test_a_batch_of_grpo_holds_whole_groups() -> None:
    with pytest.raises(PlanRejected, match="no whole groups of 8"):
        planned("improve code with SFT then GRPO at a batch size of 12")


def test_all_stages_are_evaluated_alike_also_where_their_hardware_differs() -> None:
    made = planned("improve code with SFT then GRPO", here=ON_HF, settings=PAID)
    first, second = made.stages
    assert first.evaluation == second.evaluation
    alone = [
        planned(f"improve code with {one} then KTO", here=ON_HF, settings=PAID).stages[0].evaluation.batch_size
        for one in ("SFT", "GRPO")
    ]
    assert first.evaluation.batch_size == min(alone)
