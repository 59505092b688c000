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
"""KTO of a LoRA adapter with TRL: single answers, each labelled good or bad, become likelier or less likely.

Exit codes: 0 with a RESULT line; 1 failed, also by a loss that is no number; 2 arguments or data that cannot be used;
143 stopped by SIGTERM, with a checkpoint.
"""

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hfagent.agent.errors import UsageError
from hfagent.job_templates import trainer_run, training_args
from hfagent.job_templates.trainer_run import Rows, Technique
from hfagent.job_templates.training_args import Args, Row
from hfagent.job_templates.trl_trainers import trl_trainer

FORMATS = (("prompt", "completion", "label"), ("prompt", "chosen", "rejected"), ("chosen", "rejected"))
"""What TRL's KTO trains on; a pair becomes two answers."""


def parse_args(argv: Sequence[str] | None = None) -> Args:
    """Parse; ends the process with exit code 2 on a wrong argument."""
    return training_args.parse_args(argv, method="kto", description=__doc__)


def _trainer(args: Args, device: str) -> Callable[..., Any]:
    return trl_trainer("KTOTrainer", device)


def _check(args: Args, rows: Rows) -> Rows:
    """Refuse what teaches nothing; the rows in an order of the seed, since TRL takes KTO's in theirs."""
    if args.config.per_device_train_batch_size < 2:
        raise UsageError(
            "--per-device-train-batch-size 1 is too small for KTO: it compares the answers of a micro-batch; give 2 "
            "or more"
        )
    single = Rows(_single(rows.train), _single(rows.held_out))
    good, bad = _counts(single)
    if (not good or not bad) and not args.smoke:  # its few rows may be of one label where the data are not
        raise UsageError(
            f"all {good + bad} labels are {bool(good)}: KTO learns from the difference of good and bad answers; add "
            f"rows of the label {not good}"
        )
    order = random.Random(args.config.seed)  # noqa: S311 - reproducible, not secret
    return replace(single, train=order.sample(single.train, len(single.train)))


def _single(rows: list[Row]) -> list[Row]:
    """Each pair as two answers. TRL puts the good ones of all pairs before the bad ones, and so would train on them."""
    if not rows or "label" in rows[0]:
        return rows
    from trl import extract_prompt

    pairs = [row if "prompt" in row else extract_prompt(row) for row in rows]
    kinds = (("chosen", True), ("rejected", False))
    return [
        {"prompt": pair["prompt"], "completion": pair[kind], "label": label} for pair in pairs for kind, label in kinds
    ]


def _settings(args: Args, rows: Rows) -> dict[str, Any]:
    """Weights that let the good and the bad answers count alike, where none are given."""
    found: dict[str, Any] = {"train_sampling_strategy": "sequential"}  # TRL pairs neighbours to estimate a divergence
    good, bad = _counts(rows)
    given = args.config.desirable_weight is not None or args.config.undesirable_weight is not None
    if not given and good and bad and good != bad:
        found |= {"desirable_weight": max(bad / good, 1.0), "undesirable_weight": max(good / bad, 1.0)}
    return found


def _counts(rows: Rows) -> tuple[int, int]:
    """Good and bad answers to train on."""
    good = sum(bool(row["label"]) for row in rows.train)
    return good, len(rows.train) - good


TECHNIQUE = Technique(
    method="kto",
    formats=FORMATS,
    trl_config="KTOConfig",
    trainer=_trainer,
    length=lambda trainer, row: len(row["prompt_ids"]) + len(row["completion_ids"]),
    measures=("rewards/margins", "rewards/chosen", "rewards/rejected", "kl"),
    settings=_settings,
    check=_check,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Train by the command line; returns the exit code."""
    return trainer_run.main(TECHNIQUE, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
