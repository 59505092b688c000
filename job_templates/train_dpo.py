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
"""Direct preference optimization of a LoRA adapter with TRL: the chosen answer of a pair becomes likelier.

Exit codes: 0 with a RESULT line; 1 failed, also by a loss that is no number; 2 arguments or data that cannot be used;
143 stopped by SIGTERM, with a checkpoint.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from hfagent.job_templates import trainer_run, training_args
from hfagent.job_templates.trainer_run import Technique
from hfagent.job_templates.training_args import Args
from hfagent.job_templates.trl_trainers import trl_trainer

FORMATS = (("prompt", "chosen", "rejected"), ("chosen", "rejected"))
"""What TRL's DPO trains on; without a prompt it is what the two answers share."""


def parse_args(argv: Sequence[str] | None = None) -> Args:
    """Parse; ends the process with exit code 2 on a wrong argument."""
    return training_args.parse_args(argv, method="dpo", description=__doc__)


def _trainer(args: Args, device: str) -> Callable[..., Any]:
    return trl_trainer("DPOTrainer", device)


TECHNIQUE = Technique(
    method="dpo",
    formats=FORMATS,
    trl_config="DPOConfig",
    trainer=_trainer,
    length=lambda trainer, row: len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])),
    measures=("rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Train by the command line; returns the exit code."""
    return trainer_run.main(TECHNIQUE, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
