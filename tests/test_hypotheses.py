"""Repeats, ideas and memory."""

from typing import Any

import pytest
from world import make_plan

from hfagent.agent.events import Proposed
from hfagent.agent.findings import Trial
from hfagent.agent.hypotheses import (
    check_idea,
    enqueue,
    exact_repeat,
    fits,
    fitting,
    halved,
    incumbent,
    key,
    levers_changed,
    nearest,
)
from hfagent.agent.records import Refusal, TrainConfig
from hfagent.agent.space import EFFECTIVE_BATCH, space

PLAN = make_plan(train=TrainConfig(learning_rate=2.6e-4, per_device_train_batch_size=8, warmup_steps=4))
SPACE = space(PLAN)


def config(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate({**PLAN.train.model_dump(), **changes})


def trial(number: int, value: float | None = 0.5, outcome: str = "scored", **changes: Any) -> Trial:
    return Trial.model_validate(
        {
            "number": number,
            "config": config(**changes),
            "why": "a reason",
            "source": "optuna",
            "value": value,
            "outcome": outcome,
        }
    )


def test_seed_logging_micro_batches_and_the_third_digit_make_no_new_hypothesis() -> None:
    same = config(
        seed=9,
        save_steps=7,
        logging_steps=5,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=2.604e-4,
    )
    assert levers_changed(same, PLAN.train) == ()
    assert key(same, PLAN.train) == key(PLAN.train, PLAN.train)


def test_the_key_says_what_differs_from_the_plan() -> None:
    changed = config(learning_rate=5e-4, gradient_accumulation_steps=2)
    assert set(levers_changed(changed, PLAN.train)) == {"learning_rate", EFFECTIVE_BATCH}
    assert "learning_rate=0.0005" in key(changed, PLAN.train)
    assert f"{EFFECTIVE_BATCH}=16" in key(changed, PLAN.train)


@pytest.mark.parametrize(
    ("outcome", "value", "says"),
    [("scored", 0.413, "0.413"), ("failed", None, "failed"), ("open", None, "open"), ("pruned", 0.2, "pruned")],
)
def test_a_repeat_is_refused_with_the_earlier_trial_and_its_result(
    outcome: str, value: float | None, says: str
) -> None:
    past = [trial(1), trial(2, value, outcome, lora_r=32)]
    refusal = exact_repeat(config(lora_r=32, seed=1), past, PLAN.train)
    assert refusal is not None
    assert "lora_r=32" in refusal.what
    assert "trial 2" in refusal.why
    assert says in refusal.why
    assert exact_repeat(config(lora_r=64), past, PLAN.train) is None


def test_what_ran_out_of_memory_is_no_dead_hypothesis() -> None:
    assert exact_repeat(config(lora_r=32), [trial(1, None, "out_of_memory", lora_r=32)], PLAN.train) is None


def test_the_nearest_trials_change_few_levers_by_little() -> None:
    past = [
        trial(1),
        trial(2, lora_r=64, learning_rate=1e-3),
        trial(3, learning_rate=1e-3),
        trial(4, learning_rate=6e-4),
    ]
    assert [t.number for t in nearest(config(learning_rate=7e-4), past)] == [4, 3, 1]
    assert nearest(config(), past, k=1) == [past[0]]
    assert nearest(config(lr_scheduler_type="constant_with_warmup"), past, k=1) == [past[0]]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lora_q": 8}, "did you mean 'lora_r'"),
        ({"seed": 1}, "unknown lever 'seed'"),
        ({"learning_rate": 0.5}, "learning_rate 0.5 is out of range"),
        ({"lora_r": 128}, "out of range: 8 to 64"),
        ({"lora_r": 12.5}, "whole number"),
        ({EFFECTIVE_BATCH: 12.5}, "whole number"),
        ({"learning_rate": float("nan")}, "out of range"),
        ({"learning_rate": 5e-4, "lora_r": 32}, "one lever at a time"),
        ({}, "one lever at a time"),
        ({"lora_r": 16}, "changes nothing"),
        ({"lora_r": 64}, "trial 2 was the same"),
    ],
)
def test_an_idea_is_refused_with_the_reason(changes: dict[str, float], says: str) -> None:
    why = check_idea(changes, [trial(1), trial(2, 0.3, lora_r=64)], SPACE)
    assert why is not None
    assert says in why


@pytest.mark.parametrize("changes", [{"learning_rate": 5e-4}, {"lora_dropout": 0.05}, {EFFECTIVE_BATCH: 12}])
def test_one_lever_within_its_limits_may_be_tried(changes: dict[str, float]) -> None:
    assert check_idea(changes, [trial(1)], SPACE) is None


def test_ideas_start_from_the_best_trial() -> None:
    past = [trial(1, 0.4), trial(2, 0.6, learning_rate=5e-4), trial(3, None, "failed", lora_r=64)]
    assert incumbent([], SPACE) == PLAN.train
    assert incumbent(past, SPACE) == past[1].config
    assert check_idea({"lora_r": 64}, past, SPACE) is None  # with trial 2's rate it is new
    assert "changes nothing" in (check_idea({"learning_rate": 5e-4}, past, SPACE) or "")


def test_halving_keeps_the_effective_batch_down_to_one_row() -> None:
    for micro in range(1, 33):
        sizes = [micro]
        found: TrainConfig | None = config(per_device_train_batch_size=micro, gradient_accumulation_steps=3)
        while (found := halved(found)) is not None:
            sizes.append(found.per_device_train_batch_size)
            assert found.per_device_train_batch_size * found.gradient_accumulation_steps == micro * 3
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] == 1


def test_nothing_at_least_as_large_as_what_ran_out_of_memory_fits() -> None:
    big = [config(per_device_train_batch_size=4, lora_r=32, max_length=1024)]
    assert not fits(big[0], big)
    assert not fits(config(per_device_train_batch_size=8, lora_r=64, max_length=2048), big)
    assert fits(config(per_device_train_batch_size=2, lora_r=64, max_length=2048), big)
    assert fits(config(per_device_train_batch_size=8, lora_r=16), big)


def test_a_micro_batch_shrinks_until_it_may_fit() -> None:
    small = fitting(config(lora_r=32), [config(per_device_train_batch_size=4, lora_r=32)])
    assert small is not None
    assert (small.per_device_train_batch_size, small.gradient_accumulation_steps) == (2, 4)
    assert fitting(config(lora_r=32), [config(per_device_train_batch_size=1)]) is None
    assert fitting(config(), []) == config()


def test_an_idea_that_ran_out_of_memory_is_tried_with_a_smaller_micro_batch() -> None:
    idea = enqueue(PLAN, [trial(1), trial(2, None, "out_of_memory", lora_r=32)], {"lora_r": 32}, "again")
    assert isinstance(idea, Proposed)
    assert (idea.config.lora_r, idea.config.per_device_train_batch_size) == (32, 4)
    assert not levers_changed(idea.config, config(lora_r=32))


def test_a_bad_idea_is_refused() -> None:
    refusal = enqueue(PLAN, [trial(1)], {"lora_r": 16}, "why not")
    assert isinstance(refusal, Refusal)
    assert "changes nothing" in refusal.why
