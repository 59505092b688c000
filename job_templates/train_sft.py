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

import sys
from collections.abc import Callable, Sequence
from typing import Any

from hfagent.job_templates import trainer_run, training_args
from hfagent.job_templates.trainer_run import Rows, Technique
from hfagent.job_templates.training_args import Args

FORMATS = (("prompt", "completion"), ("messages",), ("conversations",), ("text",))
"""What TRL's SFT trains on."""


def parse_args(argv: Sequence[str] | None = None) -> Args:
    """Parse; ends the process with exit code 2 on a wrong argument."""
    return training_args.parse_args(argv, method="sft", description=__doc__)


def _trainer(args: Args, device: str) -> Callable[..., Any]:
    from hfagent.job_templates.sft_trainer import sft_trainer

    return sft_trainer(device, rows=args.config.per_device_train_batch_size)


def _settings(args: Args, rows: Rows) -> dict[str, Any]:
    """The trainer is given all rows of a step at once, and divides them itself."""
    return {"per_device_train_batch_size": args.config.batch, "gradient_accumulation_steps": 1}


TECHNIQUE = Technique(
    method="sft",
    formats=FORMATS,
    trl_config="SFTConfig",
    trainer=_trainer,
    length=lambda trainer, row: len(row["input_ids"]),
    settings=_settings,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Train by the command line; returns the exit code."""
    return trainer_run.main(TECHNIQUE, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
