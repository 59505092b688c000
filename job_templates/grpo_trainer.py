"""TRL's GRPO trainer with our schedule, and on a processor with our generation of answers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hfagent.job_templates.generation import Decoding, complete_ids
from hfagent.job_templates.trl_trainers import trl_trainer

if TYPE_CHECKING:
    from trl import GRPOTrainer

MIN_BATCH = 8
"""Answers generated together at least: fewer are no quicker."""
SEEDS_OF_A_STEP, SEEDS_OF_A_RUN = 1_000, 1_000_003
"""Each batch of a step takes one."""


def grpo_trainer(device: str) -> Callable[..., "GRPOTrainer"]:
    """The trainer class for a device."""
    import torch

    made = trl_trainer("GRPOTrainer", device)

    class OwnGeneration(made):  # type: ignore[misc, valid-type]
        def _generate_single_turn(
            self, prompt_ids: list[list[int]], *_: Any, **__: Any
        ) -> tuple[list[list[int]], None]:
            """TRL's own, by `generate` of transformers, works on each row until the last one ends.

            Private to TRL 1.16: where it is called otherwise, TRL's own is used, which is as right, and slower.
            """
            model = self.accelerator.unwrap_model(self.model)
            was_training = model.training
            model.eval()
            # Draws depend on the step alone, so an extension repeats those of a run that was long from the start.
            decoding = Decoding(
                max_new_tokens=self.args.max_completion_length,
                batch_size=max(MIN_BATCH, -(-len(prompt_ids) // torch.get_num_threads())),
                temperature=self.temperature,
                seed=self.args.seed * SEEDS_OF_A_RUN + self.state.global_step * SEEDS_OF_A_STEP,
            )
            answers = complete_ids(model.get_base_model(), self.processing_class, prompts=prompt_ids, decoding=decoding)
            model.train(was_training)
            return answers, None

    return OwnGeneration if device == "cpu" else made
