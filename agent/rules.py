"""The deterministic night: the next move of a planner without a model. All that it proposes passes the policy. Pure."""

from datetime import datetime

from hfagent.agent import data_rules, envelope, lanes, policy, shipping, thresholds
from hfagent.agent.proposals import Move, extend_run, spec_of
from hfagent.agent.records import ProblemSet, Refusal, RunSpec
from hfagent.agent.runs import Run
from hfagent.agent.state import State

SEARCH_EXHAUSTED = "search on"
"""What the desk refuses once the search has nothing left to propose."""


def next_move(state: State, now: datetime) -> Move | None:
    """The next call, or None while jobs are waited for, or a person, or the project is over."""
    return None if on_hold(state, now) is not None else _due(state, now)


def on_hold(state: State, now: datetime) -> str | None:
    """Why nothing is started although there is room: a person paused the night, or is to approve a run first."""
    if state.ended is not None or lanes.full(state):
        return None
    return state.wishes.paused or ((name := to_approve(state, now)) and f"{name} waits for a person's approval") or None


def to_approve(state: State, now: datetime) -> str | None:
    """The training run that is due and needs a person's yes first."""
    move = _due(state, now) if state.plan.approve_runs else None
    spec = spec_of(state, move) if move is not None else None
    return spec.name if isinstance(spec, RunSpec) and policy.needs_approval(state, spec) else None


def _due(state: State, now: datetime) -> Move | None:
    if state.ended is not None or lanes.full(state):
        return None
    move = _wanted(state, now)
    return move if move is None or not state.open_attempts or _beside(state, move) else None


def _beside(state: State, move: Move) -> bool:
    """Whether a move is made while other jobs run: what they hold comes free, and the night does not end before."""
    if move.tool in ("plan_run", "compare", "decide"):
        return True
    spec = spec_of(state, move)
    return isinstance(spec, RunSpec) and lanes.of_search(spec)


def _wanted(state: State, now: datetime) -> Move | None:
    if state.dataset is None:
        return Move(tool="check_dataset")
    if not state.confirmed:
        return None
    if (why := policy.unsteady(state)) is not None:
        return _finish("failed", why)
    if (why := data_rules.flaw(state)) is not None:
        return _finish("failed", why)
    searching = () if state.search_ended is not None else (_next_training, _next_trial)
    for step in (_next_preparation, *searching, _next_confirmation):
        move = step(state, now)
        if move is not None:
            move = _guarded(state, move, now)
            over = move.tool == "finish" and state.kept is not None and step is not _next_confirmation
            return _confirmed_first(state, move, now) if over else move
    return _next_guard(state, now) or _conclusion(state, now, over=search_over(state, now))


def _confirmed_first(state: State, end: Move, now: datetime) -> Move:
    """What cannot go on does not cost the confirmation of what was kept before."""
    move = _next_confirmation(state, now)
    if move is None:
        return _next_guard(state, now) or _conclusion(state, now, over=str(end.args["reason"]))
    move = _guarded(state, move, now)
    if move.tool != "finish":
        return move
    return _finish(str(end.args["outcome"]), f"{end.args['reason']}; not confirmed: {move.args['reason']}")


def search_over(state: State, now: datetime) -> str | None:
    """Why no further set of hyperparameters is tried; None while another one may be."""
    plan, tried = state.plan, len(state.trials)
    if state.search_ended is not None:
        return state.search_ended
    if tried >= plan.max_trials:
        return f"{tried} of {plan.max_trials} sets of hyperparameters tried"
    if (why := policy.enough(state)) is not None:
        return why
    failed = policy.failed_evaluations_in_a_row(state)
    if failed >= thresholds.MAX_FAILED_EVALUATIONS:
        return f"{failed} evaluations in a row failed"
    since = _trials_since_best(state)
    if since >= thresholds.MAX_STAGNATION:
        return f"{since} sets of hyperparameters in a row without a new best"
    exhausted = next((refusal.why for refusal in state.refusals if refusal.what == SEARCH_EXHAUSTED), None)
    return exhausted or envelope.check_reserve(state, now)


def _trials_since_best(state: State) -> int:
    going_on = lanes.going_on(state)
    names = [run.spec.name for run in state.trials if run.spec.name not in going_on]
    root = state.root(state.kept) if state.kept is not None else None
    return len(names) - 1 - names.index(root) if root in names else len(names)


