"""Looks that share one error rate, and the end of an evaluation that can no longer reach its goal. Pure.

The confirm set may be looked at more than once, so each look gets its share of the error rate: look i spends
6 alpha / (pi^2 i^2), which sums to alpha over ever so many looks (alpha spending for an unknown number of tests, as
in LORD, Javanmard & Montanari 2018, Ann. Stat. 46). Ending an evaluation as futile claims nothing and spends nothing.

Futility is judged by the predictive probability (Spiegelhalter, Freedman & Blackburn 1986, Control. Clin. Trials 7):
how likely the problems still open lead to the goal, given those answered. The answered ones must be a random part of
the set, hence `streaming_order`. Wins, losses and ties get the Dirichlet prior (1/2, 1/2, 1), so the open ones are
Dirichlet-multinomial and the probability is an exact sum; fractions take the normal law with the same moments.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from pydantic import Field

from hfagent.agent.errors import UsageError
from hfagent.agent.records import BenchmarkRef, ModelRef, ProblemSet, Record
from hfagent.agent.stats import NORMAL
from hfagent.agent.thresholds import ALPHA, FUTILITY, FUTILITY_MIN_PROBLEMS

FutilityGoal = Literal["any_gain", "significant"]
"""`any_gain`: the final gain exceeds the lead. `significant`: the final one-sided p is at most alpha."""

PRIOR_CHANGED = 0.5
"""Pseudo-count of a win, and of a loss: Jeffreys' prior for which of the two a changed problem is."""
PRIOR_TIES = 1.0


class LookKey(Record):
    """What looks are counted for: a base model and the problems. Made by `look_key`."""

    model: str
    benchmark: str
    set: ProblemSet
    seed: int | None
    """None for a fixed benchmark, whose problems no seed changes."""


class Futility(Record):
    """Why an evaluation was ended: its goal can hardly be reached any more."""

    goal: FutilityGoal
    probability: float = Field(ge=0, le=1)
    """Predictive probability of reaching the goal, below `threshold`."""
    threshold: float
    done: int
    """Problems answered, of those that the reference has an outcome for."""
    total: int
    wins: int
    losses: int
    delta: float
    """Mean difference on the problems answered."""
    lead: float
    """Difference that the goal `any_gain` must exceed."""
    alpha: float

    @property
    def numbers(self) -> dict[str, float | None]:
        """For the record of the score; a goal is a word, so its own parameter stands for it and the other is None."""
        numbers = {name: float(value) for name, value in self.model_dump(exclude={"goal"}).items()}
        return {**numbers, "lead" if self.goal == "significant" else "alpha": None}


def alpha_of_look(look: int, *, alpha: float = ALPHA) -> float:
    """The one-sided error rate that look number `look`, from 1, may spend; all looks together spend `alpha`.

    Raises:
        UsageError: a look below 1.
    """
    if look < 1:
        raise UsageError(f"look {look!r} does not exist: looks are counted from 1")
    return alpha * 6 / (math.pi**2 * look**2)


def look_key(model: ModelRef, benchmark: BenchmarkRef) -> LookKey:
    """What a look is counted for.

    Neither the wording of the goal, nor the project, nor the model's revision, nor the number of problems is part of
    it: none of them makes seen problems unseen, so a change of one must not start the count anew (a shorter draw of
    problems is the beginning of the longer one). Another seed of a procedural benchmark draws fresh problems and
    starts anew; a fixed benchmark ignores its seed, and so does its key.
    """
    procedural = benchmark.name.startswith("procedural_") or benchmark.name == "reasoning_gym"
    return LookKey(
        model=model.id.rstrip("/").casefold(),
        benchmark=benchmark.path or benchmark.name,
        set=benchmark.set,
        seed=benchmark.seed if procedural else None,
    )


def streaming_order(ids: Sequence[str], seed: int) -> list[str]:
    """The ids shuffled by a hash: for a seed the same order in every process, however they were given."""
    return sorted(ids, key=lambda name: (hashlib.sha256(f"{seed}:{name}".encode()).digest(), name))


def futile(
    differences: Sequence[float],
    total: int,
    *,
    goal: FutilityGoal,
    lead: float = 0.0,
    alpha: float = ALPHA,
    threshold: float = FUTILITY,
) -> Futility | None:
    """Whether to end an evaluation after these problems; None is to go on.

    Args:
        differences: candidate - reference for each problem answered, in [-1, 1]: a random part of all problems.
        total: problems in all.
        goal: what the evaluation is for.
        lead: for `any_gain`: difference of scores that must be exceeded, e.g. the incumbent's gain where the
            reference is the base model.
        alpha: for `significant`: one-sided error rate, in (0, 0.5).
        threshold: end below this predictive probability.
    """
    done = len(differences)
    if done < FUTILITY_MIN_PROBLEMS or done >= total:
        return None
    wins, losses = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    if all(d in (-1, 0, 1) for d in differences):
        probability = predictive_probability(wins, losses, done, total, goal=goal, lead=lead, alpha=alpha)
    else:
        probability = _of_fractions(differences, total, goal=goal, lead=lead, alpha=alpha)
    if probability >= threshold:
        return None
    return Futility(
        goal=goal,
        probability=probability,
        threshold=threshold,
        done=done,
        total=total,
        wins=wins,
        losses=losses,
        delta=math.fsum(differences) / done,
        lead=lead,
        alpha=alpha,
    )


