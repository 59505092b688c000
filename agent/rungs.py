"""Rungs: whether a short run is worth being continued, by asynchronous successive halving (Li et al. 2020). Pure.

A rung is the search score after a number of extensions; going on is one more of them. Among few noisy trials a
stopping rule errs easily, so it stops nothing before `MIN_AT_RUNG` runs were scored there, and only what is clearly
below.
"""

from collections.abc import Sequence

from hfagent.agent.thresholds import MIN_AT_RUNG, RUNG_ETA, SEARCH_NOISE


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
