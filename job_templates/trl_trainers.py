"""TRL's trainers with our schedule, and off CUDA with a loss that spares what has no label."""

from collections.abc import Callable
from typing import Any

from hfagent.job_templates.training import Scheduled


def trl_trainer(name: str, device: str) -> Callable[..., Any]:
    """TRL's trainer of this name, whose learning rate follows a schedule of ours.

    Its losses project only positions with a label to the vocabulary where Triton is; elsewhere they project all, lest
    another shape of each batch means another compilation (Neuron). Nothing is compiled on a processor or MPS, where
    prompts and padding are half of the work. The switch is private: a TRL without it is as right, and slower.
    """
    import trl
    from trl.trainer import utils

    if device != "cuda":
        utils._use_triton = lambda _: True
    trainer = getattr(trl, name)
    return type(f"Scheduled{name}", (Scheduled, trainer), {})
