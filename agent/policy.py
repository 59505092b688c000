"""What may run now: None, or a Refusal that nobody can argue with. Pure: no clock, no disk, no network."""

from datetime import datetime, timedelta
from itertools import takewhile

from hfagent.agent import estimate, thresholds
from hfagent.agent.proposals import evaluate_run, extend_run
from hfagent.agent.records import ProblemSet, Refusal, RunSpec
from hfagent.agent.setback import setback
from hfagent.agent.state import State

MIN_RUN_S = 60.0
"""Less time than this is not worth a job."""
DONE = "already done"


def deadline(state: State) -> datetime | None:
    """When the project's time is up; None without a limit."""
    hours = state.plan.max_hours
    return None if hours is None else state.started_at + timedelta(hours=hours)


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


def check_launch(state: State, spec: RunSpec, now: datetime) -> Refusal | None:
    """Whether this run may be launched now."""
    for rule in (_check_gates, check_duplicate, _check_order, check_envelope):
        why = rule(state, spec, now)
        if why is not None:
            return Refusal(what=f"launch {spec.name}", why=why)
    return None


def check_decide(state: State, run: str, now: datetime) -> Refusal | None:
    """Whether a decision about this training run can be taken now."""
    if run not in state.runs or state.runs[run].spec.kind != "train":
        return Refusal(
            what=f"decide {run}",
            why=f"no training run {run!r}; there are {', '.join(r.spec.name for r in state.trained) or 'none'}",
        )
    decision = state.decision_on(run)
    if decision is not None and not (decision.action == "extend" and blocked_extension(state, run, now)):
        return Refusal(what=f"decide {run}", why="already decided")
    if setback(state, state.runs[run]) is not None:
        return None
    if state.comparison(run, None, "search") is None:
        return Refusal(what=f"decide {run}", why="not compared with the baseline on the search set")
    return None


def check_propose(state: State, now: datetime) -> Refusal | None:
    """Whether another set of hyperparameters may be proposed now."""
    why = None
    if state.ended is not None:
        why = f"the project is {state.ended.state}"
    elif not state.trials:
        why = "the plan's own hyperparameters come first: train"
    elif state.search_ended is not None:
        why = f"the search has ended: {state.search_ended}"
    elif state.pending is not None:
        why = f"set {state.pending.number} is proposed and not tried yet: train"
    elif len(state.trials) >= state.plan.max_trials:
        why = f"{len(state.trials)} of {state.plan.max_trials} sets of hyperparameters are tried"
    return None if why is None else Refusal(what="propose", why=why)


def check_compare(state: State, run: str, problems: ProblemSet) -> Refusal | None:
    """Whether a training run can be compared with the base model on a problem set now."""
    what = f"compare {run} on {problems}"
    for subject, name in ((None, "the base model"), (run, run)):
        if state.scored(subject, problems) is None:
            return Refusal(what=what, why=f"{name} has no score on the {problems} set")
    if state.comparison(run, None, problems) is not None:
        return Refusal(what=what, why="already compared")
    return None


def blocked_extension(state: State, run: str, now: datetime) -> str | None:
    """Why an extension that was decided can never be launched, or came to nothing; None otherwise."""
    if (lost := lost_extension(state, run)) is not None:
        return f"its extension {lost} came to nothing"
    spec = extend_run(state, run, "extension")
    for rule in (check_duplicate, check_envelope):
        why = rule(state, spec, now)
        if why is not None and why != DONE:
            return why
    return None


def lost_extension(state: State, run: str) -> str | None:
    """The extension of a training run, restarts included, that was given up; None without one."""
    for extension in state.trained:
        decision = state.decision_on(extension.spec.name)
        if extension.spec.parent == run and decision is not None and decision.action == "discard":
            return extension.spec.name
    return None


def _check_gates(state: State, spec: RunSpec, now: datetime) -> str | None:
    if state.ended is not None:
        return f"the project is {state.ended.state}"
    if not state.confirmed:
        return "the plan is not confirmed"
    if state.dataset is None:
        return "the dataset is not checked"
    if state.dataset.methods[state.plan.method].verdict == "INCOMPATIBLE":
        return f"the dataset is incompatible with {state.plan.method}"
    if spec.kind in ("train", "smoke"):
        why = contaminated(state)
        if why is not None:
            return why
    if state.open_attempts:
        return f"{state.open_attempts[0].job.run} is still open: one job at a time"
    return None


def uncleaned(state: State) -> bool:
    """Whether rows that hold benchmark problems are known and are still to be left out, e.g. after a crash."""
    found = state.contamination is not None and state.contamination.verdict == "contaminated"
    return found and state.plan.contaminated_rows == "drop" and not state.data_cleaned


def contaminated(state: State) -> str | None:
    """Why nothing may be trained on this data; None once it is known to be free of benchmark problems."""
    report = state.contamination
    if report is None:
        return "the training rows were not compared with the benchmark problems: check_contamination first"
    if report.verdict == "denied":
        return f"{report.dataset} is known to hold the benchmark: choose another dataset"
    if report.verdict == "contaminated" and not state.data_cleaned:
        return f"{len(report.flagged)} of {report.rows} training rows hold benchmark problems"
    return None


