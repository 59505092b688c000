# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "pydantic>=2.11",
#   "torch>=2.6",
#   "transformers>=5.20,<6",
#   "trl>=1.16,<2",
#   "peft>=0.18",
#   "accelerate>=1.12",
#   "datasets>=5.2,<6",
#   "trackio>=0.43",
# ]
# ///
"""Supervised fine-tuning of a LoRA adapter with TRL; can be continued to any length from before its decay.

Exit codes: 0 with a RESULT line; 1 failed, also by a loss that is no number; 2 arguments or data that cannot be used;
143 stopped by SIGTERM, with a checkpoint.
"""

import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfagent.agent.errors import HfagentError, ModelError, PackageMissing, UsageError
from hfagent.agent.records import TrainConfig
from hfagent.job_templates import training, training_args
from hfagent.job_templates.runtime import SAFE, Precision, emit_result, on_sigterm, pick_precision
from hfagent.job_templates.training import Checkpoint, Schedule, Stop
from hfagent.job_templates.training_args import Args, Row
from hfagent.job_templates.training_watch import say, watch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTTrainer

FORMATS = (("prompt", "completion"), ("messages",), ("conversations",), ("text",))
"""What TRL's SFT trains on."""
EAGER_UP_TO = 256
"""Longest row in tokens for which a processor computes attention faster without torch's fused kernel (by 20 %)."""
CHECKPOINTING_FROM = 1_000_000_000
"""Weights from which activations are computed twice to save memory."""
LAST_LOGS = 5
"""Logged losses of which `train_loss` is the mean."""


def parse_args(argv: Sequence[str] | None = None) -> Args:
    """Parse; ends the process with exit code 2 on a wrong argument."""
    return training_args.parse_args(argv, method="sft", description=__doc__)


def load_model(args: Args, precision: Precision) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The base model in the computing format, and its tokenizer.

    Raises:
        ModelError: not there, or not a causal language model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(args.model, revision=args.revision)
        model = AutoModelForCausalLM.from_pretrained(
            args.model, revision=args.revision, dtype=getattr(torch, precision.dtype), **SAFE
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot load model {args.model!r}: {str(error).splitlines()[0]}") from error
    return model, tokenizer


def training_precision() -> Precision:
    """The machine's precision, but fp32 on Apple's MPS, which has no scaled fp16 training."""
    found = pick_precision()
    return Precision("mps", "float32", found.hardware) if found.device == "mps" else found


def sft_settings(args: Args, precision: Precision, parameters: int) -> dict[str, Any]:
    """Arguments of `SFTConfig`; the steps are set once the rows that remain are counted."""
    config = args.config
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
        "activation_checkpointing": precision.device != "cpu" and parameters >= CHECKPOINTING_FROM,
        "dataloader_pin_memory": precision.device == "cuda",
        "include_num_input_tokens_seen": "non_padding",
        "logging_nan_inf_filter": False,  # else a NaN loss is logged as 0.0
        "report_to": "trackio",
        "project": args.project,
        "run_name": args.run_name,
        "hub_private_repo": True,  # of a Space that Trackio makes, too
        "trackio_static_space_id": False,  # else a push to the Hub publishes the metrics, too
        "disable_tqdm": True,
    }


