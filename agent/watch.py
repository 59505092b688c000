"""What is wrong with a training run while it goes: a pure look at its metrics, its progress and its time.

No flag rests on one noisy value: healthy runs of few logs or small batches must not be stopped.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import dropwhile, pairwise, takewhile
from statistics import median

from pydantic import Field

from hfagent.agent import thresholds as limits
from hfagent.agent import trend
from hfagent.agent.findings import Flag, FlagName
from hfagent.agent.records import Method, MetricPoint, Record
from hfagent.agent.train_config import SAMPLING

MAD_TO_SD = 1.4826
"""Standard deviation over median absolute deviation, for normal noise."""
Fault = tuple[int, str]
"""(step, sentence)"""


class Watched(Record):
    """What is known of one training job at one moment."""

    points: tuple[MetricPoint, ...] = ()
    """Metrics of this job alone: the trouble of a job before a restart would be found again."""
    method: Method = "sft"
    total_steps: int | None = Field(default=None, ge=1)
    warmup_steps: int = Field(default=0, ge=0)
    vocab_size: int | None = Field(default=None, ge=2)
    running_s: float | None = Field(default=None, ge=0)
    """Since the job's start; None while it is queued, which is neither a hang nor a late start."""
    progress: tuple[tuple[float, int], ...] = ()
    """(seconds since the job's start at which a new step was first seen, step), both rising."""
    timeout_s: int | None = Field(default=None, ge=1)
    start_deadline_s: float = Field(default=limits.START_DEADLINE_S, gt=0)
    """For the first step to be seen; more where loading or the first logging interval takes long."""

    @property
    def stepping(self) -> bool:
        """Whether steps are still due: after the last one a job saves its model and logs nothing more."""
        last = max((step for _, step in self.progress), default=0)
        return self.running_s is not None and (self.total_steps is None or last < self.total_steps)


def flags(watched: Watched) -> tuple[Flag, ...]:
    """All that is wrong or worth recording now, most severe first."""
    looks = (_nan, _diverged, _dead_reward, _hung, _no_start, _overfit, _too_slow, _plateau)
    found = (look(watched) for look in looks)
    return tuple(flag for flag in found if flag is not None)


def floor_of(losses: Sequence[float]) -> float | None:
    """The running minimum of a noisy series: the lowest median of five neighbours; None below five values.

    The lowest single value would sink with the number of logs, by noise alone.
    """
    size = limits.FLOOR_LOGS
    return min((median(losses[i : i + size]) for i in range(0, len(losses) - size + 1, size)), default=None)


def loss_limit(before: Sequence[float]) -> float | None:
    """The loss above which some logs in a row mean divergence, from the positive losses before them.

    The lower of two: three times the floor, but clear of the noise of ln(loss); and the median of the last 50 plus six
    robust standard deviations. Both lie at least `DIVERGENCE_RISE` higher: near 0.02 three times is nothing.

    Returns:
        None below five losses.
    """
    floor = floor_of(before)
    if floor is None:
        return None
    logs = [math.log(loss) for loss in before[-limits.NOISE_LOGS :]]
    # Neighbours alone hide a noise that lasts over some logs, but a short run has a steep fall instead.
    lags = (1, limits.FLOOR_LOGS) if len(before) >= limits.DIVERGENCE_WINDOW else (1,)
    noise = max(_noise(logs, lag) for lag in lags)
    # A factor beyond e^20 is no limit any more, and losses near zero would overflow.
    factor = max(limits.DIVERGENCE_RATIO, math.exp(min(limits.DIVERGENCE_NOISE * noise, 20.0)))
    by_floor = max(factor * floor, floor + limits.DIVERGENCE_RISE)
    recent = before[-limits.DIVERGENCE_WINDOW :]
    if len(recent) < limits.DIVERGENCE_MIN_WINDOW:
        return by_floor
    rise = max(limits.DIVERGENCE_Z * MAD_TO_SD * _mad(recent), limits.DIVERGENCE_RISE)
    return min(by_floor, median(recent) + rise)


