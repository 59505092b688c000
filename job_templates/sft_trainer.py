"""TRL's SFT trainer with our schedule, and off CUDA with a loss that costs a small model half as much."""

from typing import TYPE_CHECKING

from hfagent.job_templates.training import Scheduled

if TYPE_CHECKING:
    from peft import PeftModel
    from trl import SFTTrainer


def sft_trainer(device: str) -> type["SFTTrainer"]:
    """The trainer class for a device.

    TRL's loss projects only positions with a label to the vocabulary on CUDA; elsewhere it projects all of them, in
    several passes: 45 % of the processor time of a step of SmolLM2-135M.
    """
    from torch import Tensor, as_tensor
    from torch.nn.functional import cross_entropy
    from trl import SFTTrainer

    class ScheduledSFTTrainer(Scheduled, SFTTrainer):  # type: ignore[misc]
        pass

    class LabelledLossTrainer(ScheduledSFTTrainer):
        def compute_loss(
            self,
            model: "PeftModel",
            inputs: dict[str, Tensor],
            return_outputs: bool = False,  # noqa: FBT001, FBT002 - the signature is transformers'
            num_items_in_batch: Tensor | int | None = None,
        ) -> Tensor:
            labels = inputs["labels"][:, 1:]
            places = (labels != -100).any(0).nonzero().squeeze(1)
            outputs = model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                logits_to_keep=places,
                use_cache=False,
            )
            labels = labels[:, places].flatten()
            items = (labels != -100).sum() if num_items_in_batch is None else as_tensor(num_items_in_batch)
            summed = cross_entropy(outputs.logits.flatten(0, 1).float(), labels, reduction="sum")
            return summed / items.clamp(min=1)

    return ScheduledSFTTrainer if device == "cuda" else LabelledLossTrainer
