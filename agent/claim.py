"""What a night may claim, by the verdict on the confirm set, the look it was, and the evaluation's noise. Pure."""

from collections.abc import Mapping
from typing import Any

from hfagent.agent.events import NoiseMeasured
from hfagent.agent.records import Claim, Score
from hfagent.agent.state import State
from hfagent.agent.stats import NORMAL, given_significant
from hfagent.agent.verdict import Verdict


def claim(state: State) -> Claim:
    """The claim at the end of a night; the first rule that fits.

    1. No run was kept. Promising where one that was not given up is above the base model on the search set; invalid
       where none was compared; otherwise no detectable difference.
    2. The kept run was not compared on the confirm set: promising, whatever the search set says.
    3. A comparison that misses problems of the confirm set: invalid.
    4. Better at the look's own error rate, and by more than the base model differs from itself: confirmed better.
    5. Otherwise as the verdict says.
    """
    kept = state.kept
    tried = sum(state.comparison(run.spec.name, None, "search") is not None for run in state.trained)
    known = {"gain": None, "run": kept, "tried": tried, "noise": None if state.noise is None else state.noise.delta}
    nothing = {"look": None, "alpha": None}
    if kept is None and (best := _best_undecided(state)) is not None:
        return Claim(
            label="promising",
            reason=f"{best} is above the base model on the search set; the night ended before anything was kept",
            **{**known, "run": best},
            **nothing,
        )
    if kept is None and tried == 0:
        return Claim(label="invalid", reason="no training run was compared with the base model", **known, **nothing)
    if kept is None:
        return Claim(
            label="no_detectable_difference",
            reason="no training run was kept as better than the base model on the search set",
            **known,
            **nothing,
        )
    comparison = state.comparison(kept, None, "confirm")
    look = next((taken for taken in state.looks if taken.run == kept), None)
    if comparison is None or look is None:
        return Claim(
            label="promising",
            reason=f"{kept} is above the base model on the search set, which chose it; the confirm set was not asked",
            **known,
            **nothing,
        )
    base = state.scored(None, "confirm")
    planned = base.score.n if base is not None and base.score is not None else None
    return judged(comparison.fact.verdict, planned, look.look, look.alpha, known)


def judged(found: Verdict, planned: int | None, look: int, alpha: float, known: Mapping[str, Any]) -> Claim:
    """The claim for a comparison on the confirm set, rules 3 to 5.

    Args:
        found: the comparison.
        planned: problems of the set.
        look: which one it was.
        alpha: what it may spend.
        known: the run, how many were tried, and the noise.
    """
    known = {**known, "look": look, "alpha": alpha}
    if found.n != planned:
        return Claim(label="invalid", reason=f"{found.n} of {planned} problems of the confirm set", **known)
    if found.label == "worse":
        return Claim(label="worse", reason="worse than the base model on the confirm set", **known)
    noise_level = abs(known["noise"] or 0.0)
    if found.label == "better" and found.delta > noise_level:
        return Claim(
            label="confirmed_better",
            reason=f"one-sided p = {found.p_value:.2g} on the confirm set, below {alpha:.4f} for look {look}",
            **{**known, "gain": given_significant(found.delta, _error(found), alpha=alpha)},
        )
    if found.label == "better":
        reason = f"the gain is not above {100 * noise_level:.1f} points, by which the base model differs from itself"
    else:
        reason = f"one-sided p = {found.p_value:.2g} on the confirm set, not below {alpha:.4f} for look {look}"
    return Claim(label="no_detectable_difference", reason=reason, **known)


def _best_undecided(state: State) -> str | None:
    """The run with the largest gain on the search set that was not given up; None where there is none."""
    gains = {}
    for run in state.trained:
        comparison = state.comparison(run.spec.name, None, "search")
        if comparison is not None and comparison.fact.verdict.delta > 0 and not state.given_up(run.spec.name):
            gains[run.spec.name] = comparison.fact.verdict.delta
    return max(gains, key=lambda name: gains[name], default=None)


def noise(first: Score, second: Score) -> NoiseMeasured:
    """How far two evaluations of the same weights differ."""
    both = first.outcomes.keys() & second.outcomes.keys()
    moved = [second.outcomes[problem] - first.outcomes[problem] for problem in sorted(both)]
    return NoiseMeasured(n=len(moved), flips=sum(abs(d) > 1e-9 for d in moved), delta=sum(moved) / max(len(moved), 1))


def _error(verdict: Verdict) -> float:
    """Standard error of the difference, from its interval."""
    return (verdict.ci_high - verdict.ci_low) / (2 * NORMAL.inv_cdf(1 - verdict.alpha / 2))
