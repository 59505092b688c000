"""Rungs: whether a short run is worth being continued, by asynchronous successive halving (Li et al. 2020). Pure.

A rung is a score at a step; going on is an extension of the run. Among few noisy trials a stopping rule errs easily,
so it stops nothing before `MIN_AT_RUNG` runs were scored there, and only what is clearly below.
"""

from collections.abc import Sequence

from hfagent.agent.thresholds import MIN_AT_RUNG, RUNG_ETA, SEARCH_NOISE


def rungs(max_steps: int, *, r_min: int, eta: int = RUNG_ETA) -> tuple[int, ...]:
    """Steps at which runs are compared, ascending: r_min * eta^k below `max_steps`, then `max_steps` itself.

    Raises:
        ValueError: `r_min` or `max_steps` below 1, or `eta` below 2.
    """
    if r_min < 1 or max_steps < 1 or eta < 2:
        raise ValueError(f"no rungs for {max_steps=}, {r_min=}, {eta=}: steps start at 1 and eta at 2")
    steps = []
    while r_min < max_steps:
        steps.append(r_min)
        r_min *= eta
    return (*steps, max_steps)


def promote(score: float, others: Sequence[float], *, eta: int = RUNG_ETA, margin: float = SEARCH_NOISE) -> bool:
    """Whether a run goes on from a rung: it is among the best 1/eta there, or less than the margin below them.

    Args:
        score: the run's, higher is better.
        others: scores of the other runs that reached the rung, stopped ones included.
        eta: one run in so many goes on.
        margin: in score units; what noise alone may make of equal runs.
    """
    count = len(others) + 1
    if count < MIN_AT_RUNG:
        return True
    return sum(other > score + margin for other in others) < max(1, count // eta)
