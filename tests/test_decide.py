"""Decisions over runs: every rule with the numbers that trigger it."""

import math
import random

import pytest

from hfagent.agent.decide import Evidence, Extension, Parent, decide
from hfagent.agent.records import MetricPoint
from hfagent.agent.remaining import Remaining
from hfagent.agent.verdict import Verdict, compare


def verdict(*, gain: int, base: int = 20, n: int = 200) -> Verdict:
    """`gain` more problems solved out of n; some change hands besides."""
    theirs = {str(i): float(i < base) for i in range(n)}
    ours = {str(i): float(i < base + gain) if gain >= 0 else float(-gain <= i < base) for i in range(n)}
    return compare(theirs, ours)


def run_points(loss, *, noise=0.05, evals=()):
    """A 20-step run: two steps of warm-up, four of decay, a loss at each step."""
    rng = random.Random(0)
    rates = [0.5, *[1.0] * 15, 0.8, 0.6, 0.4, 0.2]
    points = [
        MetricPoint(
            step=s, values={"train/loss": loss(s) * (1 + rng.gauss(0, noise)), "train/learning_rate": rates[s - 1]}
        )
        for s in range(1, 21)
    ]
    return (*points, *(MetricPoint(step=s, values={"eval/loss": value}) for s, value in evals))


FALLING = run_points(lambda step: 0.2 + 1.3 * math.exp(-step / 5), evals=((10, 0.6), (16, 0.4), (20, 0.3)))
FLAT = run_points(lambda step: 0.5)
LONGER = Extension(total_steps=40, seconds=80, micro_usd=20_000)


def evidence(**changes) -> Evidence:
    """A promising first run; the changes make the case."""
    return Evidence(**{"run": "sft-01", "verdict": verdict(gain=86), "points": FALLING, "extension": LONGER, **changes})


def test_a_gain_whose_loss_still_falls_is_extended():
    decision = decide(evidence())
    assert (decision.action, decision.run, decision.rule) == ("extend", "sft-01", "extend-while-falling")
    assert decision.reason.startswith("+43.0 points on 200 search problems (one-sided p = ")
    assert decision.reason.endswith("% lower by step 40")
    assert decision.numbers["delta"] == pytest.approx(0.43)
    assert decision.numbers["forecast_gain"] > 0.1


def test_a_small_loss_of_score_is_extended_while_the_loss_falls():
    assert decide(evidence(verdict=verdict(gain=-1))).action == "extend"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"extension": "its extension sft-01-x1 came to nothing"}, "not extended: its extension sft-01-x1 came to"),
        ({"extensions": 2}, "extended 2 of 2 times"),
        ({"max_extensions": 0}, "no extension is allowed"),
        ({"verdict": verdict(gain=178)}, "a score of 0.990 leaves no headroom"),
        ({"points": ()}, "fewer than 6 training losses"),
        ({"points": FALLING[:5]}, "fewer than 6 training losses"),
        ({"points": (MetricPoint(step=1, values={"train/loss": None}),) * 9}, "fewer than 6 training losses"),
        ({"points": FLAT}, "neither the training loss nor the one held out is clearly falling"),
        (
            {"points": (*FALLING, MetricPoint(step=21, values={"eval/loss": 0.33}))},
            "overfit, the evaluation loss is 10.0",
        ),
        (
            {"points": (*FALLING[:20], *run_points(lambda s: 1.0, evals=((5, 0.4), (10, 0.4), (15, 0.41)))[20:])},
            "is not falling",
        ),
        ({"extension": Extension(total_steps=16, seconds=1)}, "of only 0.00 % is to be expected"),
        (
            {"remaining": Remaining(seconds=100, reserve_s=30)},
            "110 s needed, 30 s of them for what follows, 100 s left of the time limit",
        ),
        (
            {"remaining": Remaining(micro_usd=20_000, reserve_micro_usd=10_000)},
            "$0.03 needed, $0.01 of it for what follows, $0.02 left of the budget",
        ),
    ],
)
def test_a_gain_that_must_not_be_extended_is_kept_with_the_reason(changes, says):
    decision = decide(evidence(**changes))
    assert (decision.action, decision.run, decision.rule) == ("keep", "sft-01", "keep-any-gain")
    assert says in decision.reason


