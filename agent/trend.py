"""What the losses of a run say: still falling, worth continuing, overfit. Pure; series too short to tell give None."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from hfagent.agent.records import MetricPoint
from hfagent.agent.stats import NORMAL

MIN_POINTS = 6
"""Fewer than five points cannot show a trend at the 5 % level at all."""
FLAT = 0.05
"""Evaluation losses that differ by less than this share count as equal."""
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

    level: float
    """Loss now: median of the last points."""
    slope_high: float
    """Upper bound of the slope of ln(loss) over ln(step), the less steep of the two looked at."""
    gain: float
    """Relative fall of the loss that is to be expected at least, by that bound; negative where it may rise."""


def series(points: Sequence[MetricPoint], metric: str) -> Series:
    """The finite values of one metric by step; of several rows for a step the last counts."""
    values = {p.step: v for p in points if p.step >= 1 and (v := p.values.get(metric)) is not None}
    return sorted(values.items())


def stable_losses(points: Sequence[MetricPoint]) -> Series:
    """Training losses while the learning rate was at its top: warm-up and decay move the loss by themselves.

    All of them where no learning rate was logged.
    """
    return _at_top_rate(points, series(points, "train/loss"))


def shortfalls(points: Sequence[MetricPoint], most: float) -> Series:
    """How far the reward of a training step lies below the most that it can be: what GRPO lowers, like a loss."""
    return _at_top_rate(points, [(step, most - reward) for step, reward in series(points, "train/reward")])


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
    """Forecast the relative fall of the loss up to `total_steps`, as a power law: a line in ln(loss) over ln(step).

    A curve that flattens falls less than that, so the upper bound of the slope counts and not the estimate, and the
    last two thirds must fall by themselves. Bounds are one-sided, 95 % over all points and 90 % over the last ones.

    Returns:
        None below `MIN_POINTS` losses above zero (a loss of 0.0 is how a trainer may log NaN).
    """
    losses = [(step, loss) for step, loss in losses if loss > 0]
    if len(losses) < MIN_POINTS:
        return None
    losses = _thin(losses)
    logs = [(step, math.log(loss)) for step, loss in losses]
    recent = logs[min(len(logs) // 3, len(logs) - MIN_POINTS) :]
    slope_high = max(_trend(logs, confidence=0.9).high, _trend(recent, confidence=0.8).high)
    log_growth = max(math.log(total_steps / losses[-1][0]), 0.0)
    # A rise beyond e-fold says nothing more, and two odd points next to each other would overflow.
    gain = -math.expm1(min(slope_high * log_growth, 1.0))
    return Outlook(median(loss for _, loss in losses[-4:]), slope_high, gain)


def held_out_outlook(points: Sequence[MetricPoint], *, total_steps: int) -> Outlook | None:
    """The same forecast from the evaluation loss: few values, but always over the same rows, so without the noise of
    batches. The least steep fall between two neighbours counts, halved because curves flatten.

    Returns:
        None below two evaluation losses above zero at the top learning rate.
    """
    losses = [(step, loss) for step, loss in _at_top_rate(points, series(points, "eval/loss")) if loss > 0]
    if len(losses) < 2:
        return None
    slopes = [
        math.log(loss / before) / math.log(step / first)
        for (first, before), (step, loss) in pairwise(losses)
        if abs(loss / before - 1) > FLAT
    ]
    slope_high = max(slopes) / 2 if len(slopes) == len(losses) - 1 else 0.0
    gain = -math.expm1(min(slope_high * max(math.log(total_steps / losses[-1][0]), 0.0), 1.0))
    return Outlook(losses[-1][1], slope_high, gain)


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


def _at_top_rate(points: Sequence[MetricPoint], losses: Series) -> Series:
    rates = dict(series(points, "train/learning_rate"))
    top = max(rates.values(), default=0.0)
    return [(step, loss) for step, loss in losses if rates.get(step, top) >= 0.99 * top]


def _trend(losses: Series, *, confidence: float) -> Trend:
    return theil_sen([math.log(step) for step, _ in losses], [loss for _, loss in losses], confidence=confidence)


def _thin(losses: Series) -> Series:
    size = -(-len(losses) // MAX_POINTS)
    blocks = [losses[i : i + size] for i in range(0, len(losses), size)]
    return [(block[-1][0], fmean(loss for _, loss in block)) for block in blocks]
