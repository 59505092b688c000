"""Proposed moves, and the runs that they would launch: names and configurations are given by code. Pure."""

from typing import Any

from pydantic import Field

from hfagent.agent.records import ProblemSet, Record, Refusal, RunSpec, TrainConfig
from hfagent.agent.state import State


class Move(Record):
    """A call of one of the toolbox's tools."""

    tool: str
    args: dict[str, Any] = Field(default_factory=dict)


def smoke_run(state: State, why: str) -> RunSpec:
    """The same template with the same configuration, for a few steps."""
    return RunSpec(name="smoke", kind="smoke", why=why, train=state.plan.train)


def train_run(state: State, why: str, **changes: Any) -> RunSpec:
    """A training run with the plan's hyperparameters and the changes named."""
    number = sum(1 for run in state.trained if run.spec.parent is None) + 1
    train = TrainConfig.model_validate({**state.plan.train.model_dump(), **changes})
    return RunSpec(name=f"{state.plan.method}-{number:02d}", kind="train", why=why, train=train)


def extend_run(state: State, parent: str, why: str) -> RunSpec:
    """The parent's run continued for as many epochs (or steps) again as the plan has."""
    before = state.runs[parent].spec.train or state.plan.train
    plan = state.plan.train
    changes: dict[str, Any] = {"num_train_epochs": before.num_train_epochs + plan.num_train_epochs}
    if before.max_steps is not None:
        changes = {"max_steps": before.max_steps + (plan.max_steps or before.max_steps)}
    root = parent.split("-x")[0]
    return RunSpec(
        name=f"{root}-x{state.extensions(parent) + 1}",
        kind="train",
        why=why,
        parent=parent,
        train=before.model_copy(update=changes),
    )


def evaluate_run(state: State, subject: str | None, problems: ProblemSet, why: str) -> RunSpec:
    """An evaluation of a training run's model, or of the base model."""
    if problems == "confirm":
        name = f"{subject or 'baseline'}-confirm"
    else:
        name = "baseline" if subject is None else f"{subject}-eval"
    return RunSpec(name=name, kind="evaluate", why=why, subject=subject, set=problems)


def spec_of(state: State, move: Move) -> RunSpec | Refusal:
    """The run that a move launches, or why it launches none."""
    args = dict(move.args)
    named = args.get("run", args.get("subject"))
    if named not in (None, "base") and named not in state.runs:
        return Refusal(
            what=f"{move.tool} {named}", why=f"no run {named!r}; there are {', '.join(state.runs) or 'none'}"
        )
    match move.tool:
        case "smoke":
            return smoke_run(state, **args)
        case "train":
            return _retried(state) or train_run(state, **args)
        case "extend":
            return extend_run(state, args["run"], args["why"])
        case "evaluate":
            subject = None if args["subject"] == "base" else args["subject"]
            return evaluate_run(state, subject, args["set"], args["why"])
    return Refusal(what=move.tool, why="launches nothing")


def _retried(state: State) -> RunSpec | None:
    """A first training run whose job failed keeps its name and configuration."""
    runs = state.trained
    if runs and not runs[-1].done and runs[-1].spec.parent is None:
        return runs[-1].spec
    return None
