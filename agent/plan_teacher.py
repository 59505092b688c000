"""The teacher of a plan: who is learnt from by distillation. Pure."""

from collections.abc import Collection

from hfagent.agent.errors import PlanRejected
from hfagent.agent.records import Method, ModelRef


def wanted_teacher(flag: str | None, said: str | None, methods: Collection[Method]) -> str | None:
    """The teacher that is asked for, by the flag before the sentence.

    Raises:
        PlanRejected: one is named, and nothing is distilled.
    """
    name = flag or said
    if name is not None and "distillation" not in methods:
        raise PlanRejected(
            f"the teacher {name!r} is for distillation, and the method is {' then '.join(methods)}: leave it out, or "
            "take --method distillation"
        )
    return name


def choose_teacher(model: ModelRef, wanted: ModelRef | None) -> ModelRef:
    """The teacher of a distillation.

    Args:
        model: that learns.
        wanted: who is asked for.

    Raises:
        PlanRejected: none was named, or it is the model itself.
    """
    if wanted is None:
        raise PlanRejected(
            "distillation needs a teacher, a better model of the same family: --teacher with a Hub id or a folder, or "
            "'with distillation from Qwen/Qwen3-4B'"
        )
    if wanted.id.rstrip("/") == model.id.rstrip("/"):
        raise PlanRejected(f"the teacher is the model itself, {model.id!r}: name a better model of the same family")
    return wanted
