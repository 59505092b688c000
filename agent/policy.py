"""What may run now, and what a planner without a model would do next. Pure: no clock, no disk, no network.

`check` answers a proposed move with None or a Refusal; nobody can argue with it. `next_move` is the deterministic
night; everything that it proposes passes `check`.
"""

from datetime import datetime, timedelta
from typing import Any

from pydantic import Field

from hfagent.agent import estimate
from hfagent.agent.records import BenchmarkRef, ProblemSet, Record, Refusal, RunSpec, TrainConfig
from hfagent.agent.state import Run, State

MAX_ATTEMPTS = 2
"""Jobs for one run: a second one covers a lost machine, a third would repeat the same failure."""
MIN_RUN_S = 60.0
"""Less time than this is not worth a job."""

DONE = "already done"


class Move(Record):
    """A call of one of the toolbox's tools."""

    tool: str
    args: dict[str, Any] = Field(default_factory=dict)


def deadline(state: State) -> datetime | None:
    """When the project's time is up; None without a limit."""
    hours = state.plan.max_hours
    return None if hours is None else state.started_at + timedelta(hours=hours)


# --- proposals become runs -------------------------------------------------------------------------------------------


def smoke_run(state: State, why: str) -> RunSpec:
    """The same template with the same configuration, for a few steps."""
    return RunSpec(name="smoke", kind="smoke", why=why, train=state.plan.train)


def train_run(state: State, why: str, **changes: Any) -> RunSpec:
    """A training run with the plan's hyperparameters and the changes named."""
    number = sum(1 for run in trained(state) if run.spec.parent is None) + 1
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
        name=f"{root}-x{extensions(state, parent) + 1}",
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


# --- questions about the state ---------------------------------------------------------------------------------------


def trained(state: State) -> list[Run]:
    """Training runs, oldest first."""
    return [run for run in state.runs.values() if run.spec.kind == "train"]


def extensions(state: State, name: str) -> int:
    """How many times the run's line was extended up to this run."""
    count, parent = 0, state.runs[name].spec.parent
    while parent is not None:
        count, parent = count + 1, state.runs[parent].spec.parent
    return count


def benchmark(state: State, problems: ProblemSet) -> BenchmarkRef:
    """The plan's benchmark for a problem set."""
    return state.plan.search if problems == "search" else state.plan.confirm


def kept(state: State) -> str | None:
    """The training run that was kept, if any."""
    for taken in reversed(state.decisions):
        if taken.decision.action == "keep":
            return taken.decision.run
    return None


def time_left_s(state: State, now: datetime) -> float | None:
    """Seconds to the deadline; None without one."""
    limit = deadline(state)
    return None if limit is None else (limit - now).total_seconds()


def money_left_micro_usd(state: State) -> int | None:
    """What may still be reserved; None without a cap."""
    cap = state.plan.budget_micro_usd
    if cap is None:
        return None
    # An unknown cost keeps its reserve.
    spent = sum(
        a.cost_micro_usd if a.cost_micro_usd is not None else a.job.reserve_micro_usd
        for run in state.runs.values()
        for a in run.attempts
        if not a.open and a.stage != "REJECTED"
    )
    return cap - spent - state.held_micro_usd


# --- check -----------------------------------------------------------------------------------------------------------


def check_launch(state: State, spec: RunSpec, now: datetime) -> Refusal | None:
    """Whether this run may be launched now."""
    for rule in (_check_gates, _check_duplicate, _check_order, _check_envelope):
        why = rule(state, spec, now)
        if why is not None:
            return Refusal(what=f"launch {spec.name}", why=why)
    return None


def check_decide(state: State, run: str, now: datetime) -> Refusal | None:
    """Whether a decision about this training run can be taken now."""
    if run not in state.runs or state.runs[run].spec.kind != "train":
        return Refusal(what=f"decide {run}", why=f"no training run {run!r}; there are {_names(trained(state))}")
    decision = state.decision_on(run)
    if decision is not None and not (decision.action == "extend" and blocked_extension(state, run, now)):
        return Refusal(what=f"decide {run}", why="already decided")
    if state.comparison(run, None, "search") is None:
        return Refusal(what=f"decide {run}", why="not compared with the baseline on the search set")
    return None


def check_compare(state: State, run: str, problems: ProblemSet) -> Refusal | None:
    """Whether a training run can be compared with the base model on a problem set now."""
    what = f"compare {run} on {problems}"
    for subject, name in ((None, "the base model"), (run, run)):
        if state.scored(subject, problems) is None:
            return Refusal(what=what, why=f"{name} has no score on the {problems} set")
    if state.comparison(run, None, problems) is not None:
        return Refusal(what=what, why="already compared")
    return None