def _next_preparation(state: State, now: datetime) -> Move | None:
    if data_rules.due(state):
        return _launch(
            "data",
            why=f"the dataset has nothing for {state.plan.method}, and prompts whose answers can be judged",
            hypothesis="the model's own answers, judged, are what it can learn from",
        )
    if state.contamination is None or data_rules.uncleaned(state):
        return Move(tool="check_contamination")
    why = data_rules.contaminated(state)
    if why is not None:
        return _finish("failed", why)
    smoke = state.runs.get("smoke")
    if smoke is None or not smoke.done:
        return _launch(
            "smoke",
            why="a configuration that cannot start must not reach the long run",
            hypothesis="the template starts, logs and saves with this configuration",
        )
    if state.scored(None, "search") is None:
        again = "evaluations are done by another harness now: " if state.epochs.get("search") else ""
        return _evaluate(None, "search", f"{again}the baseline: every gain is measured against it")
    kept = state.kept
    if kept is not None and state.scored(kept, "search") is None:
        return _evaluate(kept, "search", f"the score of {kept} by the new harness")
    if kept is not None and not state.compared(kept, None, "search"):
        return Move(tool="compare", args={"run": kept, "set": "search"})
    return None


def _rejudged(state: State, name: str, now: datetime) -> Move | None:
    """What is due for a judged training run once the harness is another one: its score and its verdict anew."""
    due = policy.rescore(state, name, now)
    if due is not None:
        return _evaluate(name, "search", due.why)
    if state.scored(name, "search") is not None and not state.compared(name, None, "search"):
        return Move(tool="compare", args={"run": name, "set": "search"})
    return None


def _next_training(state: State, now: datetime) -> Move | None:
    if not state.plan_tried:
        return _launch(
            "train",
            why=f"first {state.plan.method} run with the recipe's hyperparameters",
            hypothesis=f"{state.plan.method} on these rows raises the score on the search set above the base model's",
        )
    waiting = None
    for head in lanes.heads(state):
        move = _next_in_line(state, head, now)
        if move is None or _waits(state, move, now):
            continue
        spec = spec_of(state, move)
        if not isinstance(spec, RunSpec) or not policy.needs_approval(state, spec):
            return move
        waiting = waiting or move  # a person's yes to one line does not hold the others up
    return waiting


def _waits(state: State, move: Move, now: datetime) -> bool:
    """Whether a line has to wait for what the jobs beside it hold, or take."""
    if not state.open_attempts:
        return False
    if move.tool == "decide" and policy.cut_short(state, move.args["run"], now) is None:
        return envelope.pressed(state, extend_run(state, move.args["run"], "extension"))
    return move.tool != "decide" and _guarded(state, move, now).tool == "finish"


def _next_in_line(state: State, head: Run, now: datetime) -> Move | None:
    """What is due for the newest run of a line."""
    name, parent = head.spec.name, head.spec.parent
    if policy.cut_short(state, name, now) is not None:
        return Move(tool="decide", args={"run": name})
    if not head.done:
        return _once_more(state, head, now) or _back_to_parents(state, head, now)
    if state.decision_on(name) is None and state.scored(name, "search") is None:
        return _evaluate(name, "search", f"the score of {name} beside the baseline's")
    if state.decision_on(name) is None and parent is not None and (due := _rejudged(state, parent, now)) is not None:
        return due
    if state.decision_on(name) is None and not state.compared(name, None, "search"):
        return Move(tool="compare", args={"run": name, "set": "search"})
    return _after_decision(state, name, now) or _back_to_parents(state, head, now)


def _back_to_parents(state: State, last: Run, now: datetime) -> Move | None:
    """Where an extension came to nothing, the run that it extended is decided about again, and so on."""
    parent = last.spec.parent
    while parent is not None and policy.lost_extension(state, parent) is not None:
        decision = state.decision_on(parent)
        if decision is not None and decision.action == "extend":
            return _rejudged(state, parent, now) or Move(tool="decide", args={"run": parent})
        if not state.given_up(parent):
            return None
        parent = state.runs[parent].spec.parent
    return None


def _once_more(state: State, run: Run, now: datetime) -> Move | None:
    """The job that replaces one that was lost, or that a decision changed."""
    spec, decision = run.spec, state.decision_on(run.spec.name)
    if decision is not None and decision.action == "change":
        return _restart(spec.name, decision.reason)
    if decision is not None:
        return None
    if spec.instead_of is not None:
        return _restart(spec.instead_of, spec.why)
    if spec.parent is not None:
        return _after_decision(state, spec.parent, now)
    return _launch("train", why=spec.why, hypothesis=spec.hypothesis or "as before")


def _after_decision(state: State, name: str, now: datetime) -> Move | None:
    decision = state.decision_on(name)
    if decision is None or (decision.action == "extend" and policy.blocked_extension(state, name, now)):
        return Move(tool="decide", args={"run": name})
    if decision.action == "extend":
        aim = {"grpo": "raise the reward", "distillation": "bring the model closer to its teacher"}.get(
            state.plan.method, "lower the loss"
        )
        hypothesis = f"more steps {aim}, and the score follows"
        return Move(tool="extend", args={"run": name, "hypothesis": hypothesis, "why": decision.reason})
    return None


