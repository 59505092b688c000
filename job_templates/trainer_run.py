"""One training, whatever the method: from the command line to the RESULT line.

A script of a method brings a `Technique`, what TRL calls differently for it; all else is here.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfagent.agent import memory
from hfagent.agent.errors import HfagentError, ModelError, PackageMissing, UsageError
from hfagent.agent.records import Method, TrainConfig
from hfagent.agent.train_config import FIELDS_OF_METHODS, method_fields
from hfagent.job_templates import base_model, training, training_args
from hfagent.job_templates.runtime import SIGTERM_EXIT, Precision, emit_result, on_sigterm, say
from hfagent.job_templates.training import Checkpoint, Schedule, Stop
from hfagent.job_templates.training_args import Args, Row
from hfagent.job_templates.training_watch import watch

if TYPE_CHECKING:
    from transformers import Trainer

EAGER_UP_TO = 256
"""Longest row in tokens for which a processor computes attention faster without torch's fused kernel (by 20 %)."""
LAST_LOGS = 5
"""Logs of which `train_loss` and the measures are the means."""


@dataclass(frozen=True)
class Rows:
    """What is trained on, and what is held out."""

    train: list[Row]
    held_out: list[Row]


@dataclass(frozen=True)
class Technique:
    """What a method has of its own."""

    method: Method
    formats: tuple[tuple[str, ...], ...]
    """Columns that TRL trains on by it, the first format that a dataset has counts."""
    trl_config: str
    """Name of TRL's configuration."""
    trainer: Callable[[Args, str], Callable[..., Any]]
    """By arguments and device, the trainer's class or what makes one of the same arguments."""
    length: Callable[[Any, Mapping[str, Any]], int]
    """Tokens of a row as the trainer has prepared it, by the trainer and the row."""
    measures: tuple[str, ...] = ()
    """Logged metrics, the first of which is shown beside the loss."""
    settings: Callable[[Args, Rows], dict[str, Any]] = lambda args, rows: {}
    """Arguments of its configuration beyond the common ones and those that `TrainConfig` names."""
    check: Callable[[Args, Rows], Rows] = lambda args, rows: rows
    """Refuses rows or arguments, before any weight is loaded."""
    all_columns: bool = False
    """Other columns are kept: reward functions are given them."""
    model: Callable[[Args, Precision], Any] = base_model.causal_model
    task_type: str = "CAUSAL_LM"
    """As peft calls it."""
    epoch: Callable[[Any], int] = lambda trainer: len(trainer.train_dataset)
    """Rows that are trained on in an epoch."""
    too_long: str = "their prompt alone fills it"
    """Why TRL drops rows for their length."""
    loss_has_level: bool = True
    """Whether the loss tells how good a model is."""


def main(technique: Technique, argv: Sequence[str] | None, description: str | None) -> int:
    """Train by the command line; returns the exit code."""
    args, stop = training_args.parse_args(argv, method=technique.method, description=description), Stop()
    on_sigterm(stop)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TRL reports to the Hub when a trainer is made
    try:
        emit_result(train(technique, args, stop))
    except HfagentError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, UsageError) else 1
    return 0


def train(technique: Technique, args: Args, stop: Stop) -> dict[str, Any]:
    """Train, save, check; returns the RESULT.

    Raises:
        HfagentError: the data, the model or the checkpoint cannot be used, or the training diverged.
        SystemExit: with 143 after SIGTERM.
    """
    checkpoint = training.read_checkpoint(args.resume_from_checkpoint) if args.resume_from_checkpoint else None
    read = training_args.read_rows(args, technique.formats, all_columns=technique.all_columns)
    rows = technique.check(args, Rows(*training.hold_out(read, args.config.eval_fraction)))
    precision = base_model.training_precision()
    say(f"{precision.hardware}: computing in {precision.dtype}")
    trainer = build_trainer(technique, args, precision, rows)
    describe_rows(technique, trainer, args)
    batch = trainer.args.train_batch_size * trainer.args.world_size * trainer.args.gradient_accumulation_steps
    schedule = training.plan_schedule(
        args.config, rows=technique.epoch(trainer), batch=batch, evaluate=bool(trainer.eval_dataset)
    )
    if checkpoint is not None:
        training.check_resumable(checkpoint, schedule, args.config)
    trainer.schedule, trainer.args.max_steps, trainer.args.warmup_steps = schedule, schedule.total, schedule.warmup
    seconds, step_s = run(technique, trainer, schedule, stop, checkpoint)
    adapter = args.output_dir / "adapter"
    trainer.model.save_pretrained(adapter)
    trainer.processing_class.save_pretrained(adapter)
    equal, why = equal_rewards(trainer.state.log_history), "nothing was learned"
    if equal is not None:
        why += f" in {trainer.state.global_step} steps, since all answers to a prompt had the same reward ({equal})"
    training.check_adapter(adapter, moved=equal is None or not args.smoke, why=why)
    found = result(technique, trainer, args, schedule, checkpoint=checkpoint, seconds=seconds)
    hardware = {"device": precision.device, "dtype": precision.dtype, "hardware": precision.hardware}
    return {**found, **hardware, "step_s": None if step_s is None else round(step_s, 4)}