def check_finish(state: State, now: datetime, outcome: str) -> Refusal | None:
    """Whether the night may end so: only when nothing that the plan asks for is left to do."""
    move = next_move(state, now)
    if move is not None and move.tool == "finish":
        due = move.args["outcome"]
        return None if outcome == due else Refusal(what=f"finish as {outcome}", why=f"the outcome is {due}")
    left = "jobs are running" if move is None else f"{move.tool} {move.args} is open"
    return Refusal(what="finish", why=left)


def _check_gates(state: State, spec: RunSpec, now: datetime) -> str | None:
    if state.ended is not None:
        return f"the project is {state.ended.state}"
    if not state.confirmed:
        return "the plan is not confirmed"
    if state.dataset is None:
        return "the dataset is not checked"
    if state.dataset.methods[state.plan.method].verdict == "INCOMPATIBLE":
        return f"the dataset is incompatible with {state.plan.method}"
    if state.open_attempts:
        return f"{state.open_attempts[0].job.run} is still open: one job at a time"
    return None


def _check_duplicate(state: State, spec: RunSpec, now: datetime) -> str | None:
    run = state.runs.get(spec.name)
    if run is None:
        return None
    if run.done:
        return DONE
    if len(run.attempts) >= MAX_ATTEMPTS:
        return f"{len(run.attempts)} attempts failed: {run.last.message}"
    return None


def _check_order(state: State, spec: RunSpec, now: datetime) -> str | None:
    if spec.kind == "train":
        return _check_train(state, spec)
    if spec.kind == "evaluate":
        return _check_evaluate(state, spec)
    return None


def _check_train(state: State, spec: RunSpec) -> str | None:
    if "smoke" not in state.runs or not state.runs["smoke"].done:
        return "the smoke run has not passed"
    if state.scored(None, "search") is None:
        return "the base model has no score on the search set: baseline first"
    undecided = [
        run.spec.name for run in trained(state) if run.spec.name != spec.name and not state.decision_on(run.spec.name)
    ]
    if undecided:
        return f"{undecided[0]} is not decided"
    if spec.parent is not None:
        decision = state.decision_on(spec.parent)
        if decision is None or decision.action != "extend":
            return f"the decision on {spec.parent} is not to extend"
        if not state.runs[spec.parent].result.get("stable_checkpoint"):
            return f"{spec.parent} left no checkpoint from before its decay"
    return None


def _check_evaluate(state: State, spec: RunSpec) -> str | None:
    if spec.subject is not None and not (spec.subject in state.runs and state.runs[spec.subject].done):
        return f"no completed training run {spec.subject!r}"
    if spec.set == "confirm":
        chosen = kept(state)
        if chosen is None:
            return "no run was kept: the confirm set is for the kept one alone"
        if spec.subject not in (None, chosen):
            return f"the confirm set is touched once, by {chosen}"
    return None


def _check_envelope(state: State, spec: RunSpec, now: datetime) -> str | None:
    needed_s = estimate.run_s(state, spec)
    left_s = time_left_s(state, now)
    if left_s is not None and left_s < max(needed_s, MIN_RUN_S):
        return f"about {needed_s:.0f} s needed, {max(left_s, 0):.0f} s left of {state.plan.max_hours} h"
    left_usd = money_left_micro_usd(state)
    reserve = reserve_micro_usd(state, spec, now)
    if left_usd is not None and reserve > left_usd:
        return f"needs a reserve of ${reserve / 1e6:.2f}, ${left_usd / 1e6:.2f} left of the budget"
    return None


def job_timeout_s(state: State, spec: RunSpec, now: datetime) -> int:
    """The timeout of a run's job: by the estimate, cut at the deadline."""
    timeout = estimate.timeout_s(estimate.run_s(state, spec))
    left_s = time_left_s(state, now)
    return timeout if left_s is None else max(1, min(timeout, int(left_s)))


