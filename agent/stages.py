"""The methods that a goal asks for, one after the other, and the pipeline that is made of the plans for them. Pure."""

import re
from collections.abc import Collection, Sequence
from typing import get_args

from hfagent.agent.errors import PlanRejected
from hfagent.agent.goal import GoalHints
from hfagent.agent.pipeline_facts import MAX_NAME, Pipeline
from hfagent.agent.pipeline_rules import named, stage_names
from hfagent.agent.plan import BUILT, Flags
from hfagent.agent.records import Method, Plan

SEPARATOR = re.compile(r"\s*(?:,|->|→|\bthen\b)\s*", re.IGNORECASE)


def asked_methods(flags: Flags, hints: GoalHints) -> tuple[Method, ...]:
    """The training methods in their order; one where neither flags nor sentence say more.

    Raises:
        PlanRejected: no such method, one that has no job template, one that the goal rules out, or one twice.
    """
    words = SEPARATOR.split(flags.method.strip().lower()) if flags.method else hints.stages or ("sft",)
    if not flags.method and (ruled_out := [word for word in words if word in hints.excluded]):
        raise PlanRejected(
            f"the goal rules out {ruled_out[0]!r}: say which method is wanted instead, of {', '.join(BUILT)}"
        )
    found = []
    for word in words:
        if word not in get_args(Method) or word not in BUILT:
            raise PlanRejected(f"the method {word!r} is not available yet; there is {', '.join(BUILT)}")
        found.append(next(method for method in BUILT if method == word))
    if len(set(found)) < len(found):
        raise PlanRejected(f"the stages {' then '.join(found)} name a method twice: name each once")
    return tuple(found)


def stage_flags(flags: Flags, methods: Sequence[Method]) -> list[Flags]:
    """The flags of each stage: its own method, and its own dataset where several are named with commas.

    Raises:
        PlanRejected: several datasets, and not as many as stages.
    """
    names = flags.dataset.split(",") if flags.dataset is not None else []
    if len(names) > 1 and len(names) != len(methods):
        raise PlanRejected(
            f"--dataset names {len(names)} datasets for {len(methods)} stages ({' then '.join(methods)}): name one for "
            "all of them, or one for each, in their order"
        )
    datasets = names if len(names) > 1 else [flags.dataset] * len(methods)
    return [
        flags.model_copy(update={"method": method, "dataset": dataset, "project": None})
        for method, dataset in zip(methods, datasets, strict=True)
    ]


def make_pipeline(goal: str, plans: Sequence[Plan], flags: Flags, taken: Collection[str]) -> Pipeline:
    """The pipeline of the plans of its stages.

    Args:
        goal: the sentence.
        plans: one for each stage, in their order, each as if it began on the base model.
        flags: what the command line says.
        taken: project names in use.

    Raises:
        PlanRejected: its name cannot be used.
    """
    first = plans[0]
    wanted = flags.project
    if wanted is None:
        model = re.sub(rf"-{first.method}(-\d+)?$", "", first.project)
        tail = "-".join(plan.method for plan in plans)
        wanted = _free(f"{model[: MAX_NAME - len(tail) - 4].strip('-')}-{tail}", plans, taken)
    elif not re.fullmatch(rf"[a-z0-9][a-z0-9-]{{0,{MAX_NAME - 1}}}", wanted):
        raise PlanRejected(
            f"the project name {wanted!r} must be 1 to {MAX_NAME} lower-case letters, digits and dashes, where it has "
            "stages"
        )
    elif used := _used(wanted, plans, taken):
        raise PlanRejected(f"the project {used!r} exists: `hfagent resume {used}`, or another name")
    notes = [note for plan in plans for note in plan.notes]
    # Scores of two stages are compared at the end, so all must be made alike, also on different hardware.
    batch = min(plan.evaluation.batch_size for plan in plans)
    evaluation = first.evaluation.model_copy(update={"batch_size": batch})
    return named(
        Pipeline(
            project=wanted,
            token=first.token,
            goal=goal,
            stages=tuple(plan.model_copy(update={"evaluation": evaluation}) for plan in plans),
            budget_micro_usd=first.budget_micro_usd,
            max_hours=first.max_hours,
            max_gpu_hours=first.max_gpu_hours,
            max_planner_tokens=first.max_planner_tokens,
            export=first.export,
            notes=tuple(dict.fromkeys(notes)),
        )
    )


def _used(name: str, plans: Sequence[Plan], taken: Collection[str]) -> str | None:
    return next((project for project in (name, *stage_names(name, plans)) if project in taken), None)


def _free(name: str, plans: Sequence[Plan], taken: Collection[str]) -> str:
    number = 1
    while _used(candidate := name if number == 1 else f"{name}-{number}", plans, taken):
        number += 1
    return candidate
