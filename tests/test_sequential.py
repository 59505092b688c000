"""Looks share one error rate; an evaluation ends early only where its goal is out of reach."""

import math
import random
import subprocess
import sys
from collections.abc import Callable

import pytest

from hfagent.agent.errors import UsageError
from hfagent.agent.records import BenchmarkRef, ModelRef
from hfagent.agent.sequential import (
    Futility,
    FutilityGoal,
    alpha_of_look,
    futile,
    look_key,
    predictive_probability,
    streaming_order,
)
from hfagent.agent.stats import binomial_mid_p
from hfagent.agent.thresholds import ALPHA, FUTILITY, FUTILITY_MIN_PROBLEMS
from hfagent.tools import benchmarks


def summed(wins: int, losses: int, done: int, total: int, reached: Callable[[int, int], bool]) -> float:
    """The definition: over every way in which the open problems may end."""
    open_, prior = total - done, (wins + 0.5, losses + 0.5, done - wins - losses + 1.0)
    front = math.lgamma(open_ + 1) + math.lgamma(sum(prior)) - math.lgamma(sum(prior) + open_)
    found = 0.0
    for more in range(open_ + 1):
        for fewer in range(open_ - more + 1):
            if reached(wins + more, losses + fewer):
                counts = (more, fewer, open_ - more - fewer)
                ways = zip(prior, counts, strict=True)
                found += math.exp(
                    front + sum(math.lgamma(a + n) - math.lgamma(a) - math.lgamma(n + 1) for a, n in ways)
                )
    return found


def test_looks_spend_less_and_less_and_all_together_alpha() -> None:
    spent = [alpha_of_look(look) for look in range(1, 20_001)]
    assert spent == sorted(spent, reverse=True)
    assert ALPHA * (1 - 1e-4) < math.fsum(spent) < ALPHA
    assert alpha_of_look(3, alpha=0.2) == pytest.approx(4 * alpha_of_look(3, alpha=0.05))
    with pytest.raises(UsageError, match="counted from 1"):
        alpha_of_look(0)


CASES = [(4, 6, 60, 120), (9, 3, 60, 120), (3, 8, 40, 80), (0, 0, 40, 90), (0, 20, 50, 70), (30, 0, 50, 90)]


@pytest.mark.parametrize("counts", CASES)
@pytest.mark.parametrize("lead", [0.0, 0.05, -0.05])
def test_the_probability_of_a_gain_is_the_sum_over_all_endings(counts: tuple[int, int, int, int], lead: float) -> None:
    margin = lead * counts[3] + 1e-9
    expected = summed(*counts, lambda won, lost: won - lost > margin)
    assert predictive_probability(*counts, goal="any_gain", lead=lead) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("counts", CASES)
@pytest.mark.parametrize("alpha", [0.05, 0.0076])
def test_the_probability_of_significance_follows_the_verdicts_test(
    counts: tuple[int, int, int, int], alpha: float
) -> None:
    expected = summed(*counts, lambda won, lost: binomial_mid_p(won, won + lost) <= alpha)
    assert predictive_probability(*counts, goal="significant", alpha=alpha) == pytest.approx(expected, abs=1e-11)


def test_when_all_is_answered_the_probability_is_the_answer() -> None:
    for wins, losses in ((10, 9), (10, 10), (20, 5)):
        assert predictive_probability(wins, losses, 100, 100, goal="any_gain") == pytest.approx(float(wins > losses))
        significant = binomial_mid_p(wins, wins + losses) <= 0.05
        assert predictive_probability(wins, losses, 100, 100, goal="significant") == pytest.approx(float(significant))


@pytest.mark.parametrize("counts", [(-1, 0, 5, 9), (3, 3, 5, 9), (1, 1, 10, 9)])
def test_counts_that_cannot_be_are_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError, match="cannot be"):
        predictive_probability(*counts, goal="any_gain")


def differences(wins: int, losses: int, done: int) -> list[float]:
    return [1.0] * wins + [-1.0] * losses + [0.0] * (done - wins - losses)


def test_a_hopeless_evaluation_ends_with_its_numbers_and_a_hopeful_one_goes_on() -> None:
    found = futile(differences(2, 14, 80), 160, goal="any_gain")
    assert isinstance(found, Futility)
    assert (found.done, found.total, found.wins, found.losses, found.delta) == (80, 160, 2, 14, -0.15)
    assert found.probability == predictive_probability(2, 14, 80, 160, goal="any_gain") < FUTILITY
    assert found.numbers["lead"] == 0
    assert found.numbers["alpha"] is None
    assert futile(differences(14, 2, 80), 160, goal="any_gain") is None
    # a gain that is not enough beside the incumbent's, nor for a claim
    assert futile(differences(9, 8, 80), 160, goal="any_gain") is None
    assert futile(differences(9, 8, 80), 160, goal="any_gain", lead=0.25) is not None
    assert futile(differences(9, 8, 150), 160, goal="significant") is not None


def test_nothing_ends_before_the_first_look_or_after_the_last_problem() -> None:
    early = FUTILITY_MIN_PROBLEMS - 1
    assert futile(differences(0, early, early), 200, goal="any_gain") is None
    assert futile(differences(0, 50, 100), 100, goal="any_gain") is None