def diverging_since(losses: Sequence[float]) -> int | None:
    """Index from which the latest of these positive losses diverge; None while they do not.

    Needed are `DIVERGENCE_LOGS` logs in a row above `loss_limit`, and one more for each outlier above it in the last 50
    logs before: where hard batches are common, three of them meet by chance. The first losses of a run, from before
    it came below the limit, are no outliers.

    Simulated, with a look after each log. False alarms in healthy runs (A t^-a + L, L 0.5 and 3): none in 31,650 with
    independent noise of 5 to 50 % (10 to 300 logs, 150 of 2,000). Noise with a correlation of 0.7 between neighbours:
    5 of 300 with 300 logs, 2 of 30 with 2,000. 5 % hard batches: 2 of 300 with 300 logs. A jump from 0.5 to 2.5 after
    20 logs with 5 % noise, or after 100 with 25 %, is mostly found at the third log; after 20 with 25 % in 1 run of 4,
    and a slow rise under 25 % noise late or not at all.
    """
    limit = loss_limit(losses[: -limits.DIVERGENCE_LOGS])
    if limit is None or min(losses[-limits.DIVERGENCE_LOGS :]) <= limit:
        return None
    start = len(losses)
    while start > 0 and losses[start - 1] > limit:
        start -= 1
    earlier = dropwhile(limit.__lt__, losses[max(start - limits.DIVERGENCE_WINDOW, 0) : start])
    outliers = sum(loss > limit for loss in earlier)
    return start if len(losses) - start >= limits.DIVERGENCE_LOGS + outliers else None


def _noise(logs: Sequence[float], lag: int) -> float:
    """Robust standard deviation of the values, from their changes, so that a steady fall is no noise."""
    return MAD_TO_SD * _mad([b - a for a, b in zip(logs, logs[lag:], strict=False)]) / math.sqrt(2)


def _mad(values: Sequence[float]) -> float:
    middle = median(values)
    return median(abs(value - middle) for value in values)


def _nan(watched: Watched) -> Flag | None:
    points = sorted(watched.points, key=lambda point: point.step)
    logs = [point for point in points if "train/loss" in point.values]
    faults = [*_no_numbers(points), *_dead_gradient(logs)]
    if watched.method != "grpo":  # its loss is 0.0 wherever the advantages of a group cancel
        faults += _zeros(logs)
    if not faults:
        return None
    step, reason = min(faults)
    return _flag("nan", step, reason)


def _no_numbers(points: Sequence[MetricPoint]) -> Iterator[Fault]:
    for point in points:
        for metric in ("train/loss", "eval/loss"):
            if metric in point.values and point.values[metric] is None:
                yield point.step, f"{metric} is NaN or infinite at step {point.step}"


def _dead_gradient(logs: Sequence[MetricPoint]) -> Iterator[Fault]:
    run: list[int] = []
    for point in logs:
        dead = "train/grad_norm" in point.values and point.values["train/grad_norm"] is None
        run = [*run, point.step] if dead else []
        if len(run) == limits.DEAD_GRADIENT_LOGS:
            yield run[0], f"train/grad_norm is NaN or infinite in {len(run)} logs in a row from step {run[0]}"


def _zeros(logs: Sequence[MetricPoint]) -> Iterator[Fault]:
    """Losses of exactly 0.0 that are NaN in disguise: with a gradient that is none, or repeated out of the blue."""
    lowest, run = math.inf, list[int]()
    for point in logs:
        loss, gradient = point.values["train/loss"], point.values.get("train/grad_norm", 0.0)
        if loss != 0.0 or (gradient is not None and gradient > 0):
            lowest, run = min(lowest, abs(loss or math.inf)), []
            continue
        run.append(point.step)
        if gradient is None:
            yield point.step, f"train/loss 0.0 beside a grad_norm that is NaN or infinite at step {point.step}"
        elif len(run) == limits.ZERO_LOGS and lowest > limits.CONVERGED_LOSS:
            yield (
                run[0],
                f"train/loss is exactly 0.0 in {len(run)} logs in a row from step {run[0]}: a NaN filtered out",
            )


