"""The verdict: known cases, its error rates and coverage in simulation, and what it refuses."""

import random

import pytest
from scipy import stats as reference

from hfagent.agent.errors import UsageError
from hfagent.agent.verdict import compare, sentence


def outcomes(wins, losses, *, n=164, both=0):
    """Baseline and candidate that differ on so many problems and both solve `both` more."""
    base = [0.0] * wins + [1.0] * losses + [1.0] * both + [0.0] * (n - wins - losses - both)
    candidate = [1.0] * wins + [0.0] * losses + [1.0] * both + [0.0] * (n - wins - losses - both)
    return ({str(i): v for i, v in enumerate(values)} for values in (base, candidate))


def fractions(rng, *, n=100, k=10, gain=0.0):
    """Two arms of k samples a problem; problems differ in difficulty."""
    difficulties = [rng.betavariate(0.5, 0.8) for _ in range(n)]

    def arm(extra):
        return {str(i): sum(rng.random() < min(p + extra, 1) for _ in range(k)) / k for i, p in enumerate(difficulties)}

    return arm(0), arm(gain)


def test_the_published_gain_of_six_problems_is_not_detectable():
    verdict = compare(*outcomes(16, 10, both=40))
    assert verdict.label == "no_detectable_difference"
    assert (verdict.n, verdict.wins, verdict.losses) == (164, 16, 10)
    assert (verdict.base_score, verdict.candidate_score) == (50 / 164, 56 / 164)
    assert verdict.p_value == pytest.approx(0.124, abs=5e-4)
    assert (verdict.ci_low, verdict.ci_high) == pytest.approx((-0.026, 0.098), abs=5e-4)
    assert verdict.mde == pytest.approx(2.486 * (26 / 164 / 164) ** 0.5, abs=1e-4)
    assert sentence(verdict) == (
        "no detectable difference: 0.305 -> 0.341 pass@1 on 164 problems, +3.7 points (95 % interval -2.6 to +9.8), "
        "one-sided p = 0.12; could have missed a gain of up to 7.7 points"
    )


def test_a_clear_gain_is_better_and_its_reverse_is_worse():
    base, candidate = outcomes(95, 12, n=200, both=9)
    verdict = compare(base, candidate)
    assert sentence(verdict) == (
        "better: 0.105 -> 0.520 pass@1 on 200 problems, +41.5 points (95 % interval +32.7 to +49.5), "
        "one-sided p = 9.8e-18"
    )
    assert sentence(compare(candidate, base)).startswith("worse: 0.520 -> 0.105 pass@1 on 200 problems, -41.5 points")


@pytest.mark.parametrize(("losses", "enough"), [(0, 4), (2, 8), (4, 11)])
def test_wins_that_suffice_at_the_five_percent_level(losses, enough):
    assert compare(*outcomes(enough, losses)).label == "better"
    assert compare(*outcomes(enough - 1, losses)).label == "no_detectable_difference"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("k", [1, 5])
def test_swapping_the_arms_mirrors_the_verdict(seed, k):
    rng = random.Random(seed)
    base, candidate = fractions(rng, n=rng.choice([3, 12, 40]), k=k, gain=rng.choice([0, 0.5]))
    one, two = compare(base, candidate), compare(candidate, base)
    mirror = {"better": "worse", "worse": "better", "no_detectable_difference": "no_detectable_difference"}
    assert two.label == mirror[one.label]
    assert (two.wins, two.losses) == (one.losses, one.wins)
    assert (two.delta, two.ci_low, two.ci_high) == pytest.approx((-one.delta, -one.ci_high, -one.ci_low))
    assert one.ci_low <= one.delta <= one.ci_high


def test_several_samples_are_judged_as_scipys_paired_t_test():
    base, candidate = fractions(random.Random(1), gain=0.1)
    verdict = compare(base, candidate, alpha=0.02, margin=0.03)
    differences = [candidate[i] - base[i] for i in base]
    theirs = reference.ttest_1samp(differences, 0.03, alternative="greater")
    interval = reference.ttest_1samp(differences, 0).confidence_interval(0.98)
    assert verdict.test == "paired-t"
    assert verdict.p_value == pytest.approx(theirs.pvalue)
    assert (verdict.ci_low, verdict.ci_high) == pytest.approx((interval.low, interval.high))


def test_few_problems_with_several_samples_are_judged_by_flipping_signs():
    base = {str(i): 0.1 * i for i in range(5)}
    verdict = compare(base, {i: v + 0.2 for i, v in base.items()})
    assert (verdict.test, verdict.p_value, verdict.label) == ("sign-flip", 1 / 32, "better")


