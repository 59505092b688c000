"""What may run now: None, or a Refusal that nobody can argue with. Pure: no clock, no disk, no network."""

from datetime import datetime
from itertools import takewhile

from hfagent.agent import data_rules, guards, lanes, release, thresholds
from hfagent.agent.control import Request
from hfagent.agent.envelope import check_envelope
from hfagent.agent.proposals import evaluate_run, extend_run, restart_run
from hfagent.agent.records import RELEASE, Decision, ProblemSet, Refusal, RunSpec
from hfagent.agent.runs import Run
from hfagent.agent.setback import setback
from hfagent.agent.state import State, root_name

DONE = "already done"


def check_launch(state: State, spec: RunSpec, now: datetime) -> Refusal | None:
    """Whether this run may be launched now."""
    for rule in (_check_gates, check_duplicate, _check_order, check_envelope):
        why = rule(state, spec, now)
        if why is not None:
            return Refusal(what=f"launch {spec.name}", why=why)
    return None


def next_guard(state: State, now: datetime) -> RunSpec | None:
    """The next evaluation on a guard; one that failed, was vetoed or does not fit any more is left out."""
    for spec in guards.due(state):
        refused = check_duplicate(state, spec, now) or check_envelope(state, spec, now)
        if refused is None and spec.name not in state.wishes.vetoed:
            return spec
    return None


def check_decide(state: State, run: str, now: datetime) -> Refusal | None:
    """Whether a decision about this training run can be taken now."""
    if run not in state.runs or state.runs[run].spec.kind != "train":
        return Refusal(
            what=f"decide {run}",
            why=f"no training run {run!r}; there are {', '.join(r.spec.name for r in state.trained) or 'none'}",
        )
    if run in lanes.busy(state):
        return Refusal(what=f"decide {run}", why="a job of it, or of what extends it, is still open")
    if cut_short(state, run, now) is not None:
        return None
    decision, parent = state.decision_on(run), state.runs[run].spec.parent
    why = None
    if decision is not None and not (decision.action == "extend" and blocked_extension(state, run, now)):
        why = "already decided"
    elif state.search_ended is not None:
        why = f"the search has ended: {state.search_ended}"
    elif state.comparison(run, None, "search") is None:
        why = "not compared with the baseline on the search set"
    elif parent and not state.compared(run, parent, "search") and rescore(state, parent, now) is not None:
        why = f"{parent}, which it extends, has no score by the harness that counts: evaluate it first"
    return None if why is None else Refusal(what=f"decide {run}", why=why)


def check_propose(state: State, now: datetime) -> Refusal | None:
    """Whether another set of hyperparameters may be proposed now."""
    why = None
    if state.ended is not None:
        why = f"the project is {state.ended.state}"
    elif not state.plan_tried:
        why = "the plan's own hyperparameters come first: train"
    elif state.search_ended is not None:
        why = f"the search has ended: {state.search_ended}"
    elif state.pending is not None:
        why = f"set {state.pending.number} is proposed and not tried yet: train"
    elif len(state.trials) >= state.plan.max_trials:
        why = f"{len(state.trials)} of {state.plan.max_trials} sets of hyperparameters are tried"
    return None if why is None else Refusal(what="plan a run", why=why)


def check_compare(state: State, run: str, problems: ProblemSet) -> Refusal | None:
    """Whether a training run can be compared with the base model on a problem set now."""
    what = f"compare {run} on {problems}"
    for subject, name in ((None, "the base model"), (run, run)):
        if state.scored(subject, problems) is None:
            return Refusal(what=what, why=f"{name} has no score on the {problems} set")
    if state.compared(run, None, problems):
        return Refusal(what=what, why="already compared")
    return None


def enough(state: State) -> str | None:
    """Why nothing better is looked for: what is kept has reached the target, or leaves no headroom; None otherwise."""
    comparison = state.comparison(state.kept, None, "search") if state.kept is not None else None
    if comparison is None:
        return None
    target, found = state.plan.target_delta, comparison.fact.verdict
    if target is not None and found.delta >= target:
        return f"the target of {100 * target:+.1f} points is reached on the search set"
    if found.candidate_score >= thresholds.HEADROOM_SCORE:
        return f"a score of {found.candidate_score:.3f} on the search set leaves no headroom"
    return None


def blocked_extension(state: State, run: str, now: datetime) -> str | None:
    """Why an extension that was decided can never be launched, or came to nothing; None otherwise."""
    if (lost := lost_extension(state, run)) is not None:
        return f"its extension {lost} came to nothing"
    if (why := enough(state)) is not None:
        return why
    spec = extend_run(state, run, "extension")
    if spec.name in state.wishes.vetoed:
        return f"a person said no to {spec.name}: {state.wishes.vetoed[spec.name]}"
    for rule in (check_duplicate, check_envelope):
        why = rule(state, spec, now)
        if why is not None:
            return None if why == DONE else why
    return None