def _diverged(watched: Watched) -> Flag | None:
    """The state now: an outlier that passed needs no answer. The loss of GRPO has no level, so it cannot tell."""
    if watched.method == "grpo":
        return None
    losses = [(step, loss) for step, loss in trend.series(watched.points, "train/loss") if loss > 0]
    if not losses:
        return None
    values = [loss for _, loss in losses]
    before, (last, loss) = values[: -limits.DIVERGENCE_LOGS], losses[-1]
    limit, floor = loss_limit(before), floor_of(before)
    numbers = {"loss": loss, "limit": limit, "floor": floor}
    if watched.method == "sft" and watched.vocab_size is not None and last > watched.warmup_steps:
        chance = math.log(watched.vocab_size)
        worse = [step for step, value in takewhile(lambda item: item[1] > chance, reversed(losses))]
        if loss > limits.CHANCE_FACTOR * chance or len(worse) >= limits.CHANCE_LOGS:
            reason = f"train/loss {loss:.3g} at step {last}: uniform guessing has {chance:.3g}"
            return _flag("diverged", worse[-1], reason, {**numbers, "limit": chance})
    start = diverging_since(values)
    if start is None:
        return None
    count = len(values) - start
    reason = f"train/loss above {limit:.3g} in {count} logs in a row, now {loss:.3g}, and was {floor:.3g}"
    return _flag("diverged", losses[start][0], reason, numbers)


def _dead_reward(watched: Watched) -> Flag | None:
    """Groups of equal rewards have no advantage, so no gradient (TRL logs how many such groups there are)."""
    if watched.method != "grpo":
        return None
    stds = trend.series(watched.points, "train/reward_std")
    shares = trend.series(watched.points, "train/frac_reward_zero_std")
    dead = {step: std == 0 for step, std in stds}
    for step, share in shares:
        dead[step] = dead.get(step, False) or share >= 1
    window = sorted(dead)[-limits.DEAD_REWARD_WINDOW :]
    found = [step for step in window if dead[step]]
    if len(found) < limits.DEAD_REWARD_LOGS:
        return None
    reason = (
        f"rewards within each group are equal in {len(found)} of the last {len(window)} logs: nothing to learn from"
    )
    return _flag("dead_reward", found[0], reason, {"dead_logs": len(found), "logs": len(window)})


def _hung(watched: Watched) -> Flag | None:
    sightings = _sightings(watched)
    if watched.running_s is None or not watched.stepping or not sightings:
        return None
    # From the job's start on, so that the first interval is not taken for shorter than it was.
    interval = median(b - a for a, b in pairwise([0.0, *(at for at, _ in sightings)]))
    limit = max(limits.HANG_S, limits.HANG_INTERVALS * interval)
    at, step = sightings[-1]
    silence = watched.running_s - at
    if silence <= limit:
        return None
    reason = f"no new step for {silence:.0f} s after step {step}, limit {limit:.0f} s"
    return _flag("hung", step, reason, {"silence_s": silence, "limit_s": limit})


def _no_start(watched: Watched) -> Flag | None:
    limit = watched.start_deadline_s
    if watched.running_s is None or watched.running_s <= limit or _sightings(watched):
        return None
    reason = f"no step {watched.running_s:.0f} s after the start of the job, limit {limit:.0f} s"
    return _flag("no_start", None, reason, {"running_s": watched.running_s, "limit_s": limit})


