"""Cross entropy of large vocabularies on a processor, by rows that fit in its cache."""

from typing import Any

from torch import Tensor, arange, empty_like, float32
from torch.autograd import Function

ROWS = 16
"""Computed at a time: 3 MB of SmolLM2's vocabulary in float32."""
IGNORED = -100
"""Label of a position that does not count."""


class SummedCrossEntropy(Function):  # type: ignore[misc]
    """`cross_entropy(logits.float(), labels, reduction="sum")` that keeps neither float32 logits nor their softmax.

    The gradient is computed with the loss, and kept in the type of the logits.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        """Of logits (positions, vocabulary) and labels (positions), the sum over positions."""
        gradient = empty_like(logits) if ctx.needs_input_grad[0] else None
        loss = logits.new_zeros((), dtype=float32)
        for first in range(0, len(labels), ROWS):
            part = slice(first, first + ROWS)
            x, counts = logits[part].to(float32, copy=True), labels[part] != IGNORED
            place = (arange(len(x), device=x.device), labels[part].clamp(min=0))
            x -= x.amax(1, keepdim=True)
            target = x[place]
            total = x.exp_().sum(1)
            loss += ((total.log() - target) * counts).sum()
            if gradient is not None:
                x *= (counts / total)[:, None]
                x[place] -= counts.float()
                gradient[part] = x
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, None]:
        """Of the logits."""
        (gradient,) = ctx.saved_tensors
        return gradient * outer, None
