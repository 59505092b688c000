"""TRL's trainers that sample completions, with our schedule, and on a processor with our generation of them."""

import importlib
from collections.abc import Callable
from typing import Any

from hfagent.job_templates.generation import Decoding, complete_ids
from hfagent.job_templates.trl_trainers import trl_trainer

MIN_BATCH = 8
"""Answers generated together at least: fewer are no quicker."""
SEEDS_OF_A_STEP, SEEDS_OF_A_RUN = 1_000, 1_000_003
"""Each batch of a step takes one."""


def grpo_trainer(device: str) -> Callable[..., Any]:
    """The trainer class of GRPO for a device."""
    made = trl_trainer("GRPOTrainer", device)

    class OwnGeneration(made):  # type: ignore[misc, valid-type]
        def _generate_single_turn(
            self, prompt_ids: list[list[int]], *_: Any, **__: Any
        ) -> tuple[list[list[int]], None]:
            return sampled(self, prompt_ids), None

    return OwnGeneration if device == "cpu" else made


def distillation_trainer(device: str) -> Callable[..., Any]:
    """The trainer class of distillation for a device."""
    made = trl_trainer("DistillationTrainer", device)
    if device != "cuda":  # as in `trl_trainer`: only what was written is projected to the vocabulary, no padding
        vars(importlib.import_module("trl.trainer.distillation_trainer"))["_use_triton"] = lambda _: True

    class OwnGeneration(made):  # type: ignore[misc, valid-type]
        def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> list[list[int]]:
            return sampled(self, prompt_ids)

    return OwnGeneration if device == "cpu" else made


def sampled(trainer: Any, prompt_ids: list[list[int]]) -> list[list[int]]:
    """A completion of each prompt.

    TRL's own, by `generate` of transformers, works on each row until the last one ends. Its method is private to TRL
    1.16: where it is called otherwise, TRL's own is used, which is as right, and slower.
    """
    import torch

    model = trainer.accelerator.unwrap_model(trainer.model)
    was_training = model.training
    model.eval()
    # Draws depend on the step alone, so an extension repeats those of a run that was long from the start.
    decoding = Decoding(
        max_new_tokens=trainer.args.max_completion_length,
        batch_size=max(MIN_BATCH, -(-len(prompt_ids) // torch.get_num_threads())),
        temperature=trainer.temperature,
        seed=trainer.args.seed * SEEDS_OF_A_RUN + trainer.state.global_step * SEEDS_OF_A_STEP,
    )
    answers = complete_ids(model.get_base_model(), trainer.processing_class, prompts=prompt_ids, decoding=decoding)
    model.train(was_training)
    return answers