def common_settings(args: Args, precision: Precision, parameters: int) -> dict[str, Any]:
    """Arguments of every method's configuration; the steps are set once the rows that remain are counted."""
    config = args.config
    own = {name: getattr(config, name) for name in FIELDS_OF_METHODS if name != "reward_funcs"}
    return {
        "output_dir": str(args.output_dir),
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "per_device_eval_batch_size": config.per_device_train_batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.lr_scheduler_type,
        "weight_decay": config.weight_decay,
        "max_length": config.max_length,
        "logging_steps": config.logging_steps,
        "save_steps": config.save_steps,
        "seed": config.seed,
        "bf16": precision.dtype == "bfloat16",
        "fp16": precision.dtype == "float16",
        "use_cpu": precision.device == "cpu",
        "activation_checkpointing": precision.device != "cpu" and memory.checkpointed(parameters, config.method),
        "dataloader_pin_memory": precision.device == "cuda",
        "include_num_input_tokens_seen": "non_padding",
        "logging_nan_inf_filter": False,  # else a NaN loss is logged as 0.0
        "report_to": "trackio",
        "project": args.project,
        "run_name": args.run_name,
        "hub_private_repo": True,  # of a Space that Trackio makes, too
        "trackio_static_space_id": False,  # else a push to the Hub publishes the metrics, too
        "disable_tqdm": True,
        **{name: value for name, value in own.items() if value is not None},
    }


def trl_settings(technique: Technique, settings: dict[str, Any]) -> Any:
    """TRL's configuration with these arguments.

    Raises:
        PackageMissing: another TRL than these scripts are written for.
        UsageError: TRL refuses a value.
    """
    import trl

    config = getattr(trl, technique.trl_config)
    unknown = settings.keys() - {field.name for field in fields(config)}
    if unknown:
        raise PackageMissing(f"trl {trl.__version__} lacks {sorted(unknown)}: pip install 'trl>=1.16,<2'")
    try:
        return config(**settings)
    except ValueError as error:
        raise UsageError(f"trl refuses the hyperparameters of {technique.method}: {error}") from error


def build_trainer(technique: Technique, args: Args, precision: Precision, rows: Rows) -> Any:
    """The trainer with tokenized rows and a fresh adapter.

    Raises:
        ModelError: no such model.
        UsageError: the rows do not fit the model.
        PackageMissing: another TRL than these scripts are written for.
    """
    import datasets
    import transformers
    from peft import LoraConfig

    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
    model, tokenizer = technique.model(args, precision), base_model.tokenizer(args.model, args.revision)
    fingerprint = training.base_fingerprint(model)
    chats = not all(isinstance(rows.train[0].get(name), str | None) for name in training_args.CONTENT)
    if chats and not tokenizer.chat_template:
        raise UsageError(f"{args.model!r} has no chat template, and the rows are chats: train an instruct model")
    settings = common_settings(args, precision, model.num_parameters()) | technique.settings(args, rows)
    lora = LoraConfig(
        r=args.config.lora_r,
        lora_alpha=args.config.lora_alpha,
        lora_dropout=args.config.lora_dropout,
        target_modules="all-linear",
        task_type=technique.task_type,
    )
    trainer = technique.trainer(args, precision.device)(
        model,
        args=trl_settings(technique, {name: value for name, value in settings.items() if value is not None}),
        train_dataset=datasets.Dataset.from_list(rows.train),
        eval_dataset=datasets.Dataset.from_list(rows.held_out) if rows.held_out else None,
        processing_class=tokenizer,
        peft_config=lora,
    )
    trainer.base_fingerprint = fingerprint  # of the model as it was loaded: TRL may adapt its configuration
    trainer.rows_given = len(rows.train)
    if not len(trainer.train_dataset):
        raise UsageError(f"--max-length {args.config.max_length} leaves no row, since {technique.too_long}: raise it")
    return trainer


def describe_rows(technique: Technique, trainer: Any, args: Args) -> None:
    """Say how many rows are cut or dropped by the length limit, and set attention for their length."""
    lengths = [technique.length(trainer, row) for row in trainer.train_dataset]
    limit = args.config.max_length
    cut = sum(length >= limit for length in lengths)
    held_out = len(trainer.eval_dataset) if trainer.eval_dataset is not None else 0
    say(
        f"rows {len(lengths)} to train on, {held_out} held out; median {statistics.median(lengths):.0f} tokens, "
        f"longest {max(lengths)}; {cut} reach max_length {limit} and are cut there; "
        f"{max(trainer.rows_given - len(lengths), 0)} dropped, since {technique.too_long}"
    )
    if trainer.args.use_cpu and max(lengths) <= EAGER_UP_TO:
        trainer.model.get_base_model().set_attn_implementation("eager")