def test_enough_time_and_money_for_extension_and_reserve_do_not_block():
    enough = Remaining(seconds=110, reserve_s=30, micro_usd=30_000, reserve_micro_usd=10_000)
    assert decide(evidence(remaining=enough)).action == "extend"


@pytest.mark.parametrize("gain", [0, -1, -15])
def test_no_gain_without_an_extension_is_discarded(gain):
    decision = decide(evidence(verdict=verdict(gain=gain), extension="no checkpoint"))
    assert (decision.action, decision.run, decision.rule) == ("discard", "sft-01", "discard-no-gain")


def test_a_run_that_is_worse_is_not_extended_however_its_loss_falls():
    decision = decide(evidence(verdict=verdict(gain=-15)))
    assert decision.action == "discard"
    assert "worse than the baseline" in decision.reason


def test_no_gain_and_no_room_for_another_run_stops_the_night():
    decision = decide(evidence(verdict=verdict(gain=0), remaining=Remaining(seconds=20, reserve_s=30)))
    assert (decision.action, decision.rule) == ("stop", "stop-at-reserve")
    assert "30 s needed, 30 s of them for what follows, 20 s left" in decision.reason


def test_a_gain_is_kept_even_where_the_reserve_is_gone():
    assert decide(evidence(remaining=Remaining(seconds=20, reserve_s=30))).action == "keep"


def test_an_extension_that_lost_gives_way_to_its_parent():
    parent = Parent(run="sft-01", verdict=verdict(gain=-10, base=60))
    decision = decide(evidence(run="sft-01-x1", verdict=verdict(gain=40), parent=parent, extensions=1))
    assert (decision.action, decision.run, decision.rule) == ("keep", "sft-01", "keep-parent")


def test_an_extension_without_gain_over_a_parent_without_gain_is_discarded():
    parent = Parent(run="sft-01", verdict=verdict(gain=-10, base=19))
    decision = decide(evidence(run="sft-01-x1", verdict=verdict(gain=-3), parent=parent, extensions=1))
    assert (decision.action, decision.run) == ("discard", "sft-01-x1")


def test_an_extension_that_gained_is_judged_like_any_run():
    parent = Parent(run="sft-01", verdict=verdict(gain=20, base=60))
    assert decide(evidence(run="sft-01-x1", parent=parent, extensions=1)).action == "extend"
    assert decide(evidence(run="sft-01-x1", parent=parent, extensions=2)).action == "keep"


def test_a_gain_below_that_of_another_run_is_discarded_and_not_extended() -> None:
    decision = decide(evidence(best_other=0.99, rung=(0.99,)))
    assert (decision.action, decision.rule) == ("discard", "discard-not-best")
    assert any("another run of its length scores clearly higher" in other for other in decision.alternatives)


def test_an_evaluation_ended_as_futile_discards_whatever_the_losses_say() -> None:
    decision = decide(evidence(futility=0.01))
    assert (decision.action, decision.rule) == ("discard", "discard-futile")


def test_a_parent_that_is_not_the_best_is_not_kept_for_its_extension() -> None:
    parent = Parent(run="sft-01", verdict=verdict(gain=-10, base=120))
    assert decide(evidence(run="sft-01-x1", parent=parent)).action == "keep"
    assert decide(evidence(run="sft-01-x1", parent=parent, best_other=0.99)).action == "discard"


def test_an_extension_within_the_noise_of_its_parent_is_kept_since_its_losses_fell() -> None:
    parent = Parent(run="sft-01", verdict=verdict(gain=-2, base=120))
    decision = decide(evidence(run="sft-01-x1", parent=parent, extensions=1, max_extensions=1))
    assert (decision.action, decision.run) == ("keep", "sft-01-x1")
