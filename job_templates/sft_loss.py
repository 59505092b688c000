"""A trainer for machines where TRL's fused loss is slow: only positions with a label reach the vocabulary."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import PeftModel
    from trl import SFTTrainer


def labelled_loss_trainer() -> type["SFTTrainer"]:
    """TRL's trainer with a loss that projects only positions with a label to the vocabulary.

    TRL's own does so on CUDA; elsewhere it projects all of them several times, nearly half of a small model's step.
    """
    from torch import Tensor, as_tensor
    from torch.nn.functional import cross_entropy
    from trl import SFTTrainer

    class LabelledLossTrainer(SFTTrainer):  # type: ignore[misc]
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

    return LabelledLossTrainer