def _next_trial(state: State, now: datetime) -> Move | None:
    if search_over(state, now) is not None:
        return None
    pending = state.pending
    if pending is None:
        return Move(tool="plan_run", args={"why": "the search chooses from all that was tried"})
    return _launch("train", why=pending.why, hypothesis="these hyperparameters do better than the best so far")


def _next_confirmation(state: State, now: datetime) -> Move | None:
    chosen = state.kept
    if chosen is None:
        return None
    if state.noise is None:
        return Move(
            tool="evaluate",
            args={
                "subject": "base",
                "set": "search",
                "repeat": True,
                "why": "how far a score moves by itself: a gain must be larger than that",
            },
        )
    if state.scored(None, "confirm") is None:
        return _evaluate(None, "confirm", "the base model on fresh problems")
    if state.scored(chosen, "confirm") is None:
        return _evaluate(
            chosen, "confirm", f"{chosen} on the same fresh problems: the one look that the headline rests on"
        )
    if state.comparison(chosen, None, "confirm") is None:
        return Move(tool="compare", args={"run": chosen, "set": "confirm"})
    return None


def _next_guard(state: State, now: datetime) -> Move | None:
    """No guard that cannot be evaluated ends a night."""
    spec = policy.next_guard(state, now)
    if spec is None or policy.check_launch(state, spec, now) is not None:
        return None
    args = {"subject": spec.subject or "base", "set": "confirm", "guard": spec.guard, "why": spec.why}
    return Move(tool="evaluate", args=args)


def _conclusion(state: State, now: datetime, *, over: str | None) -> Move:
    chosen = state.kept
    if not state.decisions:
        return _finish("stopped", over or "every set of hyperparameters was vetoed")
    last = state.decisions[-1].decision
    if last.action == "stop" and chosen is None:
        return _finish("stopped", last.reason)
    if all(state.comparison(run.spec.name, None, "search") is None for run in state.trained):
        return _finish("failed", f"{last.run}: {last.reason}")
    over = over or "nothing is left to try"
    if chosen is None:
        return _finish("finished", f"no run was better than the base model on the search set; {over}")
    comparison = state.comparison(chosen, None, "confirm")
    label = comparison.fact.verdict.label if comparison else "not confirmed"
    reason = f"{chosen} on the confirm set: {label.replace('_', ' ')}; {over}"
    if state.plan.export is None:
        return _finish("finished", reason)
    spec = shipping.next_run(state, state.plan.export, now)
    if spec is None:
        return _finish("finished", reason)
    why = policy.check_launch(state, spec, now)
    return Move(tool="publish") if why is None else _finish("finished", f"{reason}; {spec.name}: {why.why}")


def _launch(what: str, *, why: str, hypothesis: str, **run: str) -> Move:
    return Move(tool="launch", args={"what": what, **run, "hypothesis": hypothesis, "why": why})


def _restart(run: str, why: str) -> Move:
    return _launch("restart", run=run, why=why, hypothesis="with the change it trains to the end")


def _evaluate(subject: str | None, problems: ProblemSet, why: str) -> Move:
    return Move(tool="evaluate", args={"subject": subject or "base", "set": problems, "why": why})


def _finish(outcome: str, reason: str) -> Move:
    return Move(tool="finish", args={"outcome": outcome, "reason": reason})


def _guarded(state: State, move: Move, now: datetime) -> Move:
    """The move, or the end of the night when policy refuses its launch for good."""
    lost = policy.lost_in_a_row(state)
    if lost >= thresholds.MAX_INFRASTRUCTURE_FAILURES:
        return _finish("failed", f"{lost} jobs in a row were lost by their machine")
    spec = spec_of(state, move)
    if isinstance(spec, Refusal):
        return move
    for rule, outcome in ((policy.check_duplicate, "failed"), (envelope.check_envelope, "stopped")):
        why = rule(state, spec, now)
        if why is not None:
            return _finish(outcome, f"{spec.name}: {why}")
    if policy.needs_approval(state, spec):
        return move
    refusal = policy.check_launch(state, spec, now)
    return move if refusal is None else _finish("failed", f"{spec.name}: {refusal.why}")


def check_finish(state: State, now: datetime, outcome: str) -> Refusal | None:
    """Whether the night may end so: only when nothing that the plan asks for is left to do."""
    move = next_move(state, now)
    if move is not None and move.tool == "finish":
        due = move.args["outcome"]
        return None if outcome == due else Refusal(what=f"finish as {outcome}", why=f"the outcome is {due}")
    waiting = on_hold(state, now) or "jobs are running"
    left = waiting if move is None else f"{move.tool} {move.args} is open"
    return Refusal(what="finish", why=left)