def simulate(draw, *, margin=0.0, truth=0.0, runs=1500):
    """Shares of better and of intervals that hold the truth."""
    rng = random.Random(7)
    verdicts = [compare(*draw(rng), margin=margin) for _ in range(runs)]
    return (
        sum(v.label == "better" for v in verdicts) / runs,
        sum(v.ci_low <= truth <= v.ci_high for v in verdicts) / runs,
    )


def binary(*, n, win, loss):
    def draw(rng):
        moves = rng.choices([1, -1, 0], [win, loss, 1 - win - loss], k=n)
        return outcomes(moves.count(1), moves.count(-1), n=n)

    return draw


@pytest.mark.parametrize(
    ("draw", "margin", "runs"),
    [
        (binary(n=164, win=0.1, loss=0.1), 0.0, 1500),
        (binary(n=30, win=0.15, loss=0.15), 0.0, 1500),
        (binary(n=164, win=0.125, loss=0.075), 0.05, 1500),
        (binary(n=164, win=0.04, loss=0.06), -0.02, 1500),
        (lambda rng: fractions(rng, n=60, k=4), 0.0, 300),
    ],
    ids=["one sample", "few problems", "margin", "guard", "four samples"],
)
def test_at_the_margin_better_is_rare_and_the_interval_holds(draw, margin, runs):
    false_rate, coverage = simulate(draw, margin=margin, truth=margin, runs=runs)
    slack = 3 * (0.05 * 0.95 / runs) ** 0.5  # three standard errors of the simulation
    assert false_rate <= 0.05 + slack
    assert coverage >= 0.95 - slack


def test_the_minimum_detectable_effect_is_found_in_four_of_five_nights():
    effect = compare(*outcomes(16, 16)).mde
    share = 32 / 164
    found, _ = simulate(binary(n=164, win=(share + effect) / 2, loss=(share - effect) / 2))
    assert 0.72 <= found <= 0.88


def test_a_guard_asks_only_whether_a_loss_is_excluded():
    guard = compare(*outcomes(0, 0), margin=-0.02)
    assert guard.label == "better"
    assert sentence(guard).startswith("not worse by more than 2 points: 0.000 -> 0.000")
    small = compare(*outcomes(0, 0, n=50), margin=-0.02)
    assert small.label == "no_detectable_difference"
    assert sentence(small).startswith("a loss of 2 points is not excluded: ")
    assert compare(*outcomes(2, 30), margin=-0.02).label == "worse"


def test_a_margin_demands_more_than_a_gain():
    gain = 20, 8
    assert compare(*outcomes(*gain)).label == "better"
    strict = compare(*outcomes(*gain), margin=0.05)
    assert strict.label == "no_detectable_difference"
    assert sentence(strict).startswith("no difference shown beyond 5 points")
    assert sentence(compare(*outcomes(60, 8), margin=0.05)).startswith("better by more than 5 points")


def test_equal_fractions_claim_nothing_and_admit_what_they_cannot_see():
    same = {str(i): 0.3 for i in range(20)}
    verdict = compare(same, same)
    assert verdict.label == "no_detectable_difference"
    assert verdict.mde is None
    assert verdict.ci_low < -0.05
    assert verdict.ci_high > 0.05
    assert "could have missed" not in sentence(verdict)


@pytest.mark.parametrize(
    ("base", "candidate", "options", "says"),
    [
        ({}, {}, {}, "no outcomes"),
        ({"a": 1, "b": 1}, {"a": 1}, {}, "1 problems have no outcome of the candidate, e.g. 'b'"),
        ({"a": 1}, dict.fromkeys("abcdef", 1), {}, "5 problems have no outcome of the baseline, e.g. 'b', 'c', 'd':"),
        ({"a": 1}, {"a": 1.5}, {}, "outcome 1.5 of problem 'a' (candidate)"),
        ({"a": float("nan")}, {"a": 1}, {}, "outcome nan of problem 'a' (baseline)"),
        ({"a": 1}, {"a": 1}, {"alpha": 0}, "alpha 0"),
        ({"a": 1}, {"a": 1}, {"alpha": 1.2}, "alpha 1.2"),
        ({"a": 1}, {"a": 1}, {"margin": float("nan")}, "margin nan"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(base, candidate, options, says):
    with pytest.raises(UsageError) as refused:
        compare(base, candidate, **options)
    assert says in str(refused.value)
