"""TRL's SFT trainer with our schedule and micro-batches, and off CUDA a loss that costs a small model half as much."""

from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from hfagent.job_templates.micro_batches import divide
from hfagent.job_templates.training import Scheduled

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from trl import SFTTrainer

PASS_TOKENS = {"cpu": 100, "cuda": 8000, "mps": 1000}
"""What a pass forward and back costs besides its tokens, in tokens: 44,000 for Qwen3-0.6B on an H200, whose 0.27 s are
the launching of kernels; fewer for larger models and slower GPUs. MPS is a guess."""


def sft_trainer(device: str, *, rows: int) -> type["SFTTrainer"]:
    """The trainer class for a device; it is given all rows of a step as one batch.

    A step is passed through the model in micro-batches of rows of about the same length. The gradient is that of any
    other division, since the loss is a sum over tokens divided by those of the whole step. (The mean over micro-batches
    of a mixture of experts' balance is none, in any division.)

    TRL's loss projects only positions with a label to the vocabulary on CUDA; elsewhere it projects all of them, in
    several passes: 45 % of the processor time of a step of SmolLM2-135M.

    Args:
        device: as torch calls it.
        rows: of the greatest length that a micro-batch has memory for, or more shorter ones.
    """
    from peft.helpers import disable_input_dtype_casting
    from torch import Tensor, as_tensor, ones_like
    from trl import SFTTrainer

    from hfagent.job_templates.token_loss import IGNORED, SummedCrossEntropy

    class DividingSFTTrainer(Scheduled, SFTTrainer):  # type: ignore[misc]
        micro_batch = rows
        loss_is_scaled_for_ga = True

        @cached_property
        def most_tokens(self) -> int:
            return rows * max(map(len, self.train_dataset["input_ids"]))

        def training_step(self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
            lengths: list[int] = inputs["attention_mask"].sum(1).tolist()
            if num_items_in_batch is None:  # of a model whose own loss does not ask for it
                num_items_in_batch = (inputs["labels"][:, 1:] != IGNORED).sum()
            # Padding comes last, and no token sees a later one: without a mask a causal kernel takes half the time. The
            # balance of experts does count it.
            if not self.aux_loss_enabled:
                inputs = inputs | {"attention_mask": ones_like(inputs["attention_mask"])}
            passes = divide(lengths, most_tokens=self.most_tokens, pass_tokens=PASS_TOKENS[device])
            self.current_gradient_accumulation_steps = len(passes)
            losses = []
            # peft makes a float32 copy of what goes into each adapter, of which autocast makes 16 bits again.
            with disable_input_dtype_casting(model, active=self.args.bf16 or self.args.fp16):
                for chosen in passes:
                    part = {name: values[chosen, : lengths[chosen[0]]] for name, values in inputs.items()}
                    losses.append(super().training_step(model, part, num_items_in_batch=num_items_in_batch))
            return cast("Tensor", sum(losses))

    class LabelledLossTrainer(DividingSFTTrainer):
        def compute_loss(
            self,
            model: "PeftModel",
            inputs: dict[str, Tensor],
            return_outputs: bool = False,  # noqa: FBT001, FBT002 - the signature is transformers'
            num_items_in_batch: Tensor | int | None = None,
        ) -> Tensor:
            labels = inputs["labels"][:, 1:]
            places = (labels != IGNORED).any(0).nonzero().squeeze(1)
            outputs = model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                logits_to_keep=places,
                use_cache=False,
            )
            labels = labels[:, places].flatten()
            items = (labels != IGNORED).sum() if num_items_in_batch is None else as_tensor(num_items_in_batch)
            summed: Tensor = SummedCrossEntropy.apply(outputs.logits.flatten(0, 1), labels)
            return summed / items.clamp(min=1)

    return DividingSFTTrainer if device == "cuda" else LabelledLossTrainer
