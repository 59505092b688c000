"""Is the candidate better than the baseline? A paired test over the problems that both have answered. Pure.

Which test, and what `margin` m means (delta = candidate score - base score):

- `better` needs evidence that delta > m, `worse` that delta < -|m|, each at the one-sided level alpha; never both.
  m = 0 is the plain question. m > 0 demands a gain beyond m. m < 0 is a guard: `better` then says only that a loss
  of |m| or more is excluded (non-inferiority), and the sentence words it so.
- Every outcome 0 or 1 (one sample a problem): one-sided mid-p McNemar test on the problems that changed; with a
  margin Tango's score test, because an exact test of a shifted null does not exist and Wald tests claim too much
  when few problems changed.
- Fractions (several samples a problem): paired t test of the differences, shifted by the margin; up to
  `SIGN_FLIP_MAX` differences that are not zero the exact sign-flip test instead, where t leans on normality.

The interval has the level 1 - alpha and two sides, so a one-sided `better` may come with an interval that just
touches the margin: Bonett-Price for outcomes of 0 or 1, Student's t for fractions.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import stdev
from typing import Literal

from pydantic import Field

from hfagent.agent.errors import UsageError
from hfagent.agent.records import Record
from hfagent.agent.stats import NORMAL, binomial_mid_p, sign_flip_p, student_quantile, student_sf

Label = Literal["better", "worse", "no_detectable_difference"]
Test = Literal["mcnemar-mid-p", "tango-score", "sign-flip", "paired-t"]

SIGN_FLIP_MAX = 12
POWER = 0.8
USUALLY_CHANGED = 0.2
"""Share of the problems that one model solves and the other does not, before it is known."""


class Verdict(Record):
    """What a comparison says, and from which numbers."""

    n: int = Field(ge=1)
    """Problems, the same ones for both."""
    base_score: float
    candidate_score: float
    delta: float
    """candidate_score - base_score."""
    ci_low: float
    ci_high: float
    """Interval of delta at the level 1 - alpha."""
    p_value: float
    """One-sided: for `worse` of being worse, otherwise of being better."""
    mde: float | None
    """Smallest true delta, beyond the margin, found with 80 % power; None where the differences show no spread."""
    wins: int
    losses: int
    """Problems on which the candidate scored higher, or lower."""
    label: Label
    test: Test
    alpha: float
    margin: float


def compare(
    base: Mapping[str, float], candidate: Mapping[str, float], *, alpha: float = 0.05, margin: float = 0.0
) -> Verdict:
    """Compare two evaluations problem by problem. See the module's text for the tests and the margin.

    Args:
        base: problem id -> fraction of samples passed, in [0, 1].
        candidate: the same problems.
        alpha: one-sided error rate of each of the two claims, in (0, 0.5): at 0.5 a coin may claim.
        margin: in score units, in (-1, 1).

    Raises:
        UsageError: no problems, different problems, a value outside [0, 1], or alpha or margin out of range.
    """
    _check(base, candidate, alpha, margin)
    differences = [candidate[problem] - base[problem] for problem in sorted(base)]
    n, wins, losses = len(differences), sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    binary = {*base.values(), *candidate.values()} <= {0.0, 1.0}
    if binary:
        test, p_better = _p_binary(wins, losses, n=n, margin=margin)
        _, p_worse = _p_binary(losses, wins, n=n, margin=abs(margin))
        ci_low, ci_high = _bonett_price(wins, losses, n=n, alpha=alpha)
    else:
        test, p_better = _p_fractions(differences, margin=margin)
        _, p_worse = _p_fractions([-d for d in differences], margin=abs(margin))
        ci_low, ci_high = _t_interval(differences, alpha=alpha)
    label: Label = "no_detectable_difference"
    if min(p_better, p_worse) <= alpha:
        label = "better" if p_better < p_worse else "worse"
    base_score, candidate_score = math.fsum(base.values()) / n, math.fsum(candidate.values()) / n
    return Verdict(
        n=n,
        base_score=base_score,
        candidate_score=candidate_score,
        delta=candidate_score - base_score,
        ci_low=max(ci_low, -1.0),
        ci_high=min(ci_high, 1.0),
        p_value=p_worse if label == "worse" else p_better,
        mde=_mde(differences, alpha=alpha, changed=wins + losses if binary else None),
        wins=wins,
        losses=losses,
        label=label,
        test=test,
        alpha=alpha,
        margin=margin,
    )


def detectable_gain(n: int, *, changed: float = USUALLY_CHANGED, alpha: float = 0.05) -> float:
    """The smallest true gain that is found with 80 % power on `n` problems with outcomes of 0 or 1.

    A true gain needs at least that share of problems to change, so with few changes seen it bounds itself.
    """
    z = _z(alpha)
    return min(z * math.sqrt(max(changed, z * z / n) / n), 1.0)


def sentence(verdict: Verdict, *, metric: str = "pass@1") -> str:
    """The verdict in one line for the report and the terminal; differences are in points (hundredths)."""
    return f"{_headline(verdict)}: {numbers(verdict, metric=metric)}"


def numbers(verdict: Verdict, *, metric: str = "pass@1") -> str:
    """The line without its label, where that is said already."""
    text = (
        f"{verdict.base_score:.3f} -> {verdict.candidate_score:.3f} {metric} on {verdict.n} "
        f"problem{'s' * (verdict.n != 1)}, {100 * verdict.delta:+.1f} points "
        f"({100 * (1 - verdict.alpha):.4g} % interval {100 * verdict.ci_low:+.1f} to {100 * verdict.ci_high:+.1f}), "
        f"one-sided p = {verdict.p_value:.2g}"
    )
    if verdict.label == "no_detectable_difference" and verdict.mde is not None and verdict.margin >= 0:
        text += f"; could have missed a gain of up to {100 * (verdict.margin + verdict.mde):.1f} points"
    return text


def _headline(verdict: Verdict) -> str:
    beyond = f"{100 * abs(verdict.margin):.3g} points"
    if verdict.margin == 0:
        return verdict.label.replace("_", " ")
    if verdict.label == "no_detectable_difference":
        return f"a loss of {beyond} is not excluded" if verdict.margin < 0 else f"no difference shown beyond {beyond}"
    return f"{'not worse' if verdict.label == 'better' and verdict.margin < 0 else verdict.label} by more than {beyond}"


def _check(base: Mapping[str, float], candidate: Mapping[str, float], alpha: float, margin: float) -> None:
    if not 0 < alpha < 0.5:
        raise UsageError(f"alpha {alpha!r} is not a useful error rate: it must lie between 0 and 0.5, e.g. 0.05")
    if not -1 < margin < 1:
        raise UsageError(f"margin {margin!r} is not a difference of scores: it must lie between -1 and 1")
    for name, mine, other in (("candidate", candidate, base), ("baseline", base, candidate)):
        if missing := sorted(other.keys() - mine.keys()):
            raise UsageError(
                f"{len(missing)} problems have no outcome of the {name}, e.g. {', '.join(map(repr, missing[:3]))}: "
                "only the same problems can be compared; evaluate both on the same set"
            )
        for problem, value in mine.items():
            if not 0 <= value <= 1:
                raise UsageError(
                    f"outcome {value!r} of problem {problem!r} ({name}) is not a fraction of samples passed: "
                    "it must lie between 0 and 1"
                )
    if not base:
        raise UsageError("there are no outcomes to compare: evaluate the baseline and the candidate first")


def _p_binary(wins: int, losses: int, *, n: int, margin: float) -> tuple[Test, float]:
    """One-sided p of delta > margin. Score test: Tango (1998), Statistics in Medicine 17, 891-908."""
    if margin == 0:
        return "mcnemar-mid-p", binomial_mid_p(wins, wins + losses)
    b = (2 * n - wins + losses) * margin - wins - losses
    c = -losses * margin * (1 - margin)
    loss_share = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    variance = n * (2 * loss_share + margin * (1 - margin))
    return "tango-score", NORMAL.cdf((n * margin - wins + losses) / math.sqrt(variance))


def _p_fractions(differences: Sequence[float], *, margin: float) -> tuple[Test, float]:
    """One-sided p of mean(differences) > margin."""
    shifted = [d - margin for d in differences]
    moved = [x for x in shifted if abs(x) > 1e-12]
    if len(moved) <= SIGN_FLIP_MAX:
        return "sign-flip", sign_flip_p(moved)
    n = len(shifted)
    mean, error = math.fsum(shifted) / n, stdev(shifted) / math.sqrt(n)
    if error < 1e-12:
        return "paired-t", 0.5**n if mean > 0 else 1.0  # every problem moved alike: the sign-flip tail
    return "paired-t", student_sf(mean / error, n - 1)


def _bonett_price(wins: int, losses: int, *, n: int, alpha: float) -> tuple[float, float]:
    """Adjusted Wald interval: Bonett & Price (2012), J. Educ. Behav. Stat. 37, 479-488."""
    p_win, p_loss = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    centre = p_win - p_loss
    reach = NORMAL.inv_cdf(1 - alpha / 2) * math.sqrt((p_win + p_loss - centre**2) / (n + 2))
    return centre - reach, centre + reach


def _t_interval(differences: Sequence[float], *, alpha: float) -> tuple[float, float]:
    n, mean = len(differences), math.fsum(differences) / len(differences)
    if n == 1:
        return -1.0, 1.0
    # Without spread, at most this share of all problems would differ (exact binomial bound), each by at most 1.
    unseen = 1 - alpha ** (1 / n)
    error = stdev(differences) / math.sqrt(n)
    reach = unseen if error < 1e-12 else student_quantile(1 - alpha / 2, n - 1) * error
    return mean - reach, mean + reach


def _mde(differences: Sequence[float], *, alpha: float, changed: int | None) -> float | None:
    """(z_alpha + z_power) standard errors; `changed` counts the discordant problems where outcomes are 0 or 1."""
    n = len(differences)
    if changed is not None:
        return detectable_gain(n, changed=changed / n, alpha=alpha)
    spread = stdev(differences) if n > 1 else 0.0
    return min(_z(alpha) * spread / math.sqrt(n), 1.0) if spread > 1e-12 else None


def _z(alpha: float) -> float:
    return NORMAL.inv_cdf(1 - alpha) + NORMAL.inv_cdf(POWER)
