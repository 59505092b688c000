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
"""Distillation of a LoRA adapter with TRL: on its own answers the model learns what a teacher would have said next.

Exit codes: 0 with a RESULT line; 1 failed, also by a loss that is no number; 2 arguments, data or a teacher that cannot
be used; 143 stopped by SIGTERM, with a checkpoint.
"""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

from hfagent.agent.errors import UsageError
from hfagent.job_templates import prompt_rows, teacher, trainer_run, training_args
from hfagent.job_templates.runtime import say
from hfagent.job_templates.trainer_run import Rows, Technique
from hfagent.job_templates.training_args import Args, Row

FORMATS = (("prompt",), ("messages",))
"""TRL's distillation trains on prompts; those of a chat are all before its last answer."""
MEASURES = ("entropy", "completions/mean_length", "completions/clipped_ratio")
"""Beside the loss, which is the distance to the teacher: what shows that answers shrink, run on or become one."""


def parse_args(argv: Sequence[str] | None = None) -> Args:
    """Parse; ends the process with exit code 2 on a wrong argument."""
    return training_args.parse_args(argv, method="distillation", description=__doc__)


def _trainer(args: Args, device: str) -> Callable[..., Any]:
    from hfagent.job_templates.sampling_trainers import distillation_trainer

    def make(model: Any, **given: Any) -> Any:
        batch = args.config.batch
        for name in ("train_dataset", "eval_dataset"):
            given[name] = given[name] and prompt_rows.fitting(
                given[name], given["processing_class"], given["args"], args
            )
        left = len(given["train_dataset"])
        if left < batch and not (left and args.smoke):
            raise UsageError(
                f"--max-length {args.config.max_length} leaves {left} rows whose completions have room, fewer than the "
                f"{batch} of a step: raise it, or give a smaller batch"
            )
        if left < batch:  # a smoke run's few rows may be long ones where the others are not
            given["train_dataset"] = given["train_dataset"].repeat(math.ceil(batch / left))
        return distillation_trainer(device)(model, teacher_model=teacher.load(args, model), **given)

    return make


def _check(args: Args, rows: Rows) -> Rows:
    """Refuse fewer rows than a step has, and a teacher that the model cannot learn from."""
    if len(rows.train) < args.config.batch:
        raise UsageError(
            f"{len(rows.train)} rows are fewer than the {args.config.batch} of a step: give more, or a smaller batch"
        )
    teacher.check(args)
    return Rows(_prompts(rows.train), _prompts(rows.held_out))


def _prompts(rows: list[Row]) -> list[Row]:
    """Each row's prompt; of a chat all before its last answer, and a chat that has nothing before it is left out."""
    if not rows or "prompt" in rows[0]:
        return rows
    chats = [row["messages"] for row in rows]
    last = [max(place for place, turn in enumerate(chat) if turn["role"] == "assistant") for chat in chats]
    if count := last.count(0):
        say(f"{count} of {len(rows)} chats left out, since they begin with their only answer")
    return [{"prompt": chat[:place]} for chat, place in zip(chats, last, strict=True) if place]


def _settings(args: Args, rows: Rows) -> dict[str, Any]:
    return {
        "max_length": None,  # TRL's distillation cuts no prompt
        "include_num_input_tokens_seen": "no",  # TRL counts those of distillation itself
    }


def _epoch(trainer: Any) -> int:
    """Rows of an epoch: TRL leaves out what does not fill the last step."""
    step = trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps
    return int(len(trainer.train_dataset) // step * step)


TECHNIQUE = Technique(
    method="distillation",
    formats=FORMATS,
    trl_config="DistillationConfig",
    trainer=_trainer,
    length=prompt_rows.whole_length,
    measures=MEASURES,
    settings=_settings,
    check=_check,
    epoch=_epoch,
    too_long="prompt and completion together may exceed it",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Train by the command line; returns the exit code."""
    return trainer_run.main(TECHNIQUE, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
