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
"""A reward model with TRL: a LoRA adapter and a head that gives the chosen answer of a pair the higher number.

Exit codes: 0 with a RESULT line; 1 failed, also by a loss that is no number; 2 arguments or data that cannot be used;
143 stopped by SIGTERM, with a checkpoint.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from hfagent.job_templates import base_model, trainer_run, training_args
from hfagent.job_templates.trainer_run import Technique
from hfagent.job_templates.training_args import Args
from hfagent.job_templates.trl_trainers import trl_trainer

FORMATS = (("prompt", "chosen", "rejected"), ("chosen", "rejected"))
"""What TRL's reward trainer trains on."""


def parse_args(argv: Sequence[str] | None = None) -> Args:
    """Parse; ends the process with exit code 2 on a wrong argument."""
    return training_args.parse_args(argv, method="reward", description=__doc__)


def _trainer(args: Args, device: str) -> Callable[..., Any]:
    return trl_trainer("RewardTrainer", device)


TECHNIQUE = Technique(
    method="reward",
    formats=FORMATS,
    trl_config="RewardConfig",
    trainer=_trainer,
    length=lambda trainer, row: max(len(row["chosen_ids"]), len(row["rejected_ids"])),
    measures=("accuracy", "margin", "mean_reward"),
    model=base_model.scoring_model,
    task_type="SEQ_CLS",
    too_long="one of their answers ends beyond it",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Train by the command line; returns the exit code."""
    return trainer_run.main(TECHNIQUE, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
