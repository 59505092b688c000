"""The deterministic night: the next move of a planner without a model. All that it proposes passes the policy. Pure."""

from datetime import datetime

from hfagent.agent import policy
from hfagent.agent.proposals import Move, spec_of
from hfagent.agent.records import ProblemSet, Refusal
from hfagent.agent.state import State


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
    runs = state.trained
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
    if decision is None or (decision.action == "extend" and policy.blocked_extension(state, name, now)):
        return Move(tool="decide", args={"run": name})
    if decision.action == "extend":
        return Move(tool="extend", args={"run": name, "why": decision.reason})
    return None


def _next_confirmation(state: State, now: datetime) -> Move | None:
    chosen = state.kept
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
    chosen = state.kept
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
    for rule, outcome in ((policy.check_duplicate, "failed"), (policy.check_envelope, "stopped")):
        why = rule(state, spec, now)
        if why is not None:
            return _finish(outcome, f"{spec.name}: {why}")
    return move


def check_finish(state: State, now: datetime, outcome: str) -> Refusal | None:
    """Whether the night may end so: only when nothing that the plan asks for is left to do."""
    move = next_move(state, now)
    if move is not None and move.tool == "finish":
        due = move.args["outcome"]
        return None if outcome == due else Refusal(what=f"finish as {outcome}", why=f"the outcome is {due}")
    left = "jobs are running" if move is None else f"{move.tool} {move.args} is open"
    return Refusal(what="finish", why=left)
