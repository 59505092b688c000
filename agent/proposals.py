"""Proposed moves, and the runs that they would launch: names and configurations are given by code. Pure."""

import re
from typing import Any

from pydantic import Field

from hfagent.agent import lanes
from hfagent.agent.guards import guard_run
from hfagent.agent.records import ProblemSet, Record, Refusal, RunSpec, TrainConfig
from hfagent.agent.state import State, root_name


class Move(Record):
    """A call of one of the toolbox's tools."""

    tool: str
    args: dict[str, Any] = Field(default_factory=dict)


def smoke_run(state: State, why: str) -> RunSpec:
    """The same template with the same configuration, for a few steps."""
    return RunSpec(name="smoke", kind="smoke", why=why, train=state.plan.train)


def data_run(why: str) -> RunSpec:
    """The model answers the dataset's prompts, and what its answers are worth becomes the training data."""
    return RunSpec(name="data", kind="generate", why=why)


def train_run(state: State, why: str, hypothesis: str | None = None) -> RunSpec | Refusal:
    """The first run of a set of hyperparameters: the plan's own, then the newest proposal."""
    number, config, pending = 1, state.plan.train, state.pending
    if state.plan_tried and pending is None:
        return Refusal(what="launch train", why="no set of hyperparameters is planned: call plan_run first")
    if pending is not None:
        number, config = pending.number, pending.config
    name = root_name(state.plan.method, number)
    return RunSpec(name=name, kind="train", why=why, hypothesis=hypothesis, train=config)


def restart_run(state: State, run: str, why: str, hypothesis: str | None = None) -> RunSpec | Refusal:
    """A run that was cut off or failed, begun again as its decision says."""
    decision, before = state.decision_on(run), state.runs[run].spec
    if decision is None or decision.action != "change" or before.train is None:
        return Refusal(what=f"restart {run}", why=f"the decision on {run} is not to change it")
    return RunSpec(
        name=f"{re.sub(r'-r[0-9]+$', '', run)}-r{state.restarts(run) + 1}",
        kind="train",
        why=why,
        hypothesis=hypothesis,
        parent=before.parent,
        instead_of=run,
        resume_from=decision.resume_from,
        train=TrainConfig.model_validate({**before.train.model_dump(), **decision.changes}),
    )


def extend_run(state: State, parent: str, why: str, hypothesis: str | None = None) -> RunSpec:
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
        hypothesis=hypothesis,
        parent=parent,
        train=before.model_copy(update=changes),
    )


def evaluate_run(state: State, subject: str | None, problems: ProblemSet, why: str) -> RunSpec:
    """An evaluation of a training run's model, or of the base model; a new harness gives it a new name."""
    if problems == "confirm":
        name = f"{subject or 'baseline'}-confirm"
    else:
        name = "baseline" if subject is None else f"{subject}-eval"
    epoch = state.epochs.get(problems, 1)
    if epoch > 1:
        name += f"-e{epoch}"
    return RunSpec(name=name, kind="evaluate", why=why, subject=subject, set=problems)


def repeat_run(why: str) -> RunSpec:
    """The base model on the search set once more."""
    return RunSpec(name="baseline-repeat", kind="evaluate", why=why, set="search", repeat=True)


def spec_of(state: State, move: Move) -> RunSpec | Refusal:
    """The run that a move launches, or why it launches none."""
    args = move.args
    match move.tool, args.get("what"):
        case "launch", "smoke":
            return smoke_run(state, args["why"])
        case "launch", "data":
            return data_run(args["why"])
        case "launch", "train":
            return _retried(state) or train_run(state, args["why"], args["hypothesis"])
        case "evaluate", _:
            return _evaluation(state, args)
        case ("launch", "restart") | ("extend", _):
            name, trained = args.get("run"), [run.spec.name for run in state.trained]
            if name not in trained:
                why = f"no training run {name!r}; there are {', '.join(trained[-12:]) or 'none'}"
                return Refusal(what=f"{args.get('what', move.tool)} {name}", why=why)
            make = extend_run if move.tool == "extend" else restart_run
            return make(state, name, args["why"], args["hypothesis"])
    return Refusal(what=move.tool, why="launches nothing")


def _evaluation(state: State, args: dict[str, Any]) -> RunSpec | Refusal:
    subject = None if args["subject"] == "base" else args["subject"]
    if subject is not None and subject not in state.runs:
        known = ", ".join(run.spec.name for run in state.trained[-12:]) or "none"
        return Refusal(what=f"evaluate {subject}", why=f"no run {subject!r}; there are {known}")
    if (name := args.get("guard")) is not None:
        guards = [guard.name for guard in state.plan.guards]
        if name not in guards:
            return Refusal(what=f"evaluate {name}", why=f"no guard {name!r}; there are {', '.join(guards) or 'none'}")
        return guard_run(name, subject, args["why"])
    if not args.get("repeat"):
        return evaluate_run(state, subject, args["set"], args["why"])
    if (subject, args["set"]) != (None, "search"):
        return Refusal(what="evaluate again", why="only the base model on the search set is evaluated a second time")
    return repeat_run(args["why"])


def _retried(state: State) -> RunSpec | None:
    """A run whose machine was lost keeps its name and configuration."""
    lost = (run.spec for run in lanes.heads(state) if not run.done and run.spec.parent is None)
    return next((spec for spec in lost if state.decision_on(spec.name) is None), None)
