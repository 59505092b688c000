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
"""GRPO of a LoRA adapter with TRL: of several answers to a prompt those of a higher reward become likelier.

Exit codes: 0 with a RESULT line; 1 failed, also by a loss that is no number; 2 arguments or data that cannot be used;
143 stopped by SIGTERM, with a checkpoint.
"""

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from hfagent.agent.errors import UsageError
from hfagent.job_templates import prompt_rows, trainer_run, training_args
from hfagent.job_templates.trainer_run import Rows, Technique
from hfagent.job_templates.training_args import Args
from hfagent.tools import rewards

FORMATS = (("prompt",),)
"""What TRL's GRPO trains on; the other columns go to the rewards."""
DEFAULT_GENERATIONS = 8
"""TRL's."""
MEASURES = (
    *("reward", "reward_std", "frac_reward_zero_std", "entropy", "kl"),
    *("completions/mean_length", "completions/clipped_ratio"),
)
"""The reward, and what shows that it is gamed: answers that grow or are cut, groups without a difference."""


def parse_args(argv: Sequence[str] | None = None) -> Args:
    """Parse; ends the process with exit code 2 on a wrong argument."""
    return training_args.parse_args(argv, method="grpo", description=__doc__)


def _trainer(args: Args, device: str) -> Callable[..., Any]:
    from hfagent.job_templates.sampling_trainers import grpo_trainer

    def make(model: Any, **given: Any) -> Any:
        for name in ("train_dataset", "eval_dataset"):
            given[name] = given[name] and prompt_rows.fitting(
                given[name], given["processing_class"], given["args"], args
            )
        if (left := len(given["train_dataset"])) < _prompts(args):
            raise UsageError(
                f"--max-length {args.config.max_length} leaves {left} rows whose completions have room, fewer than the "
                f"{_prompts(args)} prompts of a step: raise it, or give a smaller batch"
            )
        return grpo_trainer(device)(model, reward_funcs=list(_rewards(args)), **given)

    return make


def _rewards(args: Args) -> tuple[rewards.Reward, ...]:
    config = args.config
    if config.reward_funcs is None:
        raise UsageError(f"grpo needs --reward-funcs: {', '.join(rewards.NAMES)}, or package.module:function")
    return _loaded(config.reward_funcs, args.unsafe_exec, config.max_completion_length)


@cache
def _loaded(text: str, unsafe: bool, max_tokens: int | None) -> tuple[rewards.Reward, ...]:  # noqa: FBT001
    return rewards.load(text, unsafe=unsafe, max_tokens=max_tokens)


def _check(args: Args, rows: Rows) -> Rows:
    """Refuse a batch without whole groups, too few prompts, and rewards that cannot judge the answers to each."""
    config = args.config
    generations = config.num_generations or DEFAULT_GENERATIONS
    if config.batch % generations:
        raise UsageError(
            f"a step has {config.batch} completions (--per-device-train-batch-size times "
            f"--gradient-accumulation-steps), which are no whole groups of --num-generations {generations}"
        )
    prompts = _prompts(args)
    if len(rows.train) < prompts:
        raise UsageError(f"{len(rows.train)} rows are fewer than the {prompts} prompts of a step: give more rows")
    rewards.check(_rewards(args), [*rows.train, *rows.held_out])
    return rows


def _prompts(args: Args) -> int:
    """Prompts of a step."""
    return args.config.batch // (args.config.num_generations or DEFAULT_GENERATIONS)


def _settings(args: Args, rows: Rows) -> dict[str, Any]:
    return {
        "max_length": None,  # TRL's GRPO cuts no prompt
        "include_num_input_tokens_seen": "no",  # TRL counts those of GRPO itself
        "per_device_eval_batch_size": args.config.batch,
        "num_generations": args.config.num_generations or DEFAULT_GENERATIONS,
        "reward_weights": [reward.weight for reward in _rewards(args)],
    }


def _epoch(trainer: Any) -> int:
    """Completions of an epoch: TRL leaves out what does not fill the last step."""
    prompts = trainer.args.generation_batch_size // trainer.num_generations
    return int(len(trainer.train_dataset) // prompts * trainer.args.generation_batch_size)


TECHNIQUE = Technique(
    method="grpo",
    formats=FORMATS,
    trl_config="GRPOConfig",
    trainer=_trainer,
    length=prompt_rows.whole_length,
    measures=MEASURES,
    settings=_settings,
    check=_check,
    all_columns=True,
    epoch=_epoch,
    too_long="prompt and completion together may exceed it",
    loss_has_level=False,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Train by the command line; returns the exit code."""
    return trainer_run.main(TECHNIQUE, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
