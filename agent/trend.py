"""What the losses of a run say: still falling, worth continuing, overfit. Pure; series too short to tell give None."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from hfagent.agent.records import MetricPoint
from hfagent.agent.stats import NORMAL

MIN_POINTS = 6
"""Fewer than five points cannot show a trend at the 5 % level at all."""
MAX_POINTS = 120
"""Longer series are averaged in blocks: the fit looks at every pair of points."""

Series = list[tuple[int, float]]
"""(optimizer step, value), step from 1 and strictly rising."""


@dataclass(frozen=True)
class Trend:
    """A robust straight line through a series, by Theil-Sen."""

    slope: float
    """Median of the slopes between all pairs of points."""
    low: float
    high: float
    """Confidence bounds of the slope."""


@dataclass(frozen=True)
class Outlook:
    """What continuing a run promises."""

    slope_high: float
    """Upper bound of the loss's slope per unit of ln(step), the less steep of the two looked at."""
    level: float
    """Loss now: median of the last points."""
    gain: float
    """Relative fall of the loss to be expected at least, by that bound; negative where it may rise."""


def series(points: Sequence[MetricPoint], metric: str) -> Series:
    """The finite values of one metric by step; of several rows for a step the last counts."""
    values = {p.step: v for p in points if p.step >= 1 and (v := p.values.get(metric)) is not None}
    return sorted(values.items())


def stable_losses(points: Sequence[MetricPoint]) -> Series:
    """Training losses while the learning rate was at its top: warm-up and decay move the loss by themselves.

    All of them where no learning rate was logged.
    """
    losses = series(points, "train/loss")
    rates = dict(series(points, "train/learning_rate"))
    top = max(rates.values(), default=0.0)
    return [(step, loss) for step, loss in losses if rates.get(step, top) >= 0.99 * top]


def theil_sen(x: Sequence[float], y: Sequence[float], *, confidence: float) -> Trend:
    """Fit a line; the two-sided interval is Sen's (1968), with his correction for ties in y.

    Args:
        x: strictly rising, at least two points.
        y: as many values.
        confidence: of the interval; a single bound then holds with (1 + confidence) / 2.
    """
    n = len(y)
    slopes = sorted((y[j] - y[i]) / (x[j] - x[i]) for i in range(n) for j in range(i + 1, n))
    ties = sum(k * (k - 1) * (2 * k + 5) for k in Counter(y).values())
    sigma = math.sqrt((n * (n - 1) * (2 * n + 5) - ties) / 18)
    reach = NORMAL.inv_cdf((1 + confidence) / 2) * sigma
    first = max(round((len(slopes) - reach) / 2) - 1, 0)
    last = min(round((len(slopes) + reach) / 2), len(slopes) - 1)
    return Trend(median(slopes), slopes[first], slopes[last])


def outlook(losses: Series, *, total_steps: int) -> Outlook | None:
    """Forecast the fall of the loss up to `total_steps`, a straight line in ln(step).

    A line in ln(step) promises too much once a curve flattens, so the bound counts and not the estimate, and the last
    two thirds must fall by themselves: in simulations of 14 to 32 noisy points that cuts extensions of a run which
    fell early and then lay flat from 54-100 % to 7-17 %, at 8 % noise. One-sided bounds: 95 % over all, 90 % over
    the last two thirds. None below `MIN_POINTS` losses.
    """
    if len(losses) < MIN_POINTS:
        return None
    losses = _thin(losses)
    recent = losses[min(len(losses) // 3, len(losses) - MIN_POINTS) :]
    slope_high = max(_trend(losses, confidence=0.9).high, _trend(recent, confidence=0.8).high)
    level = median(loss for _, loss in losses[-4:])
    fall = -slope_high * math.log(max(total_steps / losses[-1][0], 1.0))
    return Outlook(slope_high, level, min(fall / level, 1.0) if level > 0 else 0.0)


def eval_slope(points: Sequence[MetricPoint]) -> float | None:
    """Median slope of the evaluation loss per unit of ln(step); None below three of them."""
    losses = series(points, "eval/loss")
    return _trend(_thin(losses), confidence=0.9).slope if len(losses) >= 3 else None


def generalization_loss(points: Sequence[MetricPoint]) -> float | None:
    """Prechelt's GL (1998): how far the last evaluation loss lies above the lowest one, in percent."""
    losses = [loss for _, loss in series(points, "eval/loss")]
    if len(losses) < 2 or min(losses) <= 0:
        return None
    return 100 * (losses[-1] / min(losses) - 1)


def _trend(losses: Series, *, confidence: float) -> Trend:
    return theil_sen([math.log(step) for step, _ in losses], [loss for _, loss in losses], confidence=confidence)


def _thin(losses: Series) -> Series:
    size = -(-len(losses) // MAX_POINTS)
    blocks = [losses[i : i + size] for i in range(0, len(losses), size)]
    return [(block[-1][0], fmean(loss for _, loss in block)) for block in blocks]
