"""Where a plan's jobs run on Hugging Face Jobs: the flavor, and the batches that fit on it. Pure."""

from hfagent.agent import memory
from hfagent.agent.errors import PlanRejected
from hfagent.agent.hardware import VRAM_SHARE, Choice, Flavor, Need, Table, choose
from hfagent.agent.records import EvalConfig, Method, ModelRef, Record, Refusal, TrainConfig

MIN_EVALUATION_BATCH = 4
"""Answers generated together, at least: an evaluation with fewer takes hours where it should take minutes."""


class Placement(Record):
    """A flavor with what runs on it."""

    flavor: Flavor
    train: TrainConfig
    evaluation: EvalConfig
    need: Need | None
    """None while the number of weights is unknown."""
    choice: Choice | None
    notes: tuple[str, ...] = ()


def place(
    table: Table,
    parameters: int | None,
    method: Method,
    *,
    train: TrainConfig,
    evaluation: EvalConfig,
    named: str | None = None,
    vocab_size: int | None = None,
    teacher: ModelRef | None = None,
) -> Placement:
    """The cheapest flavor for a plan, or the one that a person named.

    Batches give way before money does: fewer rows are worked on at a time, and a step still takes as many.

    Args:
        table: what there is.
        parameters: number of weights; None while unknown.
        method: of the training.
        train: as asked for.
        evaluation: as asked for.
        named: a flavor, or a model of GPU.
        vocab_size: of the model.
        teacher: of a distillation.

    Raises:
        PlanRejected: no such flavor, or none is large enough; it says what would fit.
    """
    among = None if named is None else table.named(named)
    if isinstance(among, Refusal):
        raise PlanRejected(among.why)
    notes: tuple[str, ...] = () if table.note is None else (table.note,)
    if parameters is None or (teacher is not None and teacher.parameters is None):
        return _unmeasured(among, train, evaluation, notes)

    def need_of(config: TrainConfig) -> Need:
        return needed(parameters, method, train=config, evaluation=evaluation, vocab_size=vocab_size, teacher=teacher)

    best: tuple[TrainConfig, Choice] | None = None
    for config in _micro_batches(train):
        found = choose(table, need_of(config), among=among)
        if isinstance(found, Choice) and (best is None or _price(found) < _price(best[1])):
            best = config, found
    if best is None:
        last = choose(table, need_of(_micro_batches(train)[-1]), among=among)
        why = last.why if isinstance(last, Refusal) else ""
        raise PlanRejected(f"{parameters:,} weights do not fit even with one row at a time, by LoRA: {why}")
    config, choice = best
    if config != train:
        notes += (
            f"{config.per_device_train_batch_size} rows at a time instead of {train.per_device_train_batch_size}, so "
            f"that {choice.flavor.name} is enough: a step still takes "
            f"{train.per_device_train_batch_size * train.gradient_accumulation_steps}",
        )
    return Placement(
        flavor=choice.flavor,
        train=config,
        evaluation=_fitting(evaluation, choice.flavor, parameters, vocab_size),
        need=need_of(config),
        choice=choice,
        notes=notes,
    )


def needed(
    parameters: int,
    method: Method,
    *,
    train: TrainConfig,
    evaluation: EvalConfig,
    vocab_size: int | None = None,
    teacher: ModelRef | None = None,
) -> Need:
    """What decides about the flavor. An evaluation's batch is cut to what is there: only a small one has a say."""
    least = evaluation.model_copy(update={"batch_size": min(evaluation.batch_size, MIN_EVALUATION_BATCH)})
    weights = None if teacher is None else teacher.parameters
    return memory.need(
        parameters, method, lora=True, train=train, evaluation=least, vocab_size=vocab_size, teacher=weights
    )


def _unmeasured(
    among: tuple[Flavor, ...] | None, train: TrainConfig, evaluation: EvalConfig, notes: tuple[str, ...]
) -> Placement:
    """A flavor that a person named for a model of unknown size.

    Raises:
        PlanRejected: none was named, or several share the name.
    """
    if among is None or len(among) > 1:
        known = "" if among is None else f", one of {', '.join(flavor.name for flavor in among)}"
        raise PlanRejected(
            "nobody knows how many weights the model, or its teacher, has: the Hub counts them for repositories with "
            f"safetensors files alone; name its hardware with --flavor{known}"
        )
    note = f"the number of weights is unknown, so nobody checked whether they fit on {among[0].name}"
    return Placement(flavor=among[0], train=train, evaluation=evaluation, need=None, choice=None, notes=(*notes, note))


def _micro_batches(train: TrainConfig) -> list[TrainConfig]:
    """The configuration with all ways to work on the rows of a step, the one asked for first, then fewer at a time."""
    micro = train.per_device_train_batch_size
    rows = micro * train.gradient_accumulation_steps
    sizes = [size for size in range(micro, 0, -1) if rows % size == 0]
    return [
        train.model_copy(update={"per_device_train_batch_size": size, "gradient_accumulation_steps": rows // size})
        for size in sizes
    ]


def _fitting(evaluation: EvalConfig, flavor: Flavor, parameters: int, vocab_size: int | None) -> EvalConfig:
    """The evaluation with the largest batch, halved from the one asked for, that the flavor holds."""
    each, batch = flavor.vram_each_gb, evaluation.batch_size
    while each is not None and batch > 1:
        smaller = evaluation.model_copy(update={"batch_size": batch})
        if memory.evaluation_gb(parameters, smaller, vocab_size) <= VRAM_SHARE * each:
            break
        batch //= 2
    return evaluation.model_copy(update={"batch_size": batch})


def _price(choice: Choice) -> int:
    return choice.flavor.price_micro_usd_per_hour