def reserve_micro_usd(state: State, spec: RunSpec, now: datetime) -> int:
    """Worst-case cost of a run's job: price times timeout, rounded up."""
    return -(-state.plan.price_micro_usd_per_hour * job_timeout_s(state, spec, now) // 3600)


def _names(runs: list[Run]) -> str:
    return ", ".join(run.spec.name for run in runs) or "none"


# --- the deterministic night -----------------------------------------------------------------------------------------


def next_move(state: State, now: datetime) -> Move | None:
    """The next call, or None while jobs run or the project is over."""
    if state.ended is not None or state.open_attempts:
        return None
    if state.dataset is None:
        return Move(tool="check_dataset")
    if not state.confirmed:
        return None
    check = state.dataset.methods[state.plan.method]
    if check.verdict == "INCOMPATIBLE":
        return _finish("failed", f"the dataset cannot train with {state.plan.method}: {check.reason}")
    for step in (_next_preparation, _next_training, _next_confirmation):
        move = step(state, now)
        if move is not None:
            return _guarded(state, move, now)
    return _conclusion(state)


def _next_preparation(state: State, now: datetime) -> Move | None:
    smoke = state.runs.get("smoke")
    if smoke is None or not smoke.done:
        return Move(tool="smoke", args={"why": "a configuration that cannot start must not reach the long run"})
    if state.scored(None, "search") is None:
        return _evaluate(None, "search", "the baseline: every gain is measured against it")
    return None


def _next_training(state: State, now: datetime) -> Move | None:
    runs = trained(state)
    if not runs:
        return Move(tool="train", args={"why": f"first {state.plan.method} run with the recipe's hyperparameters"})
    last = runs[-1]
    name = last.spec.name
    if not last.done and last.spec.parent is not None:
        return _after_decision(state, last.spec.parent, now)
    if not last.done:
        return Move(tool="train", args={"why": last.spec.why})
    if state.scored(name, "search") is None:
        return _evaluate(name, "search", f"the score of {name} beside the baseline's")
    if state.comparison(name, None, "search") is None:
        return Move(tool="compare", args={"run": name, "set": "search"})
    return _after_decision(state, name, now)


def _after_decision(state: State, name: str, now: datetime) -> Move | None:
    decision = state.decision_on(name)
    if decision is None or (decision.action == "extend" and blocked_extension(state, name, now)):
        return Move(tool="decide", args={"run": name})
    if decision.action == "extend":
        return Move(tool="extend", args={"run": name, "why": decision.reason})
    return None


def _next_confirmation(state: State, now: datetime) -> Move | None:
    chosen = kept(state)
    if chosen is None:
        return None
    if state.scored(None, "confirm") is None:
        return _evaluate(None, "confirm", "the base model on fresh problems")
    if state.scored(chosen, "confirm") is None:
        return _evaluate(
            chosen, "confirm", f"{chosen} on the same fresh problems: the one look that the headline rests on"
        )
    if state.comparison(chosen, None, "confirm") is None:
        return Move(tool="compare", args={"run": chosen, "set": "confirm"})
    return None


def _conclusion(state: State) -> Move:
    chosen = kept(state)
    last = state.decisions[-1].decision
    if last.action == "stop":
        return _finish("stopped", last.reason)
    if chosen is None:
        return _finish("finished", "no run was better than the base model on the search set")
    comparison = state.comparison(chosen, None, "confirm")
    label = comparison.fact.verdict.label if comparison else "not confirmed"
    return _finish("finished", f"{chosen} on the confirm set: {label.replace('_', ' ')}")


def _evaluate(subject: str | None, problems: ProblemSet, why: str) -> Move:
    return Move(tool="evaluate", args={"subject": subject or "base", "set": problems, "why": why})


def _finish(outcome: str, reason: str) -> Move:
    return Move(tool="finish", args={"outcome": outcome, "reason": reason})


def _guarded(state: State, move: Move, now: datetime) -> Move:
    """The move, or the end of the night when policy refuses its launch for good."""
    spec = spec_of(state, move)
    if isinstance(spec, Refusal):
        return move
    for rule, outcome in ((_check_duplicate, "failed"), (_check_envelope, "stopped")):
        why = rule(state, spec, now)
        if why is not None:
            return _finish(outcome, f"{spec.name}: {why}")
    return move


def blocked_extension(state: State, run: str, now: datetime) -> str | None:
    """Why an extension that was decided can never be launched; None while it can."""
    spec = extend_run(state, run, "extension")
    for rule in (_check_duplicate, _check_envelope):
        why = rule(state, spec, now)
        if why is not None and why != DONE:
            return why
    return None


def spec_of(state: State, move: Move) -> RunSpec | Refusal:
    """The run that a move launches, or why it launches none."""
    args = dict(move.args)
    named = args.get("run", args.get("subject"))
    if named not in (None, "base") and named not in state.runs:
        return Refusal(
            what=f"{move.tool} {named}", why=f"no run {named!r}; there are {_names(list(state.runs.values()))}"
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
    runs = trained(state)
    if runs and not runs[-1].done and runs[-1].spec.parent is None:
        return runs[-1].spec
    return None
