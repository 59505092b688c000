"""Trends of losses: found where they are, not found in noise."""

import math
import random
import time

import pytest
from scipy import stats as reference

from hfagent.agent.records import MetricPoint
from hfagent.agent.trend import (
    eval_slope,
    generalization_loss,
    held_out_outlook,
    outlook,
    series,
    stable_losses,
    theil_sen,
)


def noisy(loss, *, seed, noise, steps=range(3, 17)):
    """Losses of the stable phase of a 20-step run, with noise as a share of the loss."""
    rng = random.Random(seed)
    return [(step, loss(step) * (1 + rng.gauss(0, noise))) for step in steps]


def share_falling(loss, *, noise, runs=150):
    """Share of runs that promise at least 1 % when their 20 steps become 40."""
    found = (outlook(noisy(loss, seed=seed, noise=noise), total_steps=40) for seed in range(runs))
    return sum(o is not None and o.slope_high < 0 and o.gain >= 0.01 for o in found) / runs


def test_theil_sen_is_scipys():
    rng = random.Random(3)
    x = [math.log(step) for step in range(1, 17)]
    y = [round(1 - 0.2 * value + rng.gauss(0, 0.1), 1) for value in x]  # rounded, so that there are ties
    ours, theirs = theil_sen(x, y, confidence=0.9), reference.theilslopes(y, x, 0.9)
    assert (ours.slope, ours.low, ours.high) == pytest.approx((theirs.slope, theirs.low_slope, theirs.high_slope))


def test_a_strong_fall_is_found_in_every_short_noisy_run():
    assert share_falling(lambda step: 0.2 + 1.3 * math.exp(-step / 5), noise=0.08) > 0.97


def test_a_measured_run_promises_more():
    # Steps 3 to 17 at the full learning rate: 20 steps of LoRA SFT of a 135M model on short Python tasks.
    measured = [0.625, 0.645, 0.423, 0.341, 0.305, 0.220, 0.245, 0.187, 0.150, 0.181, 0.188, 0.152, 0.125, 0.122, 0.112]
    found = outlook(list(enumerate(measured, start=3)), total_steps=40)
    assert found.slope_high < -0.5
    assert 0.2 < found.gain < 0.6


def test_a_flat_noisy_loss_is_not_falling():
    assert share_falling(lambda step: 0.8, noise=0.08) < 0.05


def test_a_loss_that_fell_early_and_lies_flat_seldom_promises_more():
    assert share_falling(lambda step: 0.3 + 1.2 * math.exp(-step * 0.7), noise=0.08) < 0.15


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.08])
def test_the_forecast_of_a_power_law_seldom_promises_more_than_comes(noise):
    true_gain = 1 - (40 / 16) ** -0.3
    gains = [outlook(noisy(lambda step: step**-0.3, seed=s, noise=noise), total_steps=40).gain for s in range(50)]
    assert sum(gain > true_gain + 1e-9 for gain in gains) <= 5
    assert sum(gains) / 50 > true_gain / 4


def test_odd_neighbours_late_in_a_long_run_give_a_number():
    assert outlook([(1000 + i, [1e-9, 1e9][i % 2]) for i in range(8)], total_steps=4000).gain < 0.01


def test_a_loss_of_zero_is_not_the_best_loss_ever():
    losses = noisy(lambda step: 0.8, seed=1, noise=0.05)
    assert outlook([*losses, (17, 0.0), (18, 0.0)], total_steps=40) == outlook(losses, total_steps=40)


@pytest.mark.parametrize(
    "losses", [[], [(1, 2.0)], [(step, 1 / step) for step in range(1, 6)], [(step, 0.0) for step in range(1, 20)]]
)
def test_too_few_losses_give_no_outlook(losses):
    assert outlook(losses, total_steps=40) is None


def test_a_long_run_is_read_quickly():
    start = time.perf_counter()
    assert outlook(noisy(lambda step: step**-0.1, seed=0, noise=0.05, steps=range(1, 20_001)), total_steps=40_000)
    assert time.perf_counter() - start < 1.0


def test_warm_up_and_decay_do_not_count():
    rates = [0.5, 1.0, 1.0, 1.0, 0.5, 0.1]
    points = [
        MetricPoint(step=step, values={"train/loss": float(step), "train/learning_rate": rate})
        for step, rate in enumerate(rates, start=1)
    ]
    assert stable_losses(points) == [(2, 2.0), (3, 3.0), (4, 4.0)]
    bare = [MetricPoint(step=p.step, values={"train/loss": p.values["train/loss"]}) for p in points]
    assert len(stable_losses(bare)) == 6


def test_series_skips_what_is_missing_and_keeps_the_last_of_a_step():
    points = [
        MetricPoint(step=2, values={"train/loss": None}),
        MetricPoint(step=4, values={"train/loss": 1.0}),
        MetricPoint(step=3, values={"eval/loss": 9.0}),
        MetricPoint(step=4, values={"train/loss": 0.5}),
        MetricPoint(step=1, values={"train/loss": 2.0}),
    ]
    assert series(points, "train/loss") == [(1, 2.0), (4, 0.5)]


def test_generalization_loss_is_the_rise_above_the_lowest():
    points = [MetricPoint(step=s, values={"eval/loss": v}) for s, v in ((5, 1.0), (10, 0.8), (15, 0.88))]
    assert generalization_loss(points) == pytest.approx(10)
    assert generalization_loss(points[:1]) is None
    assert eval_slope(points) < 0
    assert eval_slope(points[:2]) is None


def held_out(*losses: tuple[int, float], top_until: int = 100) -> list[MetricPoint]:
    rate = {True: 1e-3, False: 1e-4}
    return [
        MetricPoint(step=step, values={"eval/loss": loss, "train/learning_rate": rate[step <= top_until]})
        for step, loss in losses
    ]


def test_a_held_out_loss_that_falls_promises_half_of_its_slope():
    found = held_out_outlook(held_out((10, 0.08), (20, 0.04)), total_steps=40)
    assert found is not None
    assert found.slope_high == pytest.approx(-0.5)
    assert found.gain == pytest.approx(1 - 0.5**0.5)


def test_a_held_out_loss_that_is_flat_or_rises_once_promises_nothing():
    flat = held_out_outlook(held_out((10, 0.08), (20, 0.079)), total_steps=40)
    rises = held_out_outlook(held_out((5, 0.08), (10, 0.04), (20, 0.05)), total_steps=40)
    assert flat is not None
    assert flat.gain == 0
    assert rises is not None
    assert rises.gain < 0


def test_a_held_out_loss_lowered_by_the_decay_alone_does_not_count():
    assert held_out_outlook(held_out((16, 0.08), (20, 0.02), top_until=16), total_steps=40) is None
