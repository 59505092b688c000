"""Tail probabilities that the verdict rests on: standard library only, so that no start waits for scipy."""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

NORMAL = NormalDist()
INTEGRATION_STEPS = 400


def binomial_mid_p(successes: int, trials: int) -> float:
    """P(X > successes) + P(X = successes) / 2 for a fair coin, summed in exact integers."""
    more = sum(math.comb(trials, k) for k in range(successes + 1, trials + 1))
    outcomes: int = 2**trials
    return (2 * more + math.comb(trials, successes)) / (2 * outcomes)


def sign_flip_p(values: Sequence[float]) -> float:
    """Exact P(sum >= observed) when each value's sign is a fair coin; cost doubles with each value."""
    sums = [0.0]
    for value in values:
        sums = [s + value for s in sums] + [s - value for s in sums]
    # Slack: the same sum taken in another order differs in its last bits and must count as equal.
    return sum(s >= sums[0] - 1e-9 for s in sums) / len(sums)


def student_sf(t: float, df: int) -> float:
    """P(T > t) of Student's t, accurate to about 1e-12 relative even far out in the tail."""
    if t < 0:
        return 1.0 - student_sf(-t, df)
    return 0.5 * _beta_cdf(df / (df + t * t), df / 2, 0.5)


@lru_cache(maxsize=1024)
def student_quantile(p: float, df: int) -> float:
    """The t with P(T <= t) = p, for 0.5 <= p < 1."""
    low, high = 0.0, 1.0
    while student_sf(high, df) > 1 - p:
        high *= 2
    for _ in range(80):  # halvings: beyond a double's 53 bits
        middle = (low + high) / 2
        low, high = (middle, high) if student_sf(middle, df) > 1 - p else (low, middle)
    return high


def wilson(count: float, total: int) -> tuple[float, float]:
    """95 % interval of a share; Wilson (1927)."""
    z = NORMAL.inv_cdf(0.975)
    share, spread = count / total, z * z / total
    centre = share + spread / 2
    reach = math.sqrt(spread * (share * (1 - share) + spread / 4))
    # At shares of 0 and 1 rounding may push a bound past the share itself.
    return min((centre - reach) / (1 + spread), share), max((centre + reach) / (1 + spread), share)


def given_significant(estimate: float, error: float, *, alpha: float) -> float:
    """The gain to expect of one that is published only when significant.

    A gain of 5 points with a standard error of 2 is often the luck of one of 4. The mean over all gains from 0 on,
    each weighted by the likelihood of the estimate given that it came out significant (the conditional likelihood of
    Zhong & Prentice 2008, Biostatistics 9, 621-634, under a flat prior).

    Args:
        estimate: observed, above the threshold.
        error: its standard error; 0 leaves it as it is.
        alpha: one-sided error rate of the test.
    """
    if error <= 0:
        return estimate
    threshold, high = NORMAL.inv_cdf(1 - alpha) * error, estimate + 5 * error
    total = weighted = 0.0
    for step in range(INTEGRATION_STEPS):
        gain = high * (step + 0.5) / INTEGRATION_STEPS
        weight = NORMAL.pdf((estimate - gain) / error) / NORMAL.cdf((gain - threshold) / error)
        total, weighted = total + weight, weighted + weight * gain
    return weighted / total


def _beta_cdf(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta I_x(a, b) by its continued fraction (DLMF 8.17.22), modified Lentz."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges slowly there
        return 1.0 - _beta_cdf(1 - x, b, a)
    tiny = 1e-300
    d = 1 / (1 - (a + b) * x / (a + 1))
    c, fraction = 1.0, d
    for m in range(1, 1000):  # about 30 rounds suffice for the arguments of a t tail
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for numerator in (even, odd):
            d = 1 / (1 + numerator * d or tiny)
            c = 1 + numerator / c or tiny
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * fraction / a
