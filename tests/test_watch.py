"""Flags of a training run: found when they are there, and not in noise."""

import math
import random
import time

import pytest

from hfagent.agent import thresholds
from hfagent.agent.records import MetricPoint
from hfagent.agent.watch import Watched, diverging_since, flags, loss_limit, reserve_s

VOCABULARY = 49_152


def points(metric, values, *, every=1):
    return tuple(MetricPoint(step=every * i, values={metric: v}) for i, v in enumerate(values, start=1))


def rows(*values):
    """One row a step: (loss, grad_norm)."""
    return tuple(
        MetricPoint(step=i, values={"train/loss": loss, "train/grad_norm": norm})
        for i, (loss, norm) in enumerate(values, start=1)
    )


def found(logged=(), **known):
    return {flag.name: flag for flag in flags(Watched(points=tuple(logged), **known))}


def healthy(rng, *, logs, level, noise):
    """A t^-a + L with noise as a share of the loss."""
    height, power = level * rng.uniform(0.5, 6), rng.uniform(0.1, 1.0)
    return [(height * t**-power + level) * max(1 + rng.gauss(0, noise), 0.02) for t in range(1, logs + 1)]


def alarmed(losses):
    """Whether a look after any log finds a divergence."""
    return any(diverging_since(losses[:end]) is not None for end in range(1, len(losses) + 1))


# --- NaN -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["train/loss", "eval/loss"])
def test_a_loss_that_is_no_number_is_flagged_at_once(metric):
    flag = found(points(metric, [2.0, 1.5, None]))["nan"]
    assert flag.step == 3
    assert metric in flag.reason


def test_the_first_bad_step_is_named():
    assert found(points("train/loss", [2.0, None, 1.0, None]))["nan"].step == 2


@pytest.mark.parametrize(
    ("logged", "step"),
    [
        (rows((2.0, 1.0), (1.5, 0.9), (0.0, None)), 3),  # transformers' filter hides the NaN, the gradient shows it
        (points("train/loss", [2.0, 1.5, 0.0, 0.0]), 3),
        (points("train/loss", [0.0, 0.0]), 1),
    ],
)
def test_a_nan_logged_as_zero_is_found(logged, step):
    assert found(logged)["nan"].step == step


@pytest.mark.parametrize(
    "logged",
    [
        points("train/loss", [2.0, 0.3, 0.005, 0.0002, 0.0, 0.0, 0.0]),
        rows((2.0, 1.0), (0.02, 0.1), (0.0, 1e-6), (0.0, 1e-7)),
        points("train/loss", [2.0, 1.5, 0.0, 1.4]),
        (),
    ],
    ids=["fell to zero", "gradient lives", "once", "nothing logged"],
)
def test_a_loss_near_zero_is_no_nan(logged):
    assert "nan" not in found(logged)


def test_the_loss_of_grpo_may_be_zero():
    logged = rows((0.0, 0.3), (0.0, 0.0), (0.0, 0.0), (-0.1, 0.2))
    assert "nan" not in found(logged, method="grpo")
    assert "nan" in found(rows((0.1, 0.3), (None, None)), method="grpo")


def test_skipped_steps_of_fp16_are_no_nan_but_a_gradient_that_stays_infinite_is():
    logs = thresholds.DEAD_GRADIENT_LOGS
    skipped = [(2.0, None)] * (logs - 1)
    assert "nan" not in found(rows(*skipped, (1.9, 1.0), *skipped))
    assert found(rows((2.0, 1.0), *skipped, (2.0, None)))["nan"].step == 2


# --- divergence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.02, 0.5, 3.0])
@pytest.mark.parametrize("noise", [0.05, 0.25])
def test_healthy_runs_are_left_alone_after_each_log(level, noise):
    rng = random.Random(f"{level} {noise}")
    short = [healthy(rng, logs=logs, level=level, noise=noise) for logs in (10, 15, 30, 60) for _ in range(15)]
    assert not any(alarmed(losses) for losses in short)
    long = healthy(rng, logs=2000, level=level, noise=noise)
    assert not any(diverging_since(long[:end]) is not None for end in range(100, 2001, 50))


def test_noise_that_lasts_over_some_logs_seldom_alarms():
    rng, alarms = random.Random(1), 0
    for _ in range(30):
        losses, state = [], 0.0
        for _ in range(100):
            state = 0.7 * state + rng.gauss(0, 0.18)
            losses.append(math.exp(state))
        alarms += alarmed(losses)
    assert alarms <= 1


def test_hard_batches_now_and_then_seldom_alarm():
    rng = random.Random(2)
    runs = [[0.5 * rng.lognormvariate(0, 0.15) + (rng.random() < 0.05) for _ in range(100)] for _ in range(30)]
    assert sum(alarmed(losses) for losses in runs) <= 1