@pytest.mark.parametrize("goal", ["any_gain", "significant"])
def test_fractions_of_many_samples_agree_with_outcomes_of_one(goal: FutilityGoal) -> None:
    for wins, losses in ((8, 12), (6, 9), (10, 8), (12, 20)):
        exact = predictive_probability(wins, losses, 80, 200, goal=goal)
        almost = [d * (1 - 1e-9) for d in differences(wins, losses, 80)]  # not 0 or 1, so the normal law is used
        found = futile(almost, 200, goal=goal, threshold=1.0)
        assert found is not None
        assert found.probability == pytest.approx(exact, abs=0.05)


def ended_early(
    delta: float, *, n: int, goal: FutilityGoal, nights: int, samples: int = 1
) -> tuple[float, float, float]:
    """Shares of nights that ended early, and that did so though their goal would have been reached; problems spared."""
    rng = random.Random(f"{delta} {n} {goal}")
    changed, ended, lost, spared = 0.2, 0, 0, 0.0
    for _ in range(nights):
        draws = [
            rng.choices((1, -1, 0), (changed + delta, changed - delta, 2 - 2 * changed), k=samples) for _ in range(n)
        ]
        night = [math.fsum(draw) / samples for draw in draws]
        for done in range(50, n, 50):
            if futile(night[:done], n, goal=goal) is not None:
                wins, losses = night.count(1), night.count(-1)
                gain = math.fsum(night) > 1e-9
                ended, spared = ended + 1, spared + (n - done) / n
                lost += gain if goal == "any_gain" else binomial_mid_p(wins, wins + losses) <= ALPHA
                break
    return ended / nights, lost / nights, spared / nights


@pytest.mark.parametrize("n", [164, 200])
@pytest.mark.parametrize(("goal", "bad", "worse"), [("any_gain", 0.08, 0.3), ("significant", 0.28, 0.5)])
def test_good_candidates_are_kept_and_bad_ones_cost_less(n: int, goal: FutilityGoal, bad: float, worse: float) -> None:
    _, lost, _ = ended_early(0.034, n=n, goal=goal, nights=600)
    assert lost < 0.01
    assert ended_early(-0.034, n=n, goal=goal, nights=200)[2] > bad
    assert ended_early(-0.1, n=n, goal=goal, nights=200)[2] > worse


def test_the_threshold_holds_for_fractions_too() -> None:
    assert ended_early(0.034, n=200, goal="any_gain", nights=300, samples=4)[1] < 0.02
    assert ended_early(-0.1, n=200, goal="any_gain", nights=100, samples=4)[2] > 0.6


def test_the_order_is_a_shuffle_that_every_process_repeats() -> None:
    ids = [f"search-0-{number:04d}" for number in range(300)]
    order = streaming_order(ids, 0)
    assert sorted(order) == ids
    assert order == streaming_order(ids[::-1], 0) != streaming_order(ids, 1)
    half = [int(name[-4:]) for name in order[:150]]
    assert abs(sum(half) / 150 - 149.5) < 4 * 300 / math.sqrt(12 * 150) / math.sqrt(2)
    code = "from hfagent.agent.sequential import streaming_order as s; print(*s([f'{i}' for i in range(9)], 3))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == streaming_order([f"{i}" for i in range(9)], 3)


MODEL = ModelRef(id="org/Model", revision="main")
FIXED = BenchmarkRef(name="openai_humaneval", set="confirm")


@pytest.mark.parametrize("revision", [None, "main", "8c1f0a"])
@pytest.mark.parametrize("name", ["org/Model", "org/model", "org/Model/"])
@pytest.mark.parametrize("changes", [{}, {"n": 163}, {"seed": 5}])
def test_what_leaves_the_problems_seen_does_not_reset_the_count(
    revision: str | None, name: str, changes: dict[str, int]
) -> None:
    same = look_key(ModelRef(id=name, revision=revision), FIXED.model_copy(update=changes))
    assert same == look_key(MODEL, FIXED)


@pytest.mark.parametrize("name", ["openai_humaneval", "procedural_python", "procedural_math", "reasoning_gym"])
def test_another_seed_is_another_count_where_it_draws_other_problems(name: str) -> None:
    one, two = (BenchmarkRef(name=name, set="confirm", n=5, seed=seed) for seed in (0, 1))
    fresh = [p.prompt for p in benchmarks.problems(one)] != [p.prompt for p in benchmarks.problems(two)]
    assert (look_key(MODEL, one) != look_key(MODEL, two)) == fresh
    assert look_key(MODEL, one) != look_key(ModelRef(id="org/other"), one)
    assert look_key(MODEL, one) != look_key(MODEL, one.model_copy(update={"set": "search"}))


@pytest.mark.parametrize("name", ["gsm8k", "math_500", "mbpp", "ifeval"])
def test_rows_from_the_hub_are_counted_once_whatever_the_seed(name: str) -> None:
    one, two = (BenchmarkRef(name=name, set="confirm", seed=seed, revision="8c1f0a") for seed in (0, 1))
    assert look_key(MODEL, one) == look_key(MODEL, two)
