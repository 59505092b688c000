"""What a search may change, by model and method."""

import math

import pytest
from world import make_plan

from hfagent.agent import space as spaces
from hfagent.agent import thresholds
from hfagent.agent.records import ModelRef, Plan, TrainConfig
from hfagent.agent.space import EFFECTIVE_BATCH, configure, learning_rate_prior, space

QWEN = ModelRef(id="Qwen/Qwen3-0.6B", parameters=596_049_920)
LLAMA_8B = ModelRef(id="meta-llama/Llama-3.1-8B", parameters=8_030_261_248)


def plan(**changes: object) -> Plan:
    return make_plan(**{"model": QWEN, "max_extensions": 0, **changes})


def names(of: Plan) -> list[str]:
    return [lever.name for lever in space(of).searched]


@pytest.mark.parametrize(
    ("model", "published"),
    [  # tinker-cookbook's get_lr with the hidden sizes of the models' configurations: 2560, 4096, 2048
        (ModelRef(id="Qwen/Qwen3-4B", parameters=4_022_468_096), 4.9e-4),
        (LLAMA_8B, 2.86e-4),
        (ModelRef(id="meta-llama/Llama-3.2-1B", parameters=1_235_814_400), 4.9e-4),
    ],
)
def test_the_learning_rate_prior_is_near_the_published_one(model: ModelRef, published: float) -> None:
    assert learning_rate_prior("sft", model) == pytest.approx(published, rel=0.25)


def test_preference_and_reward_methods_start_far_lower_than_sft() -> None:
    sft = learning_rate_prior("sft", QWEN)
    assert all(learning_rate_prior(method, QWEN) < sft / 20 for method in ("dpo", "kto", "grpo"))


def test_a_model_of_unknown_size_gets_the_rate_without_a_correction() -> None:
    assert learning_rate_prior("sft", ModelRef(id="x/y")) == pytest.approx(5e-4)


@pytest.mark.parametrize("rate", [5.3e-4, 1e-5, 2e-2])
def test_the_learning_rates_hold_the_plan_and_are_even_in_their_logarithm(rate: float) -> None:
    lever = space(plan(train=TrainConfig(learning_rate=rate))).levers[0]
    prior = learning_rate_prior("sft", QWEN)
    assert lever.low <= rate <= lever.high
    assert lever.low <= prior / thresholds.RATE_SPAN
    assert lever.high >= prior * thresholds.RATE_SPAN
    assert lever.low <= lever.choices[0]
    assert lever.choices[-1] <= lever.high
    steps = [math.log10(b / a) for a, b in zip(lever.choices, lever.choices[1:], strict=False)]
    assert all(step == pytest.approx(1 / thresholds.RATE_STEPS, abs=0.03) for step in steps)


def test_the_plan_is_within_every_lever_and_the_seed_is_none() -> None:
    train = TrainConfig(num_train_epochs=5, lora_r=6, per_device_train_batch_size=3, warmup_steps=30, weight_decay=0.5)
    found = space(plan(train=train))
    assert all(lever.low <= spaces.value(train, lever.name) <= lever.high for lever in found.levers)
    assert found.values(train).items() <= {k: spaces.value(train, k) for k in found.values(train)}.items()
    assert "seed" not in [lever.name for lever in found.levers]


def test_epochs_are_no_lever_where_steps_or_extensions_decide_and_a_batch_none_where_it_holds_groups() -> None:
    assert "num_train_epochs" in names(plan())
    assert "num_train_epochs" not in names(plan(train=TrainConfig(max_steps=6)))
    assert "num_train_epochs" not in names(plan(max_extensions=1))
    assert EFFECTIVE_BATCH in names(plan(method="dpo"))
    assert EFFECTIVE_BATCH not in names(plan(method="grpo"))


def test_a_batch_is_split_over_the_largest_micro_batch_that_is_known_to_fit() -> None:
    base = TrainConfig(per_device_train_batch_size=8, gradient_accumulation_steps=2)
    for batch in (1, 4, 12, 16, 32, 7, 11):
        config = configure(base, {EFFECTIVE_BATCH: batch})
        micro = config.per_device_train_batch_size
        assert micro * config.gradient_accumulation_steps == batch
        assert micro <= 8
        assert not any(batch % size == 0 for size in range(micro + 1, 9))


def test_configure_changes_what_is_asked_and_nothing_else() -> None:
    base = TrainConfig(seed=3, lora_alpha=32)
    config = configure(base, {"learning_rate": 1e-3, "lora_r": 64.0})
    assert config == base.model_copy(update={"learning_rate": 1e-3, "lora_r": 64})


def test_the_values_of_a_grid_point_are_those_it_was_made_of() -> None:
    found = space(plan())
    grid = found.grid()
    assert len(grid) == math.prod(len(lever.choices) for lever in found.searched)
    for values in grid[:: len(grid) // 50]:
        assert found.values(configure(found.plan, values)) == values


def test_what_an_extension_moved_beyond_the_limits_counts_as_at_the_limit() -> None:
    found = space(plan())
    limit = next(lever.high for lever in found.levers if lever.name == "num_train_epochs")
    assert found.values(found.plan.model_copy(update={"num_train_epochs": limit + 4}))["num_train_epochs"] == limit
