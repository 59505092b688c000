"""What becomes of a trained run once the search set has judged it: extend, keep, discard or stop. Pure, by rule.

The search set is judged permissively (any gain is kept), because the claim is made once, on the confirm set.
"""

from typing import NamedTuple

from pydantic import Field

from hfagent.agent import thresholds, trend
from hfagent.agent.records import Action, Decision, Method, MetricPoint, Record
from hfagent.agent.remaining import Remaining
from hfagent.agent.rungs import promote
from hfagent.agent.train_config import SAMPLING
from hfagent.agent.verdict import Verdict

EQUAL = 1e-9
"""Scores closer than this are equal: sums of fractions differ in their last bits."""


class Extension(Record):
    """What continuing a run would take."""

    total_steps: int = Field(ge=1)
    """Optimizer steps of the run once extended."""
    seconds: float = Field(ge=0)
    """Estimate for its training and its evaluation on the search set."""
    micro_usd: int = Field(default=0, ge=0)


class Parent(Record):
    """The run that another one extends."""

    run: str
    verdict: Verdict
    """The extended run (candidate) against this one (base) on the search set."""


class Evidence(Record):
    """Everything that a decision about one run rests on."""

    run: str
    verdict: Verdict
    """The run against the baseline on the search set."""
    method: Method = "sft"
    most_reward: float | None = None
    """The most that the rewards of GRPO give; None for other methods, and where nobody knows it."""
    points: tuple[MetricPoint, ...] = ()
    """Metrics of the run, those of the runs that it extends included; may be short or empty."""
    remaining: Remaining = Remaining()
    extension: Extension | str
    """Why there can be none, in place of one."""
    extensions: int = Field(default=0, ge=0)
    """How often this line of runs was extended already."""
    max_extensions: int = Field(default=2, ge=0)
    best_other: float | None = None
    """Score of the best run of another line on the search set; None where there is none."""
    rung: tuple[float, ...] = ()
    """Scores of the other runs that were extended as often, on the whole search set."""
    parent: Parent | None = None
    futility: float | None = None
    """Probability of a gain by which the evaluation was ended early; None where it was not."""


class _Measure(NamedTuple):
    """What shows whether more training of a method promises more, in words."""

    name: str
    too_few: str
    flat: str


_HELD_OUT = _Measure(
    "loss",
    "fewer than 2 evaluation losses at the full learning rate, and the training loss is no measure of this method",
    "the evaluation loss is not clearly falling",
)
MEASURES: dict[Method, _Measure] = {
    "sft": _Measure(
        "loss",
        f"fewer than {trend.MIN_POINTS} training losses at the full learning rate, too few for a trend",
        "neither the training loss nor the one held out is clearly falling",
    ),
    "dpo": _HELD_OUT,
    "kto": _HELD_OUT,
    "reward": _HELD_OUT,
    "distillation": _Measure(
        "distance to the teacher",
        f"fewer than {trend.MIN_POINTS} distances to the teacher at the full learning rate, too few for a trend",
        "the distance to the teacher is not clearly falling",
    ),
    "grpo": _Measure(
        "shortfall of the reward",
        f"fewer than {trend.MIN_POINTS} rewards below the most that they can be, too few for a trend",
        "the reward is not clearly rising",
    ),
}


def decide(evidence: Evidence) -> Decision:
    """Apply the rules, the first that fits.

    0. An evaluation that was ended as futile: discard.
    1. An extension that scores lower than its parent by more than the noise: the parent is kept (the decision names
       it), or the extension discarded where the parent is no gain over the baseline either. Within the noise the
       falling losses, for which it was extended, are the better evidence.
    2. Extend: not significantly worse, the best so far, headroom, losses still falling and not overfit, a forecast of
       at least `thresholds.MIN_GAIN`, extensions, time and money left beyond the reserve.
    3. Keep any gain over the baseline and over the best of the other lines. 4. Stop where even the reserve is gone.
    5. Discard.
    """
    verdict, parent = evidence.verdict, evidence.parent
    outlook = _outlook(evidence)
    behind = evidence.best_other is not None and verdict.candidate_score - evidence.best_other <= EQUAL
    numbers = _numbers(evidence, outlook)
    blocked = _blocked(evidence, outlook)

    def decision(action: Action, rule: str, reason: str, *, run: str = evidence.run) -> Decision:
        lower = "not above the baseline" if verdict.delta <= EQUAL else "not above the best of the other runs"
        against = {
            "extend": blocked or "nothing blocks it",
            "keep": lower if verdict.delta <= EQUAL or behind else "more training promises more",
            "discard": "it is above the baseline" if verdict.delta > EQUAL else "it may still gain",
        }
        other = tuple(f"{name}: {why}" for name, why in against.items() if name != action)
        return Decision(
            action=action,
            run=run,
            reason=reason,
            rule=rule,
            version=thresholds.VERSION,
            numbers=numbers,
            alternatives=other if action in against else (),
        )

    result = f"{_points(verdict.delta)} on {verdict.n} search problems (one-sided p = {verdict.p_value:.2g})"
    if evidence.futility is not None:
        return decision("discard", "discard-futile", f"{result}: ended early, a gain had {evidence.futility:.1%} left")
    if parent is not None and parent.verdict.delta < -thresholds.SEARCH_NOISE:
        change = f"the extension changed the score of {parent.run} by {_points(parent.verdict.delta)}"
        best_other = evidence.best_other if evidence.best_other is not None else verdict.base_score
        if parent.verdict.base_score - max(best_other, verdict.base_score) > EQUAL:
            return decision("keep", "keep-parent", f"{change}: no gain, so {parent.run} is kept", run=parent.run)
        return decision("discard", "discard-no-gain", f"{change}, and neither is above the baseline: {result}")
    if blocked is None and outlook is not None and isinstance(evidence.extension, Extension):
        promise = f"at least {100 * outlook.gain:.1f} % lower by step {evidence.extension.total_steps}"
        falls = f"the {MEASURES[evidence.method].name} still falls"
        return decision("extend", "extend-while-falling", f"{result}, and {falls}: {promise}")
    if verdict.delta > EQUAL and not behind:
        return decision("keep", "keep-any-gain", f"{result}; not extended: {blocked}")
    if behind and verdict.delta > EQUAL:
        best = f"{verdict.candidate_score:.3f} is not above {evidence.best_other:.3f}, the best of the other runs"
        return decision("discard", "discard-not-best", f"{result}, but {best}")
    if short := evidence.remaining.short_of():
        return decision("stop", "stop-at-reserve", f"{result}: no gain, and no room for another run: {short}")
    return decision("discard", "discard-no-gain", f"{result}: no gain; not extended: {blocked}")


