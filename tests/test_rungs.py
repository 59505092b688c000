"""Rungs: which runs go on."""

import random

import pytest

from hfagent.agent.rungs import promote
from hfagent.agent.thresholds import MIN_AT_RUNG, RUNG_ETA, SEARCH_NOISE


def test_nothing_is_stopped_before_enough_runs_reached_the_rung() -> None:
    assert promote(0.0, [0.9] * (MIN_AT_RUNG - 2))
    assert not promote(0.0, [0.9] * (MIN_AT_RUNG - 1))


def test_a_run_less_than_the_noise_below_goes_on() -> None:
    others = [0.5, 0.1]
    assert promote(0.5 - SEARCH_NOISE / 2, others)
    assert not promote(0.5 - SEARCH_NOISE * 2, others)


def test_without_a_margin_the_share_that_goes_on_tends_to_one_in_eta() -> None:
    rng = random.Random(1)
    seen: list[float] = []
    went_on = 0
    for _ in range(3000):
        score = rng.random()
        went_on += promote(score, seen, margin=0.0)
        seen.append(score)
    assert went_on / 3000 == pytest.approx(1 / RUNG_ETA, abs=0.03)


def test_the_best_of_all_always_goes_on() -> None:
    rng = random.Random(2)
    for _ in range(200):
        others = [rng.random() for _ in range(rng.randint(0, 12))]
        assert promote(max([0.0, *others]), others)