def lost_extension(state: State, run: str) -> str | None:
    """The extension of a training run, restarts included, that was given up; None without one."""
    extensions = [extension.spec.name for extension in state.trained if extension.spec.parent == run]
    return next((name for name in extensions if state.given_up(name)), None)


def rescore(state: State, run: str, now: datetime) -> RunSpec | None:
    """The evaluation of a training run that is due once the harness is another; None where it has a score that counts,
    or cannot get one any more."""
    if state.scored(run, "search") is not None:
        return None
    spec = evaluate_run(state, run, "search", f"the score of {run} by the new harness")
    failed = check_duplicate(state, spec, now) or check_envelope(state, spec, now)
    return spec if failed is None else None


def cut_short(state: State, run: str, now: datetime) -> Decision | None:
    """The decision about a training run that needs no score: its job broke, or nothing more can come of it."""
    return setback(state, state.runs[run]) or _dead_end(state, run, now)


def _dead_end(state: State, name: str, now: datetime) -> Decision | None:
    """The decision about a training run of which nothing more can come, though its job did not break.

    Its job cannot be started again, its evaluation failed for good, or what is due next does not fit any more.

    Returns:
        None where it can go on, or was decided.
    """
    run, decision = state.runs[name], state.decision_on(name)
    due = _due(state, run, decision)
    if run.last.open or due is None:
        return None
    vetoed = state.wishes.vetoed.get(due.name)
    failed = check_duplicate(state, due, now) if vetoed is None else f"a person said no: {vetoed}"
    failed = failed or (enough(state) if due.kind == "train" else None)
    short = None if state.open_attempts else check_envelope(state, due, now)  # what other jobs hold comes free
    if failed is None and short is None:
        return None
    return Decision(
        action="stop" if failed is None else "discard",
        run=name,
        reason=f"{due.name}: {failed or short}",
        rule="dead-end",
        version=thresholds.VERSION,
        inputs=(name,),
    )


def _due(state: State, run: Run, decision: Decision | None) -> RunSpec | None:
    """The job that a training run needs next: its own once more, its evaluation, or the one that comes instead."""
    name = run.spec.name
    if decision is not None:
        restart = restart_run(state, name, decision.reason) if decision.action == "change" else None
        return restart if isinstance(restart, RunSpec) and restart.name not in state.runs else None
    if not run.done:
        return run.spec
    return evaluate_run(state, name, "search", "its score") if state.scored(name, "search") is None else None


def _check_gates(state: State, spec: RunSpec, now: datetime) -> str | None:
    if state.ended is not None and spec.kind not in RELEASE:
        return f"the project is {state.ended.state}"
    if not state.confirmed:
        return "the plan is not confirmed"
    if (why := unsteady(state) or _held(state, spec)) is not None:
        return why
    if state.dataset is None:
        return "the dataset is not checked"
    if (why := data_rules.flaw(state)) is not None or (why := data_rules.out_of_order(state, spec)) is not None:
        return why
    if spec.kind in ("train", "smoke"):
        why = data_rules.contaminated(state)
        if why is not None:
            return why
    return lanes.no_room(state, spec)


def _held(state: State, spec: RunSpec) -> str | None:
    """What a person has against a launch."""
    if spec.name in state.wishes.vetoed:
        return f"a person said no: {state.wishes.vetoed[spec.name]}"
    return f"{spec.name} waits for a person's approval" if needs_approval(state, spec) else state.wishes.paused


def needs_approval(state: State, spec: RunSpec) -> bool:
    """Whether a run waits for a person's yes; one that was begun does not ask again for a further job."""
    asks = state.plan.approve_runs and spec.kind == "train"
    answered = {*state.wishes.approved, *state.wishes.vetoed, *state.runs}
    return asks and spec.name not in answered


def check_heed(state: State, request: Request) -> str | None:
    """Why a person's request cannot be done now; None while it can."""
    if state.ended is not None:
        return f"the project is {state.ended.state}"
    if request.ask == "approve" and request.run is None:
        return "no training run waits for approval"
    if request.ask == "veto" and request.run is None:
        running = [attempt.job.run for attempt in state.open_attempts if attempt.job.kind == "train"]
        return f"{', '.join(running)} run: name one" if running else "no training run runs, waits or is planned"
    if request.ask in ("approve", "veto"):
        return _check_named(state, str(request.run))
    return None