def predictive_probability(
    wins: int, losses: int, done: int, total: int, *, goal: FutilityGoal, lead: float = 0.0, alpha: float = ALPHA
) -> float:
    """How likely all `total` problems reach the goal, after `done` of them with outcomes of 0 or 1.

    Args:
        wins: problems that the candidate alone solved.
        losses: problems that the reference alone solved.
        done: problems answered.
        total: problems in all.
        goal: see `futile`, as for `lead` and `alpha`.

    Raises:
        UsageError: counts that cannot be: wins + losses <= done <= total must hold.
    """
    if min(wins, losses) < 0 or not wins + losses <= done <= total:
        raise UsageError(
            f"{wins!r} wins and {losses!r} losses in {done!r} of {total!r} problems cannot be: "
            "wins + losses <= done <= total must hold"
        )
    return _exact(wins, losses, done, total, goal, lead, alpha)


@lru_cache(maxsize=1 << 16)
def _exact(wins: int, losses: int, done: int, total: int, goal: FutilityGoal, lead: float, alpha: float) -> float:
    """Kept, since rehearsed nights ask for the same few counts over and over: a sum over 500 problems takes 1.5 ms."""
    if goal == "any_gain":
        # final wins - losses > lead; the slack lets a lead of k / total problems count as k
        margin = math.floor(lead * total + 1e-9)
        needed: Sequence[int] = [(changed + margin) // 2 + 1 for changed in range(total + 1)]
    else:
        needed = _wins_needed(total, alpha)
    changed = wins + losses
    open_wins = [least - wins for least in needed[changed : changed + total - done + 1]]
    return _dirichlet_sum(wins + PRIOR_CHANGED, losses + PRIOR_CHANGED, done - changed + PRIOR_TIES, open_wins)


def _dirichlet_sum(win: float, loss: float, tie: float, needed: Sequence[int]) -> float:
    """The sum over D of P(D of the open problems change) P(at least needed[D] of these D are wins).

    The wins are drawn as from a Polya urn, so the tail after D draws follows from that after D - 1 by the one case
    that crosses the border; `needed` never falls, and the whole sum is a single pass.
    """
    open_ = len(needed) - 1
    wins, losses, ties = _log_rising(win, open_), _log_rising(loss, open_), _log_rising(tie, open_)
    either = _log_rising(win + loss, open_)
    all_ways = _log_rising(win + loss + tie, open_)[open_]

    def exactly(k: int, changed: int) -> float:
        return math.exp(wins[k] + losses[changed - k] - either[changed]) if 0 <= k <= changed else 0.0

    least = needed[0]
    total, tail = 0.0, float(least <= 0)
    for changed in range(open_ + 1):
        if changed:
            tail += exactly(least - 1, changed - 1) * (win + least - 1) / (win + loss + changed - 1)
        while least < needed[changed]:
            tail -= exactly(least, changed)
            least += 1
        total += math.exp(either[changed] + ties[open_ - changed] - all_ways) * tail
    return min(max(total, 0.0), 1.0)


def _log_rising(start: float, most: int) -> list[float]:
    """ln of start (start + 1) ... (start + n - 1) / n!, for n from 0 to `most`."""
    found = [0.0]
    for n in range(most):
        found.append(found[-1] + math.log((start + n) / (n + 1)))
    return found


@lru_cache(maxsize=64)
def _wins_needed(most: int, alpha: float) -> tuple[int, ...]:
    """For 0 to `most` changed problems the fewest wins with a one-sided mid-p of at most alpha; one too many if none.

    The tails of the fair coin are built up as those of the urn are: exact ones take seconds at 1,000 problems.
    """

    def exactly(k: int, changed: int) -> float:
        if not 0 <= k <= changed:
            return 0.0
        return math.exp(
            math.lgamma(changed + 1) - math.lgamma(k + 1) - math.lgamma(changed - k + 1) - changed * math.log(2)
        )

    least, tail = 0, 1.0
    found = []
    for changed in range(most + 1):
        if changed:
            tail += exactly(least - 1, changed - 1) / 2
        while least <= changed and tail - exactly(least, changed) / 2 > alpha:
            tail -= exactly(least, changed)
            least += 1
        found.append(least)
    return tuple(found)


def _of_fractions(differences: Sequence[float], total: int, *, goal: FutilityGoal, lead: float, alpha: float) -> float:
    """The normal law with the mean and variance that the Dirichlet prior gives: its pseudo-counts are one win and one
    loss, half each, and a tie.
    """
    done, weight = len(differences), 2 * PRIOR_CHANGED + PRIOR_TIES
    so_far = math.fsum(differences)
    mean = so_far / (done + weight)
    variance = (math.fsum(d * d for d in differences) + 2 * PRIOR_CHANGED) / (done + weight) - mean * mean
    needed = lead * total if goal == "any_gain" else NORMAL.inv_cdf(1 - alpha) * math.sqrt(variance * total)
    open_ = total - done
    spread = math.sqrt(open_ * variance * (done + weight + open_) / (done + weight + 1))
    return NORMAL.cdf((so_far + open_ * mean - needed) / spread)