@pytest.mark.parametrize("noise", [0.05, 0.25])
@pytest.mark.parametrize("before", [20, 100])
@pytest.mark.parametrize(("level", "after"), [(0.5, 6.0), (2.0, 11.0), (0.02, 2.0)])
def test_a_jump_is_flagged_two_logging_intervals_later(noise, before, level, after):
    rng = random.Random(3)
    late = 0
    for _ in range(20):
        losses = [level * (1 + rng.gauss(0, noise)) for _ in range(before)]
        losses += [after * (1 + rng.gauss(0, noise)) for _ in range(3)]
        flag = found(points("train/loss", losses, every=10)).get("diverged")
        late += flag is None or flag.step != 10 * (before + 1)
        assert "diverged" not in found(points("train/loss", losses[:-1], every=10))
    assert late <= 1


def test_a_short_run_that_broke_after_few_steps_is_flagged():
    rng = random.Random(6)
    runs = [[(0.5 + 2 * t**-0.7) * (1 + rng.gauss(0, 0.05)) for t in range(1, 9)] for _ in range(30)]
    assert sum(diverging_since([*run, 8.0, 9.0, 8.5]) == 8 for run in runs) >= 25


def test_a_slow_rise_is_flagged_on_its_way():
    rng = random.Random(4)
    losses = [0.5 * (1 + rng.gauss(0, 0.1)) for _ in range(100)]
    losses += [0.5 * math.exp(i / 20) * (1 + rng.gauss(0, 0.1)) for i in range(60)]  # up to 9.5
    assert diverging_since(losses[:105]) is None
    assert diverging_since(losses) is not None


def test_three_times_a_tiny_loss_is_nothing():
    assert "diverged" not in found(points("train/loss", [0.02] * 30 + [0.08] * 10))


def test_an_outlier_that_passed_needs_no_answer():
    assert "diverged" not in found(points("train/loss", [0.5] * 30 + [4.0] * 2 + [0.5]))
    assert "diverged" not in found(points("train/loss", [0.5] * 30 + [4.0] * 3 + [0.5]))


def test_a_run_found_long_after_it_diverged_is_flagged_from_where_it_began():
    assert found(points("train/loss", [0.5] * 30 + [7.0] * 80))["diverged"].step == 31


def test_a_loss_far_above_uniform_guessing_is_flagged_at_once_after_warm_up():
    losses = points("train/loss", [3.0, 2.5, 30.0])
    assert found(losses, vocab_size=VOCABULARY, warmup_steps=2)["diverged"].step == 3
    assert "diverged" not in found(losses, vocab_size=VOCABULARY, warmup_steps=3)
    assert "diverged" not in found(losses)
    mild = points("train/loss", [3.0, 2.5, 1.9 * math.log(VOCABULARY)])
    assert "diverged" not in found(mild, vocab_size=VOCABULARY)
    # One sound loss, then a learning rate of 0.3 on SmolLM2-135M, as logged.
    assert found(points("train/loss", [0.62, 13.7, 25.3]), vocab_size=VOCABULARY, warmup_steps=2)["diverged"].step == 2
    assert found(points("train/loss", [0.62, 13.7, 15.3]), vocab_size=VOCABULARY, warmup_steps=2)["diverged"].step == 2


def test_the_loss_of_grpo_has_no_level():
    assert "diverged" not in found(points("train/loss", [0.01] * 30 + [5.0] * 5), method="grpo")


def test_odd_losses_give_a_limit():
    assert loss_limit([1e-9, 1e9] * 30) is not None
    assert loss_limit([1.0] * 4) is None


def test_a_long_run_is_read_quickly():
    logged = points("train/loss", healthy(random.Random(0), logs=20_000, level=0.5, noise=0.1))
    start = time.perf_counter()
    found(logged)
    assert time.perf_counter() - start < 1.0


# --- time ------------------------------------------------------------------------------------------------------------


def steps(seconds, count, *, start=30.0):
    return tuple((start + seconds * i, i) for i in range(1, count + 1))


def test_silence_is_a_hang_after_ten_minutes_at_least():
    progress = steps(5, 20)
    last = progress[-1][0]
    assert "hung" not in found(progress=progress, running_s=last + 590)
    flag = found(progress=progress, running_s=last + 610)["hung"]
    assert flag.step == 20
    assert flag.numbers["silence_s"] == pytest.approx(610)


@pytest.mark.parametrize("seen", [1, 2, 20])
def test_slow_steps_are_given_five_of_their_intervals(seen):
    progress = steps(400, seen, start=0)
    last = progress[-1][0]
    assert "hung" not in found(progress=progress, running_s=last + 1990)
    assert "hung" in found(progress=progress, running_s=last + 2010)


def test_after_the_last_step_nothing_hangs():
    progress = steps(5, 20)
    assert "hung" not in found(progress=progress, running_s=5000, total_steps=20)
    assert "hung" in found(progress=progress, running_s=5000, total_steps=21)