def build_trainer(args: Args, precision: Precision, train: list[Row], held_out: list[Row]) -> "SFTTrainer":
    """The trainer with tokenized rows and a fresh adapter.

    Raises:
        ModelError: no such model.
        UsageError: the rows do not fit the model.
        PackageMissing: another TRL than this script is written for.
    """
    import datasets
    import transformers
    import trl
    from peft import LoraConfig

    from hfagent.job_templates.sft_trainer import sft_trainer

    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
    model, tokenizer = load_model(args, precision)
    fingerprint = training.base_fingerprint(model)
    if not tokenizer.chat_template and not all(isinstance(value, str) for value in train[0].values()):
        raise UsageError(f"{args.model!r} has no chat template, and the rows are chats: train an instruct model")
    settings = sft_settings(args, precision, model.num_parameters())
    unknown = settings.keys() - {field.name for field in fields(trl.SFTConfig)}
    if unknown:
        raise PackageMissing(f"trl {trl.__version__} lacks {sorted(unknown)}: pip install 'trl>=1.16,<2'")
    lora = LoraConfig(
        r=args.config.lora_r,
        lora_alpha=args.config.lora_alpha,
        lora_dropout=args.config.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    trainer = sft_trainer(precision.device)(
        model,
        args=trl.SFTConfig(**settings),
        train_dataset=datasets.Dataset.from_list(train),
        eval_dataset=datasets.Dataset.from_list(held_out) if held_out else None,
        processing_class=tokenizer,
        peft_config=lora,
    )
    trainer.base_fingerprint = fingerprint  # of the model as it was loaded: TRL may adapt its configuration
    if not len(trainer.train_dataset):
        raise UsageError(f"in every row the prompt alone fills --max-length {args.config.max_length}: raise it")
    return trainer


def describe_rows(trainer: "SFTTrainer", args: Args, *, given: int) -> None:
    """Say how many rows are cut or dropped by the length limit, and set attention for their length."""
    lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    limit = args.config.max_length
    cut = sum(length == limit for length in lengths)
    held_out = len(trainer.eval_dataset) if trainer.eval_dataset is not None else 0
    say(
        f"rows {len(lengths)} to train on, {held_out} held out; median {statistics.median(lengths):.0f} tokens, "
        f"longest {max(lengths)}; {cut} reach max_length {limit} and are cut there; "
        f"{given - len(lengths)} dropped, since their prompt alone fills it"
    )
    if trainer.args.use_cpu and max(lengths) <= EAGER_UP_TO:
        trainer.model.get_base_model().set_attn_implementation("eager")


def train(args: Args, stop: Stop) -> dict[str, Any]:
    """Train, save, check; returns the RESULT.

    Raises:
        HfagentError: the data, the model or the checkpoint cannot be used, or the training diverged.
        SystemExit: with 143 after SIGTERM.
    """
    checkpoint = training.read_checkpoint(args.resume_from_checkpoint) if args.resume_from_checkpoint else None
    train_rows, held_out = training.hold_out(training_args.read_rows(args, FORMATS), args.config.eval_fraction)
    precision = training_precision()
    say(f"{precision.hardware}: computing in {precision.dtype}")
    trainer = build_trainer(args, precision, train_rows, held_out)
    describe_rows(trainer, args, given=len(train_rows))
    batch = trainer.args.train_batch_size * trainer.args.world_size
    rows = len(trainer.train_dataset)
    schedule = training.plan_schedule(args.config, rows=rows, batch=batch, evaluate=bool(trainer.eval_dataset))
    if checkpoint is not None:
        training.check_resumable(checkpoint, schedule, args.config)
    trainer.schedule, trainer.args.max_steps, trainer.args.warmup_steps = schedule, schedule.total, schedule.warmup
    seconds, step_s = run(trainer, schedule, stop, checkpoint)
    adapter = args.output_dir / "adapter"
    trainer.model.save_pretrained(adapter)
    trainer.processing_class.save_pretrained(adapter)
    training.check_adapter(adapter)
    found = result(trainer, args, schedule, precision, checkpoint=checkpoint, seconds=seconds)
    return {**found, "step_s": None if step_s is None else round(step_s, 4)}


def run(
    trainer: "SFTTrainer", schedule: Schedule, stop: Stop, checkpoint: Checkpoint | None
) -> tuple[float, float | None]:
    """The training itself; returns its seconds, and those of a step."""
    import trackio
    from transformers import PrinterCallback

    watching = watch(schedule, stop, Path(trainer.args.output_dir))
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(watching)
    stop.finish, stop.training = trackio.finish, True
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    stop.training = False
    if stop.requested:
        say(f"stopped by SIGTERM after step {trainer.state.global_step}, with a checkpoint")
        emit_result(training.cut_off(Path(trainer.args.output_dir), trainer.state.global_step))
        sys.exit(training.EXIT_SIGTERM)
    if watching.broken:
        emit_result(training.cut_off(Path(trainer.args.output_dir), trainer.state.global_step))
        raise ModelError(f"training diverged: {watching.broken}; lower the learning rate")
    return time.monotonic() - started, watching.step_s


def result(
    trainer: "SFTTrainer",
    args: Args,
    schedule: Schedule,
    precision: Precision,
    *,
    checkpoint: Checkpoint | None,
    seconds: float,
) -> dict[str, Any]:
    """What the run left and what it cost; tokens and seconds are this job's own, without the steps before it."""
    state, folder = trainer.state, args.output_dir.resolve()
    losses = [row["loss"] for row in state.log_history if "loss" in row]
    eval_losses = [row["eval_loss"] for row in state.log_history if "eval_loss" in row]
    folders = [folder, *([checkpoint.folder.resolve().parent] if checkpoint else [])]
    stable = next((p for place in folders if (p := place / f"checkpoint-{schedule.stable}").is_dir()), None)
    tokens = state.num_input_tokens_seen - (checkpoint.tokens if checkpoint else 0)
    return {
        "adapter": str(folder / "adapter"),
        "checkpoint": str(folder / f"checkpoint-{state.global_step}"),
        "stable_checkpoint": str(stable) if stable else None,
        "steps": state.global_step,
        "epochs": round(state.epoch, 4),
        "train_loss": statistics.fmean(losses[-LAST_LOGS:]) if losses else None,
        "eval_loss": eval_losses[-1] if eval_losses else None,
        "rows": len(trainer.train_dataset),
        "eval_rows": len(trainer.eval_dataset) if trainer.eval_dataset is not None else 0,
        "tokens": tokens,
        "seconds": round(seconds, 2),
        "tokens_per_s": round(tokens / seconds, 1),
        "device": precision.device,
        "dtype": precision.dtype,
        "hardware": precision.hardware,
        "base_fingerprint": trainer.base_fingerprint,
        **training.weight_facts(trainer.model, folder / "adapter"),
        "launched": launched(trainer, args.config),
        "trackio_project": args.project,
        "trackio_run": args.run_name,
    }


def launched(trainer: "SFTTrainer", config: TrainConfig) -> dict[str, Any]:
    """The hyperparameters as the trainer and the adapter hold them; what they do not hold, as it was asked."""
    held = {name: getattr(trainer.args, name) for name in TrainConfig.model_fields if hasattr(trainer.args, name)}
    lora = trainer.model.peft_config["default"]
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


def main(argv: Sequence[str] | None = None) -> int:
    """Train by the command line; returns the exit code."""
    args, stop = parse_args(argv), Stop()
    on_sigterm(stop)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TRL reports to the Hub when a trainer is made
    try:
        emit_result(train(args, stop))
    except HfagentError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
