"""Loads what is trained: the base model in the computing format, quantized where that was asked for, its tokenizer."""

import importlib.util
from typing import Any

from hfagent.agent.errors import ModelError, PackageMissing, UsageError
from hfagent.job_templates.runtime import Precision, pick_precision
from hfagent.job_templates.training_args import Args
from hfagent.tools.safe_weights import SAFE


def training_precision() -> Precision:
    """The machine's precision, but fp32 on Apple's MPS, which has no scaled fp16 training."""
    found = pick_precision()
    return Precision("mps", "float32", found.hardware) if found.device == "mps" else found


def causal_model(args: Args, precision: Precision) -> Any:
    """A model that continues texts.

    Raises:
        ModelError: not there, or not a causal language model.
        UsageError: it was to be quantized where that is not possible.
        PackageMissing: bitsandbytes is not installed.
    """
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, args, precision)


def scoring_model(args: Args, precision: Precision) -> Any:
    """A model that gives a text one number: the base model with a fresh head, drawn by the run's seed.

    Raises:
        ModelError: not there, or of an architecture without a head for scores.
        UsageError: it was to be quantized where that is not possible.
        PackageMissing: bitsandbytes is not installed.
    """
    from transformers import AutoModelForSequenceClassification, set_seed

    set_seed(args.config.seed)
    return _load(AutoModelForSequenceClassification, args, precision, num_labels=1)


def tokenizer(model: str, revision: str | None) -> Any:
    """A model's tokenizer.

    Raises:
        ModelError: not there.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot load model {model!r}: {str(error).splitlines()[0]}") from error


def quantization(args: Args, precision: Precision) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a model of 4 bits; none where it was not asked for."""
    if not args.config.load_in_4bit:
        return {}
    if precision.device != "cuda":
        raise UsageError(
            f"--load-in-4bit needs a CUDA GPU, and this machine computes on {precision.hardware}: leave it out"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise PackageMissing("--load-in-4bit needs the package bitsandbytes: pip install bitsandbytes")
    import torch
    from transformers import BitsAndBytesConfig

    dtype = getattr(torch, precision.dtype)
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
    )
    return {"quantization_config": config}


def _load(auto: Any, args: Args, precision: Precision, **options: Any) -> Any:
    import torch

    options |= quantization(args, precision)
    try:
        return auto.from_pretrained(
            args.model, revision=args.revision, dtype=getattr(torch, precision.dtype), **SAFE, **options
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot load model {args.model!r}: {str(error).splitlines()[0]}") from error