def test_a_run_that_does_not_start_is_flagged_and_a_queued_one_is_not():
    assert "no_start" not in found(running_s=890)
    assert found(running_s=910)["no_start"].step is None
    assert "no_start" in found(running_s=910, progress=((20.0, 0),))  # an evaluation before the first step
    assert "no_start" not in found(running_s=910, start_deadline_s=1800)
    assert "no_start" not in found(running_s=910, progress=((900.0, 1),))
    assert found(running_s=None) == {}


def test_a_run_that_will_be_cut_is_flagged_early_with_the_steps_that_fit():
    progress = steps(10, 8)
    flag = found(progress=progress, running_s=115, total_steps=1000, timeout_s=3600)["too_slow"]
    assert flag.numbers["s_per_step"] == pytest.approx(10)
    assert flag.numbers["end_s"] == pytest.approx(30 + 10 * 1000)
    shorter = int(flag.numbers["fits"])
    assert 200 < shorter < 360
    assert "too_slow" not in found(progress=progress, running_s=115, total_steps=shorter, timeout_s=3600)
    assert "too_slow" in found(progress=progress, running_s=115, total_steps=2 * shorter, timeout_s=3600)


def test_a_short_job_is_not_asked_for_a_reserve_of_a_quarter_hour():
    assert found(progress=steps(8, 10), running_s=112, total_steps=20, timeout_s=900) == {}
    assert reserve_s(180, 900) <= 180
    assert reserve_s(3 * 3600, 8 * 3600) == pytest.approx(0.2 * 3 * 3600)
    assert reserve_s(600, 8 * 3600) == pytest.approx(900)


def test_slow_first_steps_or_one_pause_are_no_pace():
    warm = [(200.0, 1), (400.0, 2), *((400.0 + 2 * i, 2 + i) for i in range(1, 11))]
    assert "too_slow" not in found(progress=tuple(warm), running_s=430, total_steps=300, timeout_s=1800)
    pause = [*steps(2, 6, start=0), *((300.0 + 2 * i, 6 + i) for i in range(1, 15))]
    assert "too_slow" not in found(progress=tuple(pause), running_s=340, total_steps=300, timeout_s=1800)


def test_a_few_steps_are_no_pace():
    few = thresholds.PACE_SIGHTINGS - 1
    assert found(progress=steps(60, few), running_s=400, total_steps=1000, timeout_s=900) == {}


# --- evaluations and rewards -----------------------------------------------------------------------------------------


def both(evaluations, *, train):
    """An evaluation every 10 steps, a training loss at each step."""
    rising = points("eval/loss", evaluations, every=10)
    return (*points("train/loss", [train(s) for s in range(1, 10 * len(evaluations) + 1)]), *rising)


def test_a_held_out_loss_that_rises_while_the_training_loss_falls_is_overfit():
    flag = found(both([1.0, 0.8, 0.83, 0.87, 0.9], train=lambda step: 2 / step))["overfit"]
    assert flag.step == 20
    assert flag.numbers["generalization_loss"] == pytest.approx(12.5)


@pytest.mark.parametrize(
    ("evaluations", "train"),
    [
        ([1.0, 0.8, 0.95, 0.9], lambda step: 2 / step),
        ([1.0, 0.8, 0.82, 0.83, 0.81], lambda step: 2 / step),
        ([1.0, 0.8, 0.9, 1.0, 1.1], lambda step: 0.5 + step / 100),
        ([0.8], lambda step: 2 / step),
    ],
    ids=["two evaluations", "within noise", "training loss rises too", "one evaluation"],
)
def test_what_is_not_overfit(evaluations, train):
    assert "overfit" not in found(both(evaluations, train=train))


def test_a_flat_held_out_loss_is_a_plateau_and_a_falling_one_is_not():
    rng = random.Random(5)
    flat = [[1.0 * (1 + rng.gauss(0, 0.003)) for _ in range(10)] for _ in range(60)]
    falling = [[t**-0.2 * (1 + rng.gauss(0, 0.003)) for t in range(1, 11)] for _ in range(60)]
    assert sum("plateau" in found(points("eval/loss", run, every=10)) for run in flat) > 45
    assert sum("plateau" in found(points("eval/loss", run, every=10)) for run in falling) == 0
    assert "plateau" not in found(points("eval/loss", flat[0][:5], every=10))


@pytest.mark.parametrize(("metric", "dead", "alive"), [("reward_std", 0.0, 0.2), ("frac_reward_zero_std", 1.0, 0.9)])
def test_rewards_without_a_difference_are_dead(metric, dead, alive):
    gone = points(f"train/{metric}", [alive] * 5 + [dead] * 5 + [alive] * 2 + [dead] * 5)
    assert found(gone, method="grpo")["dead_reward"].step == 6
    assert found(gone[:-1], method="grpo") == {}
    assert found(gone, method="sft") == {}


def test_the_worst_comes_first():
    logged = (*points("train/loss", [0.5] * 30 + [9.0] * 4 + [None]),)
    names = [flag.name for flag in flags(Watched(points=logged, progress=((1.0, 1),), running_s=5000))]
    assert names == ["nan", "diverged", "hung"]
