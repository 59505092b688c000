"""What was tried, and whether a new idea is one: no repeats, one lever at a time, and only what fits in memory. Pure.

Two configurations are the same hypothesis when they differ from the plan in the same way. The seed, the logging and
how a batch is split over micro-batches do not count, and numbers are compared to two significant digits.
"""

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from hfagent.agent.events import Proposed
from hfagent.agent.findings import Trial
from hfagent.agent.records import Plan, Refusal, TrainConfig
from hfagent.agent.space import EFFECTIVE_BATCH, Space, configure, space, value

SAME_HYPOTHESIS = frozenset(
    {"seed", "logging_steps", "save_steps", "per_device_train_batch_size", "gradient_accumulation_steps"}
)
"""Fields that may differ within one hypothesis; the two of the batch count by their product."""
MEMORY = ("per_device_train_batch_size", "max_length", "lora_r")
"""Fields that memory grows with."""
COMPARED = (*(name for name in TrainConfig.model_fields if name not in SAME_HYPOTHESIS), EFFECTIVE_BATCH)


def levers_changed(a: TrainConfig, b: TrainConfig) -> tuple[str, ...]:
    """Names of the hyperparameters in which two configurations differ as hypotheses."""
    return tuple(name for name in COMPARED if _normal(a, name) != _normal(b, name))


def key(config: TrainConfig, plan: TrainConfig) -> str:
    """The hypothesis in words: how it differs from the plan, e.g. `learning_rate=0.00026, lora_r=32`."""
    changed = levers_changed(config, plan)
    return ", ".join(f"{name}={_normal(config, name)}" for name in changed) or "the plan's own configuration"


def exact_repeat(config: TrainConfig, past: Sequence[Trial], plan: TrainConfig) -> Refusal | None:
    """Why a hypothesis is not tried again; None where it is new.

    A trial that ran out of memory said nothing about its hypothesis, so it does not count.
    """
    for trial in past:
        if trial.outcome != "out_of_memory" and not levers_changed(config, trial.config):
            return Refusal(what=f"try {key(config, plan)}", why=f"trial {trial.number} was the same: {result(trial)}")
    return None


def result(trial: Trial) -> str:
    """What became of a trial, in a few words."""
    if trial.value is not None and trial.outcome != "open":
        return f"{trial.outcome}, {trial.value:.3f}"
    return trial.outcome.replace("_", " ")


def nearest(config: TrainConfig, past: Sequence[Trial], k: int = 3) -> list[Trial]:
    """The k trials most like a configuration, the most like first: few levers changed, and by small ratios."""
    return sorted(past, key=lambda trial: (_distance(config, trial.config), trial.number))[:k]


def incumbent(past: Sequence[Trial], space: Space) -> TrainConfig:
    """What an idea starts from: the configuration with the best score so far, or the plan's."""
    best: Trial | None = None
    for trial in past:
        if trial.outcome == "scored" and trial.value is not None:
            best = trial if best is None or best.value is None or trial.value > best.value else best
    return space.plan if best is None else best.config


def check_idea(changes: Mapping[str, float], past: Sequence[Trial], space: Space) -> str | None:
    """Why a planner's own idea is refused; None where it may be tried.

    Args:
        changes: lever -> new value, over the incumbent's configuration. Exactly one, so that its result says what
            that lever does.
    """
    if why := _unusable(changes, space):
        return why
    base = incumbent(past, space)
    config = configure(base, changes)
    name, wanted = next(iter(changes.items()))
    if not levers_changed(config, base):
        return f"{name} is {_text(value(base, name))} already in the best trial so far: {_text(wanted)} changes nothing"
    repeat = exact_repeat(config, past, space.plan)
    return None if repeat is None else repeat.why


def enqueue(plan: Plan, past: Sequence[Trial], changes: Mapping[str, float], why: str) -> Proposed | Refusal:
    """A planner's own idea: one lever of the best trial so far changed, for the reason it gives.

    A search learns of it as of any trial, from the past of its next proposal.
    """
    levers, what = space(plan), f"try {dict(changes)}"
    if refused := check_idea(changes, past, levers):
        return Refusal(what=what, why=refused)
    big = [trial.config for trial in past if trial.outcome == "out_of_memory"]
    config = fitting(configure(incumbent(past, levers), changes), big)
    if config is None:
        return Refusal(what=what, why="not even one row fits in memory: take a lower max_length or a smaller model")
    return Proposed(number=len(past) + 1, config=config, why=why, source="planner")


def halved(config: TrainConfig) -> TrainConfig | None:
    """Half the micro-batch at the same effective batch; None where the micro-batch is one row.

    An odd micro-batch is divided by its smallest factor.
    """
    micro = config.per_device_train_batch_size
    factor = next((number for number in range(2, micro + 1) if micro % number == 0), None)
    if factor is None:
        return None
    steps = config.gradient_accumulation_steps * factor
    return config.model_copy(
        update={"per_device_train_batch_size": micro // factor, "gradient_accumulation_steps": steps}
    )


def fits(config: TrainConfig, out_of_memory: Sequence[TrainConfig]) -> bool:
    """Whether it may fit in memory: no configuration that ran out of it was at most as large in every respect."""
    return not any(all(getattr(config, name) >= getattr(big, name) for name in MEMORY) for big in out_of_memory)


def fitting(config: TrainConfig, out_of_memory: Sequence[TrainConfig]) -> TrainConfig | None:
    """The configuration with the largest micro-batch that may fit; None where not even one row does."""
    smaller: TrainConfig | None = config
    while smaller is not None and not fits(smaller, out_of_memory):
        smaller = halved(smaller)
    return smaller


def _unusable(changes: Mapping[str, float], space: Space) -> str | None:
    """What is wrong with the changes by themselves."""
    levers = {lever.name: lever for lever in space.levers}
    for name, wanted in changes.items():
        if name not in levers:
            guess = get_close_matches(name, levers, n=1)
            hint = f"did you mean {guess[0]!r}? " if guess else ""
            return f"unknown lever {name!r}: {hint}the levers are {', '.join(levers)}"
        low, high = levers[name].low, levers[name].high
        if not low <= wanted <= high:
            return f"{name} {_text(wanted)} is out of range: {_text(low)} to {_text(high)}"
        if wanted != int(wanted) and isinstance(_field(space.plan, name), int):
            return f"{name} must be a whole number, not {_text(wanted)}"
    if len(changes) != 1:
        return f"one lever at a time: {len(changes)} changes ({', '.join(changes) or 'none'}) name exactly one"
    return None


def _field(config: TrainConfig, name: str) -> object:
    return int(value(config, name)) if name == EFFECTIVE_BATCH else getattr(config, name)


def _normal(config: TrainConfig, name: str) -> str:
    return _text(_field(config, name))


def _text(found: object) -> str:
    if isinstance(found, float):
        return f"{found:.2g}" if found < 100 else f"{found:.0f}"
    return str(found)


def _distance(a: TrainConfig, b: TrainConfig) -> float:
    """One for each hyperparameter that differs, plus by how much, as |ln ratio|."""
    total = 0.0
    for name in levers_changed(a, b):
        total += 1
        one, other = _field(a, name), _field(b, name)
        if isinstance(one, int | float) and isinstance(other, int | float) and min(one, other) > 0:
            total += abs(math.log(one / other))
    return total