def check_duplicate(state: State, spec: RunSpec, now: datetime) -> str | None:
    """Why a run cannot be started again; None while it can."""
    run = state.runs.get(spec.name)
    if run is None:
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
    return None


def _check_train(state: State, spec: RunSpec) -> str | None:
    if "smoke" not in state.runs or not state.runs["smoke"].done:
        return "the smoke run has not passed"
    if state.scored(None, "search") is None:
        return "the base model has no score on the search set: baseline first"
    undecided = [
        run.spec.name
        for run in state.trained
        if run.spec.name != spec.name
        and not state.decision_on(run.spec.name)
        and (run.done or setback(state, run) is not None)
    ]
    if undecided:
        return f"{undecided[0]} is not decided"
    if state.search_ended is not None:
        return f"the search has ended: {state.search_ended}"
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
    return None


def _check_evaluate(state: State, spec: RunSpec) -> str | None:
    if spec.subject is not None and not (spec.subject in state.runs and state.runs[spec.subject].done):
        return f"no completed training run {spec.subject!r}"
    if spec.repeat and state.scored(None, "search") is None:
        return "the base model has no score on the search set: baseline first"
    if spec.set == "confirm":
        chosen = state.kept
        if chosen is None:
            return "no run was kept: the confirm set is for the kept one alone"
        if spec.subject not in (None, chosen):
            return f"the confirm set is touched once, by {chosen}"
        if state.noise is None:
            return "nobody knows how far a score moves by itself: repeat_baseline first"
    return None


def check_envelope(state: State, spec: RunSpec, now: datetime) -> str | None:
    """What of time or money is missing for a run; None when there is enough."""
    needed_s = estimate.run_s(state, spec)
    left_s = time_left_s(state, now)
    if left_s is not None and left_s < max(needed_s, MIN_RUN_S):
        return f"about {needed_s:.0f} s needed, {max(left_s, 0):.0f} s left of {state.plan.max_hours} h"
    left_usd, needed = money_left_micro_usd(state), estimate.cost_micro_usd(state.plan, max(needed_s, MIN_RUN_S))
    if left_usd is not None and left_usd < needed:
        return f"about ${needed / 1e6:.2f} needed, ${left_usd / 1e6:.2f} left of the budget"
    return None


def confirmation_s(state: State) -> float:
    """Seconds that the confirmation needs: the repeated baseline, and both models on the confirm set."""
    repeat = estimate.run_s(state, evaluate_run(state, None, "search", "estimate"))
    confirm = estimate.run_s(state, evaluate_run(state, None, "confirm", "estimate"))
    return repeat + confirm + max(confirm, MIN_RUN_S)  # no job is begun with less time left


def check_reserve(state: State, now: datetime) -> str | None:
    """What is missing for another training run and its evaluation, if the confirmation shall still be paid for."""
    train = RunSpec(name="next", kind="train", why="estimate", train=state.plan.train)
    evaluation = evaluate_run(state, train.name, "search", "estimate")
    needed_s = estimate.run_s(state, train) + estimate.run_s(state, evaluation) + confirmation_s(state)
    left_s, left_usd = time_left_s(state, now), money_left_micro_usd(state)
    if left_s is not None and left_s < needed_s:
        return f"another run and the confirmation need about {needed_s:.0f} s, {max(left_s, 0):.0f} s are left"
    needed = estimate.cost_micro_usd(state.plan, needed_s)
    if left_usd is not None and left_usd < needed:
        return f"another run and the confirmation need about ${needed / 1e6:.2f}, ${left_usd / 1e6:.2f} are left"
    return None


def lost_in_a_row(state: State) -> int:
    """How many of the newest jobs that ended were lost by their machine, without one in between that was not."""
    ended = [a for run in state.runs.values() for a in run.attempts if not a.open]
    ended.sort(key=lambda a: a.intended_at)
    lost = takewhile(lambda a: a.stage == "REJECTED" or (a.stage != "COMPLETED" and a.lost), reversed(ended))
    return sum(1 for _ in lost)


def job_timeout_s(state: State, spec: RunSpec, now: datetime) -> int:
    """The timeout of a run's job: by the estimate, cut at the deadline and at what the budget pays for.

    Once something is kept, what its confirmation takes is left free.
    """
    timeout = estimate.timeout_s(estimate.run_s(state, spec))
    left_usd, price = money_left_micro_usd(state), state.plan.price_micro_usd_per_hour
    paid_s = None if left_usd is None or price == 0 else left_usd * 3600 // price
    limits = [left_s for left_s in (time_left_s(state, now), paid_s) if left_s is not None]
    if state.kept is not None and spec.set != "confirm" and not spec.repeat:
        limits = [left_s - confirmation_s(state) for left_s in limits]
    return max(1, int(min([timeout, *limits])))