def _check_named(state: State, name: str) -> str | None:
    if name in state.wishes.vetoed or state.decision_on(name) is not None:
        return f"{name} is decided already"
    planned = {root_name(state.plan.method, 1)} if not state.trials else set()
    if state.pending is not None:
        planned.add(root_name(state.plan.method, state.pending.number))
    known = {run.spec.name for run in state.trained} | planned | state.wishes.asked
    return None if name in known else f"no training run {name!r}; there are {', '.join(sorted(known)) or 'none'}"


def unsteady(state: State) -> str | None:
    """Why no score can be compared with another one any more; None while the harness stays."""
    harnesses = max(state.epochs.values(), default=0)
    if harnesses <= thresholds.MAX_EPOCHS:
        return None
    return (
        f"the evaluations of one problem set were done by {harnesses} different harnesses: packages, templates or "
        "machines differ from job to job; pin them"
    )


def check_duplicate(state: State, spec: RunSpec, now: datetime) -> str | None:
    """Why a run cannot be started again; None while it can."""
    run = state.runs.get(spec.name)
    if run is None or run.last.open:
        return None
    if run.done:
        return DONE
    if run.last.stage == "ERROR" and not run.last.lost:
        return f"its job failed: {run.last.message}"
    if len(run.attempts) >= thresholds.MAX_ATTEMPTS:
        return f"{len(run.attempts)} attempts failed: {run.last.message}"
    return None


def _check_order(state: State, spec: RunSpec, now: datetime) -> str | None:
    if spec.kind == "train":
        return _check_train(state, spec)
    if spec.kind == "evaluate":
        return _check_evaluate(state, spec)
    return release.check(state, spec) if spec.kind in RELEASE else None


def _check_train(state: State, spec: RunSpec) -> str | None:
    if "smoke" not in state.runs or not state.runs["smoke"].done:
        return "the smoke run has not passed"
    if state.scored(None, "search") is None:
        return "the base model has no score on the search set: baseline first"
    busy = lanes.busy(state)
    undecided = [
        run.spec.name
        for run in state.trained
        if run.spec.name not in {spec.name, *busy}
        and not state.decision_on(run.spec.name)
        and (run.done or setback(state, run) is not None)
    ]
    if undecided:
        return f"{undecided[0]} is not decided"
    if spec.instead_of is not None:
        decision = state.decision_on(spec.instead_of)
        if decision is None or decision.action != "change":
            return f"the decision on {spec.instead_of} is not to change it"
    elif spec.parent is not None:
        decision = state.decision_on(spec.parent)
        if decision is None or decision.action != "extend":
            return f"the decision on {spec.parent} is not to extend"
        if not state.runs[spec.parent].result.get("stable_checkpoint"):
            return f"{spec.parent} left no checkpoint from before its decay"
    over = state.search_ended or enough(state)
    return None if over is None else f"the search has ended: {over}"


def _check_evaluate(state: State, spec: RunSpec) -> str | None:
    if spec.subject is not None and spec.subject not in (run.spec.name for run in state.trained if run.done):
        return f"no completed training run {spec.subject!r}"
    if spec.repeat and state.kept is None:
        return "no run was kept: there is nothing to confirm"
    if spec.repeat and state.scored(None, "search") is None:
        return "the base model has no score on the search set: baseline first"
    if spec.guard is not None:
        known = [due.name for due in guards.due(state)]
        return None if spec.name in known else f"due on the guards is {', '.join(known) or 'nothing, before a verdict'}"
    if spec.set == "confirm":
        chosen = state.kept
        if chosen is None:
            return "no run was kept: the confirm set is for the kept one alone"
        if spec.subject not in (None, chosen):
            return f"the confirm set is touched once, by {chosen}"
        if state.noise is None:
            return "nobody knows how far a score moves by itself: evaluate the base again (repeat) first"
    return None


def lost_in_a_row(state: State) -> int:
    """How many of the newest jobs that ended were lost by their machine, without one in between that was not."""
    ended = [a for run in state.runs.values() for a in run.attempts if not a.open]
    ended.sort(key=lambda a: a.intended_at)
    lost = takewhile(lambda a: a.stage == "REJECTED" or (a.stage != "COMPLETED" and a.lost), reversed(ended))
    return sum(1 for _ in lost)


def failed_evaluations_in_a_row(state: State) -> int:
    """How many of the newest evaluations on the search set ended with an error of their own, in a row.

    One whose machine was lost begins the count anew: it tells nothing of the next one.
    """
    ended = [run.last for run in state.runs.values() if run.spec.set == "search" and not run.last.open]
    ended.sort(key=lambda a: a.intended_at)
    failed = takewhile(lambda a: a.stage == "ERROR" and not a.lost, reversed(ended))
    return sum(1 for _ in failed)