def _overfit(watched: Watched) -> Flag | None:
    """The last evaluations above the lowest, the last one clearly so, while the training loss falls on."""
    losses = _held_out(watched)
    gap = trend.generalization_loss(watched.points)
    if not losses or gap is None or gap <= limits.MAX_GENERALIZATION_LOSS:
        return None
    best, lowest = min(losses, key=lambda item: item[1])
    after = [loss for step, loss in losses if step > best]
    training = [item for item in trend.series(watched.points, "train/loss") if item[0] >= best]
    if len(after) < limits.OVERFIT_PATIENCE or not _falls(training):
        return None
    reason = (
        f"eval/loss {after[-1]:.3g} is {gap:.1f} % above its lowest, {lowest:.3g} at step {best}, "
        f"{len(after)} evaluations ago, while train/loss falls"
    )
    return _flag("overfit", best, reason, {"generalization_loss": gap, "lowest": lowest, "evaluations": len(after)})


def _held_out(watched: Watched) -> trend.Series:
    """Evaluation losses; those of answers that were drawn anew each time tell nothing."""
    return [] if watched.method in SAMPLING else trend.series(watched.points, "eval/loss")


def _falls(losses: trend.Series) -> bool:
    losses = losses[-trend.MAX_POINTS :]
    if len(losses) < 2:
        return False
    x, y = [math.log(step) for step, _ in losses], [loss for _, loss in losses]
    return trend.theil_sen(x, y, confidence=0.9).slope < 0


def _plateau(watched: Watched) -> Flag | None:
    """An evaluation loss whose fall over ln(step) is neither certain (one-sided 95 %) nor worth more steps."""
    losses = _held_out(watched)
    recent = losses[-min(max(trend.MIN_POINTS, len(losses) // 2), trend.MAX_POINTS) :]
    if len(recent) < trend.MIN_POINTS:
        return None
    line = trend.theil_sen([math.log(step) for step, _ in recent], [loss for _, loss in recent], confidence=0.9)
    level = median(loss for _, loss in recent)
    doubling = line.slope * math.log(2)
    if line.high < 0 or abs(doubling) >= limits.PLATEAU_DOUBLING * level:
        return None
    reason = (
        f"eval/loss lies flat at {level:.3g} over {len(recent)} evaluations: {doubling:+.2g} by a doubling of steps"
    )
    return _flag("plateau", recent[0][0], reason, {"slope": line.slope, "slope_high": line.high, "level": level})


def _too_slow(watched: Watched) -> Flag | None:
    """The end by the pace after the first steps, the faster of the whole and the latest half: one pause is no pace."""
    total, timeout, running = watched.total_steps, watched.timeout_s, watched.running_s
    sightings = _sightings(watched)
    if total is None or timeout is None or running is None or len(sightings) < limits.PACE_SIGHTINGS:
        return None
    (at, step), steady = sightings[-1], sightings[2:]
    pace = min((at - since) / (step - first) for since, first in (steady[0], steady[(len(steady) - 1) // 2]))
    end = max(at + pace * (total - step), running)
    reserve = reserve_s(end, timeout)
    if step >= total or end + reserve <= timeout:
        return None
    fitting = max(step, step + int((timeout - reserve_s(timeout, timeout) - at) / pace))
    reason = (
        f"{pace:.3g} s a step after step {step} of {total}: the end comes at {end:.0f} s, with a reserve of "
        f"{reserve:.0f} s past the timeout of {timeout} s; {fitting} steps fit"
    )
    return _flag("too_slow", step, reason, {"s_per_step": pace, "end_s": end, "reserve_s": reserve, "fits": fitting})


def reserve_s(end_s: float, timeout_s: float) -> float:
    """Seconds that must be left between the end of the steps and the timeout, for saving and merging."""
    share = limits.TIMEOUT_RESERVE_SHARE
    return min(max(limits.TIMEOUT_RESERVE_S, share * end_s), share * timeout_s)


def _sightings(watched: Watched) -> list[tuple[float, int]]:
    return [(at, step) for at, step in watched.progress if step >= 1]


def _flag(name: FlagName, step: int | None, reason: str, numbers: dict[str, float | None] | None = None) -> Flag:
    return Flag(name=name, step=step, reason=reason, numbers=numbers or {})