def run(
    technique: Technique, trainer: "Trainer", schedule: Schedule, stop: Stop, checkpoint: Checkpoint | None
) -> tuple[float, float | None]:
    """The training itself; returns its seconds, and those of a step."""
    import trackio
    from transformers import PrinterCallback

    folder = Path(trainer.args.output_dir)
    watching = watch(schedule, stop, folder, shown=technique.measures[:1])
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(watching)
    stop.finish, stop.training = trackio.finish, True
    started = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    except HfagentError:  # of a reward function
        emit_result(training.cut_off(folder, trainer.state.global_step))
        raise
    stop.training = False
    if stop.requested:
        say(f"stopped by SIGTERM after step {trainer.state.global_step}, with a checkpoint")
        emit_result(training.cut_off(folder, trainer.state.global_step))
        sys.exit(SIGTERM_EXIT)
    if watching.broken:
        emit_result(training.cut_off(folder, trainer.state.global_step))
        raise ModelError(f"training diverged: {watching.broken}; lower the learning rate")
    return time.monotonic() - started, watching.step_s


def result(
    technique: Technique,
    trainer: Any,
    args: Args,
    schedule: Schedule,
    *,
    checkpoint: Checkpoint | None,
    seconds: float,
) -> dict[str, Any]:
    """What the run left and what it cost; tokens and seconds are this job's own, without the steps before it."""
    state, folder = trainer.state, args.output_dir.resolve()
    folders = [folder, *([checkpoint.folder.resolve().parent] if checkpoint else [])]
    stable = next((p for place in folders if (p := place / f"checkpoint-{schedule.stable}").is_dir()), None)
    tokens = state.num_input_tokens_seen - (checkpoint.tokens if checkpoint else 0)
    eval_losses = logged(state.log_history, "eval_loss") if technique.loss_has_level else []
    return {
        "adapter": str(folder / "adapter"),
        "checkpoint": str(folder / f"checkpoint-{state.global_step}"),
        "stable_checkpoint": str(stable) if stable else None,
        "steps": state.global_step,
        "epochs": round(state.epoch, 4),
        "train_loss": mean_of_last(state.log_history, "loss"),
        "eval_loss": eval_losses[-1] if eval_losses else None,
        "measures": measured(state.log_history, technique.measures),
        "rows": len(trainer.train_dataset),
        "eval_rows": len(trainer.eval_dataset) if trainer.eval_dataset is not None else 0,
        "tokens": tokens,
        "seconds": round(seconds, 2),
        "tokens_per_s": round(tokens / seconds, 1),
        "base_fingerprint": trainer.base_fingerprint,
        **training.weight_facts(trainer.model, folder / "adapter"),
        "launched": launched(trainer, args.config),
        "trackio_project": args.project,
        "trackio_run": args.run_name,
        **({} if args.teacher is None else {"teacher": args.teacher}),
    }


def logged(history: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """All logged values of a metric, in order."""
    return [row[name] for row in history if row.get(name) is not None]


def mean_of_last(history: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The mean of a metric's last logs; None where it was never logged."""
    values = logged(history, name)
    return statistics.fmean(values[-LAST_LOGS:]) if values else None


def equal_rewards(history: Sequence[Mapping[str, Any]]) -> str | None:
    """GRPO's rewards with their values, where those of each group were equal, which teaches nothing; else None."""
    shares = logged(history, "frac_reward_zero_std")
    if not shares or min(shares) < 1:
        return None
    keys = dict.fromkeys(key for row in history for key in row if key.startswith("rewards/") and key.endswith("/mean"))
    ranges = {key.removeprefix("rewards/").removesuffix("/mean"): logged(history, key) for key in keys}
    return ", ".join(
        f"{name} {min(values):.3g}" + (f" to {max(values):.3g}" if max(values) > min(values) else "")
        for name, values in ranges.items()
        if values
    )


def measured(history: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """Metric -> mean of its last logs, `eval_` and metric -> its last value; what was not logged is left out."""
    means = {name: mean for name in names if (mean := mean_of_last(history, name)) is not None}
    last = {key: values[-1] for name in names if (values := logged(history, key := f"eval_{name}"))}
    return means | last


def launched(trainer: Any, config: TrainConfig) -> dict[str, Any]:
    """The hyperparameters as the trainer and the adapter hold them; what they do not hold, as it was asked."""
    own = method_fields(config.method)
    held = {name: getattr(trainer.args, name) for name in own if hasattr(trainer.args, name)}
    lora = trainer.model.peft_config["default"]
    micro = getattr(trainer, "micro_batch", None)  # of a trainer that is given whole steps, and divides them itself
    if micro is not None:
        whole = trainer.args.per_device_train_batch_size
        held |= {"per_device_train_batch_size": micro, "gradient_accumulation_steps": whole // micro}
    return (
        config.model_dump()
        | held
        | {
            "lr_scheduler_type": str(trainer.args.lr_scheduler_type.value),
            "num_train_epochs": config.num_train_epochs,
            "lora_r": lora.r,
            "lora_alpha": lora.lora_alpha,
            "lora_dropout": lora.lora_dropout,
        }
    )