def _outlook(evidence: Evidence) -> trend.Outlook | None:
    """What more training promises, by what the method lowers: SFT its losses; DPO and KTO the loss held out, since they
    can lower the other one by making both answers less likely; GRPO what its reward falls short of, since its loss has
    no level; distillation its distance to the teacher, the training loss, taken of fresh answers at each step."""
    if isinstance(evidence.extension, str):
        return None
    total_steps, points = evidence.extension.total_steps, evidence.points
    if evidence.method == "grpo":
        most = evidence.most_reward
        return None if most is None else trend.outlook(trend.shortfalls(points, most), total_steps=total_steps)
    held_out = trend.held_out_outlook(points, total_steps=total_steps)
    if evidence.method not in ("sft", "distillation"):
        return held_out
    training = trend.outlook(trend.stable_losses(points), total_steps=total_steps)
    if evidence.method in SAMPLING or (training is not None and training.slope_high < 0):
        return training
    return held_out if held_out is not None and held_out.slope_high < 0 else training


def _blocked(evidence: Evidence, outlook: trend.Outlook | None) -> str | None:
    """The first reason against an extension."""
    extension, verdict = evidence.extension, evidence.verdict
    if isinstance(extension, str):
        return extension
    if evidence.extensions >= evidence.max_extensions:
        if evidence.max_extensions == 0:
            return "no extension is allowed"
        return f"extended {evidence.extensions} of {evidence.max_extensions} times"
    if verdict.label == "worse":
        return "it is worse than the baseline"
    best = max(evidence.rung, default=0.0)
    if best - verdict.candidate_score > thresholds.SEARCH_NOISE:
        return f"another run of its length scores clearly higher, {best:.3f}"
    if not promote(verdict.candidate_score, evidence.rung):
        return f"it is not among the best of the {len(evidence.rung) + 1} runs of its length"
    if verdict.candidate_score >= thresholds.HEADROOM_SCORE:
        return f"a score of {verdict.candidate_score:.3f} leaves no headroom"
    losses = _blocked_by_losses(evidence, outlook)
    return losses or evidence.remaining.short_of(seconds=extension.seconds, micro_usd=extension.micro_usd)


def _blocked_by_losses(evidence: Evidence, outlook: trend.Outlook | None) -> str | None:
    words = MEASURES[evidence.method]
    if outlook is None:
        return words.too_few
    drawn_anew = evidence.method in SAMPLING
    gap = None if drawn_anew else trend.generalization_loss(evidence.points)
    if gap is not None and gap > thresholds.MAX_GENERALIZATION_LOSS:
        return f"overfit, the evaluation loss is {gap:.1f} % above its lowest"
    if outlook.slope_high >= 0:
        slope = f"slope of ln {words.name} over ln step up to {outlook.slope_high:+.3f}"
        return f"{words.flat} ({slope})"
    eval_slope = None if drawn_anew else trend.eval_slope(evidence.points)
    if eval_slope is not None and eval_slope >= 0:
        return f"the evaluation loss is not falling (slope {eval_slope:+.3f} per ln step)"
    if outlook.gain < thresholds.MIN_GAIN:
        least = f"{100 * thresholds.MIN_GAIN:.0f} %"
        return f"a fall of the {words.name} of only {100 * outlook.gain:.2f} % is to be expected, below {least}"
    return None


def _numbers(evidence: Evidence, outlook: trend.Outlook | None) -> dict[str, float | None]:
    remaining = evidence.remaining
    return {
        "delta": evidence.verdict.delta,
        "p_value": evidence.verdict.p_value,
        "loss": outlook.level if outlook else None,
        "loss_slope_high": outlook.slope_high if outlook else None,
        "forecast_gain": outlook.gain if outlook else None,
        "eval_loss_slope": trend.eval_slope(evidence.points),
        "best_other": evidence.best_other,
        "futility": evidence.futility,
        "generalization_loss": trend.generalization_loss(evidence.points),
        "extensions": evidence.extensions,
        "seconds_left": remaining.seconds,
        "usd_left": None if remaining.micro_usd is None else remaining.micro_usd / 1e6,
    }


def _points(delta: float) -> str:
    return f"{100 * delta:+.1f} points"
