"""Tail probabilities against scipy, far into the tail."""

import math
import random
from statistics import fmean

import pytest
from scipy import stats as reference

from hfagent.agent.stats import NORMAL, binomial_mid_p, given_significant, sign_flip_p, student_quantile, student_sf


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (16, 26), (0, 5), (5, 5), (95, 107), (600, 900)])
def test_binomial_mid_p_is_scipys(successes, trials):
    coin = reference.binom(trials, 0.5)
    assert binomial_mid_p(successes, trials) == pytest.approx(coin.sf(successes) + coin.pmf(successes) / 2, rel=1e-9)


@pytest.mark.parametrize("df", [1, 2, 12, 163, 1318])
@pytest.mark.parametrize("t", [-3.0, 0.0, 0.4, 1.7, 6.0, 25.0])
def test_student_tail_is_scipys(df, t):
    assert student_sf(t, df) == pytest.approx(reference.t.sf(t, df), rel=1e-10)


@pytest.mark.parametrize("df", [1, 12, 163])
@pytest.mark.parametrize("p", [0.5, 0.95, 0.975, 0.9999])
def test_student_quantile_is_scipys(df, p):
    assert student_quantile(p, df) == pytest.approx(reference.t.ppf(p, df), abs=1e-9, rel=1e-9)


def test_sign_flip_counts_the_sums_at_least_as_large():
    assert sign_flip_p([]) == 1
    assert sign_flip_p([0.1, 0.2, 0.3]) == 1 / 8
    # 0.3 against 0.1 + 0.2: equal sums must count as equal although their last bits differ.
    assert sign_flip_p([0.1, 0.2, -0.3]) == sum(
        a * 1 + b * 2 + c * 3 >= 0 for a in (1, -1) for b in (1, -1) for c in (1, -1)
    ) / math.prod((2, 2, 2))


def test_the_gain_corrected_for_significance_is_near_the_truth() -> None:
    rng, error, alpha = random.Random(0), 2.6, 0.0304
    threshold = NORMAL.inv_cdf(1 - alpha) * error
    for truth, most in ((5.0, 0.6), (7.0, 0.6), (10.0, 0.8)):
        seen = [x for x in (rng.gauss(truth, error) for _ in range(3000)) if x > threshold][:600]
        corrected = fmean(given_significant(x, error, alpha=alpha) for x in seen)
        assert abs(corrected - truth) < most
    assert fmean([x for x in (rng.gauss(5.0, error) for _ in range(20_000)) if x > threshold]) > 5.5  # as observed
    assert given_significant(30.0, error, alpha=alpha) == pytest.approx(30.0, abs=1e-3)
    assert 0 < given_significant(threshold + 1e-6, error, alpha=alpha) < threshold
    assert given_significant(5.0, 0.0, alpha=alpha) == 5.0
