"""The model that another one learns from by distillation."""

from typing import Any

from hfagent.agent.errors import ModelError, UsageError
from hfagent.job_templates import base_model
from hfagent.job_templates.training import base_fingerprint
from hfagent.job_templates.training_args import Args
from hfagent.tools.safe_weights import SAFE


def check(args: Args) -> None:
    """Refuse a teacher that does not choose from the model's own tokens; no weight is loaded.

    Raises:
        UsageError: another vocabulary or tokenizer.
        ModelError: model or teacher is not there.
    """
    sizes = [_vocab_size(*named) for named in ((args.model, args.revision), _named(args))]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"the teacher {args.teacher!r} chooses from {sizes[1]} tokens, the model {args.model!r} from {sizes[0]}: "
            "take a teacher of the model's own family, with the same vocabulary"
        )
    own, other = (base_model.tokenizer(*named).get_vocab() for named in ((args.model, args.revision), _named(args)))
    strange = next((token for token, place in own.items() if other.get(token) != place), None)
    if strange is not None:
        raise UsageError(
            f"the teacher {args.teacher!r} has another tokenizer than the model {args.model!r}, e.g. for {strange!r}: "
            "take a teacher of the model's own family"
        )


def load(args: Args, model: Any) -> Any:
    """The teacher, in the model's computing format.

    Args:
        args: name the teacher.
        model: that learns, without an adapter yet.

    Raises:
        ModelError: not there, or not a causal language model.
        UsageError: it has the model's own weights.
    """
    import torch
    from transformers import AutoModelForCausalLM

    name, revision = _named(args)
    dtype = getattr(torch, base_model.training_precision().dtype)
    try:
        found = AutoModelForCausalLM.from_pretrained(name, revision=revision, dtype=dtype, **SAFE)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot load the teacher {name!r}: {str(error).splitlines()[0]}") from error
    if base_fingerprint(found) == base_fingerprint(model):
        raise UsageError(f"the teacher {name!r} has the weights of the model itself: there is nothing to learn from it")
    return found.requires_grad_(requires_grad=False)


def _named(args: Args) -> tuple[str, str | None]:
    return str(args.teacher), args.teacher_revision


def _vocab_size(name: str, revision: str | None) -> int:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot load model {name!r}: {str(error).splitlines()[0]}") from error
    return int(config.get_text_config().vocab_size)
