"""What a search may change about a plan's hyperparameters, and within which limits. Pure.

The plan's own configuration is the first trial, so the limits always hold it. The seed is never a lever: another
seed is another draw of the noise and no better hypothesis. `lora_alpha` is none either: while it stays, the best
learning rate hardly depends on the rank (Schulman et al. 2025), so that one can be moved without the other.
"""

import math
from collections.abc import Mapping
from itertools import product

from pydantic import Field

from hfagent.agent import thresholds
from hfagent.agent.records import Method, ModelRef, Plan, Record, TrainConfig

EFFECTIVE_BATCH = "effective_batch_size"
"""The one lever that is no field of `TrainConfig`: per_device_train_batch_size * gradient_accumulation_steps."""


class Lever(Record):
    """One hyperparameter, by its name in `TrainConfig` or `effective_batch_size`."""

    name: str
    low: float = Field(ge=0)
    high: float
    """Limits, both allowed."""
    choices: tuple[float, ...] = ()
    """What the search tries, ascending; empty where it is left to a planner's own ideas."""
    length: float = Field(default=thresholds.OTHER_LENGTH, gt=1)
    """Ratio of two values whose scores still resemble each other."""


class Space(Record):
    """All levers of a plan."""

    plan: TrainConfig
    levers: tuple[Lever, ...]

    @property
    def searched(self) -> tuple[Lever, ...]:
        """The levers that the search moves."""
        return tuple(lever for lever in self.levers if lever.choices)

    def values(self, config: TrainConfig) -> dict[str, float]:
        """A configuration as the search sees it: searched lever -> value.

        What an extension or a restart moved beyond the limits counts as at the limit.
        """
        return {lever.name: min(max(value(config, lever.name), lever.low), lever.high) for lever in self.searched}

    def grid(self) -> list[dict[str, float]]:
        """Every combination of choices."""
        names = [lever.name for lever in self.searched]
        return [dict(zip(names, row, strict=True)) for row in product(*(lever.choices for lever in self.searched))]


def space(plan: Plan) -> Space:
    """The levers for the plan's method and model."""
    train = plan.train
    levers = [_rates(plan)]
    if train.max_steps is None and plan.max_extensions == 0:
        # Where runs may be extended, that is how long each is trained: by its own losses and scores, not by a guess.
        levers.append(_chosen("num_train_epochs", thresholds.EPOCHS, train.num_train_epochs))
    levers.append(_chosen("lora_r", thresholds.RANKS, train.lora_r))
    # GRPO's batch holds whole groups of completions, KTO estimates a divergence within it: no free choice there.
    if plan.method in ("sft", "dpo", "distillation"):
        batch = value(train, EFFECTIVE_BATCH)
        sizes = [int(batch * factor) for factor in thresholds.BATCH_FACTORS]
        levers.append(_chosen(EFFECTIVE_BATCH, [size for size in sizes if size], batch))
    levers += [
        Lever(name="warmup_steps", low=0, high=max(10, 4 * train.warmup_steps)),
        Lever(name="weight_decay", low=0, high=max(0.3, train.weight_decay)),
        Lever(name="lora_dropout", low=0, high=max(0.1, train.lora_dropout)),
    ]
    if train.beta is not None and plan.method in ("dpo", "kto"):
        levers.append(Lever(name="beta", low=min(0.01, train.beta), high=max(0.5, train.beta)))
    # The temperature of distillation is one of its loss, too: runs at two of them would measure two distances.
    if train.temperature is not None and plan.method == "grpo":
        levers.append(Lever(name="temperature", low=min(0.6, train.temperature), high=max(1.2, train.temperature)))
    return Space(plan=train, levers=tuple(levers))


def learning_rate_prior(method: Method, model: ModelRef) -> float:
    """The learning rate to expect for LoRA, by method, and for SFT by model family and size."""
    rate = thresholds.FULL_LEARNING_RATE[method] * thresholds.LORA_RATE_FACTOR
    if method != "sft" or model.parameters is None:
        return rate
    name = model.id.lower()
    exponents = thresholds.RATE_EXPONENT
    exponent = next((exponents[family] for family in exponents if family in name), min(exponents.values()))
    hidden_size = math.sqrt(model.parameters) / thresholds.HIDDEN_SIZE_DIVISOR
    correction: float = (thresholds.RATE_HIDDEN_SIZE / hidden_size) ** exponent
    return rate * correction


def value(config: TrainConfig, lever: str) -> float:
    """A lever's value in a configuration."""
    if lever == EFFECTIVE_BATCH:
        return float(config.per_device_train_batch_size * config.gradient_accumulation_steps)
    number: float = getattr(config, lever)
    return float(number)


def configure(base: TrainConfig, changes: Mapping[str, float]) -> TrainConfig:
    """The configuration with levers set. A batch keeps the largest micro-batch that divides it and is not above the
    base's, which is known to fit in memory.

    Raises:
        pydantic.ValidationError: a value that `TrainConfig` does not allow, e.g. a fractional rank.
    """
    fields: dict[str, float] = dict(changes)
    batch = fields.pop(EFFECTIVE_BATCH, None)
    if batch is not None:
        micro = next(size for size in range(base.per_device_train_batch_size, 0, -1) if batch % size == 0 or size == 1)
        fields |= {"per_device_train_batch_size": micro, "gradient_accumulation_steps": batch / micro}
    return TrainConfig.model_validate({**base.model_dump(), **fields})


def _rates(plan: Plan) -> Lever:
    """Learning rates, evenly spaced in their logarithm, two significant digits each."""
    prior, own = learning_rate_prior(plan.method, plan.model), plan.train.learning_rate
    low, high = min(prior / thresholds.RATE_SPAN, own), max(prior * thresholds.RATE_SPAN, own)
    steps = thresholds.RATE_STEPS
    first, last = math.ceil(steps * math.log10(low)), math.floor(steps * math.log10(high))
    choices = {_two_digits(10 ** (step / steps)) for step in range(first, last + 1)}
    choices = {rate for rate in choices if low <= rate <= high}
    return Lever(
        name="learning_rate", low=low, high=high, choices=tuple(sorted(choices)), length=thresholds.RATE_LENGTH
    )


def _chosen(name: str, choices: "tuple[float, ...] | list[int]", own: float) -> Lever:
    """A lever of few values, the plan's own among them."""
    values = tuple(sorted({float(choice) for choice in (*choices, own)}))
    return Lever(name=name, low=values[0], high=values[-1], choices=values)


def _two_digits(number: float) -> float:
    return float(f"{number:.2g}")
