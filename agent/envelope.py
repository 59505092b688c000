"""Time and money: what is left, what a run needs, and what is kept free for the jobs that must follow it. Pure."""

from datetime import datetime, timedelta
from typing import Literal

from hfagent.agent import estimate, lanes, thresholds
from hfagent.agent.proposals import evaluate_run
from hfagent.agent.records import RELEASE, RunSpec
from hfagent.agent.remaining import Remaining
from hfagent.agent.runs import Stray
from hfagent.agent.state import State

NEAR = 0.8
"""Used share of a limit from which on it is told to be near."""
Limit = Literal["budget", "time", "GPU hours", "planner tokens"]
MIN_RUN_S = 60.0
"""Less time than this is not worth a job."""


def deadline(state: State) -> datetime | None:
    """When the project's time is up; None without a limit."""
    hours = state.plan.max_hours
    return None if hours is None else state.started_at + timedelta(hours=hours)


def time_left_s(state: State, now: datetime) -> float | None:
    """Seconds to the deadline; None without one."""
    limit = deadline(state)
    return None if limit is None else (limit - now).total_seconds()


def used(state: State, now: datetime) -> dict[Limit, float]:
    """Share of each limit that is used; of the budget and the GPU hours also what is held."""
    shares: dict[Limit, float] = {}
    cap, left = state.plan.budget_micro_usd, money_left_micro_usd(state)
    if cap and left is not None:
        shares["budget"] = 1 - left / cap
    hours, left_s = state.plan.max_hours, time_left_s(state, now)
    if hours is not None and left_s is not None:
        shares["time"] = max(0.0, 1 - left_s / (3600 * hours))
    gpu_hours, gpu_left_s = state.plan.max_gpu_hours, gpu_seconds_left(state)
    if gpu_hours is not None and gpu_left_s is not None:
        shares["GPU hours"] = 1 - gpu_left_s / (3600 * gpu_hours)
    if state.plan.max_planner_tokens:
        shares["planner tokens"] = (state.tokens or 0) / state.plan.max_planner_tokens
    return shares


def gpu_seconds_left(state: State) -> float | None:
    """What jobs may still run, times their GPUs; None without a limit."""
    hours = state.plan.max_gpu_hours
    return None if hours is None else 3600 * hours - charged_gpu_s(state)


def charged_gpu_s(state: State) -> float:
    """What counts as run, times the GPUs of a job: one that is open, or nobody knows how long it ran, counts with its
    time limit."""
    jobs = [*state.billed, *state.open_attempts, *(stray for stray in state.strays.values() if stray.open)]
    ran_s = [
        float(job.job.timeout_s) if isinstance(job, Stray) or job.running_s is None else job.running_s for job in jobs
    ]
    return state.plan.gpus * sum(ran_s)


def money_left_micro_usd(state: State) -> int | None:
    """What may still be reserved; None without a cap."""
    cap = state.plan.budget_micro_usd
    if cap is None:
        return None
    return cap - charged_micro_usd(state) - state.held_micro_usd


def charged_micro_usd(state: State) -> int:
    """What counts as spent: an unknown cost keeps its reserve."""
    spent = sum(job.job.reserve_micro_usd if job.cost_micro_usd is None else job.cost_micro_usd for job in state.billed)
    return spent + state.planner_micro_usd


def remaining(state: State, now: datetime, *, reserve_s: float = 0.0) -> Remaining:
    """Time and money left, and the time to keep free with its price; the evaluations of what is being trained beside
    take none of the time."""
    owed_s = _owed_s(state)
    return Remaining(
        seconds=time_left_s(state, now),
        micro_usd=money_left_micro_usd(state),
        reserve_s=reserve_s,
        reserve_micro_usd=estimate.cost_micro_usd(state.plan, reserve_s + owed_s),
        gpu_s=gpu_seconds_left(state),
        reserve_gpu_s=state.plan.gpus * (reserve_s + owed_s),
        gpus=state.plan.gpus,
    )


def _owed_s(state: State) -> float:
    """Seconds of the evaluations that training jobs will need that run now."""
    training = sum(attempt.job.kind == "train" for attempt in state.open_attempts)
    return training * estimate.run_s(state, evaluate_run(state, None, "search", "estimate")) if training else 0.0


def _short_of(state: State, now: datetime, *, needed_s: float, reserve_s: float, timed: bool = True) -> str | None:
    left = remaining(state, now, reserve_s=reserve_s)
    left = left if timed else left.model_copy(update={"seconds": None})
    return left.short_of(seconds=needed_s, micro_usd=estimate.cost_micro_usd(state.plan, needed_s))


def check_envelope(state: State, spec: RunSpec, now: datetime) -> str | None:
    """What of time or money is missing for a run; None when there is enough."""
    needed_s, later_s = estimate.run_s(state, spec), 0.0
    if not _closing(spec):  # the last jobs of a night may use all that is left
        needed_s, later_s = max(needed_s, MIN_RUN_S), _later_s(state, spec)
    return _short_of(state, now, needed_s=needed_s, reserve_s=later_s, timed=_timed(state, spec))


def _closing(spec: RunSpec) -> bool:
    return spec.set == "confirm" or spec.guard is not None or spec.repeat or spec.kind in RELEASE


def _timed(state: State, spec: RunSpec) -> bool:
    """Whether the deadline binds a run: it is the night's, and an export may be asked for long after."""
    return state.ended is None or spec.kind not in RELEASE


def _later_s(state: State, spec: RunSpec) -> float:
    """Seconds to leave for the jobs that must follow a run: its evaluation, and the confirmation of what is won."""
    confirm = estimate.run_s(state, evaluate_run(state, None, "confirm", "estimate"))
    last = max(confirm, MIN_RUN_S) + _exports_s(state)
    if spec.guard is not None or spec.kind in RELEASE:
        return 0.0
    if spec.repeat:
        return confirm + last
    if spec.set == "confirm":
        return last if spec.subject is None else _exports_s(state)
    evaluation = estimate.run_s(state, evaluate_run(state, spec.name, "search", "its score"))
    beside = state.plan.max_jobs > 1 and lanes.of_search(spec)  # another line may win meanwhile
    return (evaluation if spec.kind == "train" else 0.0) + (confirmation_s(state) if beside or _won(state) else 0.0)


def _won(state: State) -> bool:
    """Whether there is something to confirm: a run that was kept, or one above the base model that is extended."""
    for run in state.trained:
        decision, comparison = state.decision_on(run.spec.name), state.comparison(run.spec.name, None, "search")
        extended = decision is not None and decision.action == "extend"
        if extended and comparison is not None and comparison.fact.verdict.delta > 0:
            return True
    return state.kept is not None


def confirmation_s(state: State) -> float:
    """Seconds that the confirmation needs: the repeated baseline, both models on the confirm set, and what is made of
    the model then."""
    repeat = estimate.run_s(state, evaluate_run(state, None, "search", "estimate"))
    confirm = estimate.run_s(state, evaluate_run(state, None, "confirm", "estimate"))
    return thresholds.CONFIRMATION_SLACK * (repeat + confirm + max(confirm, MIN_RUN_S) + _exports_s(state))


def _exports_s(state: State) -> float:
    asked = [state.plan.export, state.plan.stage and state.plan.stage.export]
    specs = [RunSpec(name="export", kind="export", why="estimate", export=export) for export in asked if export]
    return sum(estimate.run_s(state, spec) for spec in specs)


def pressed(state: State, spec: RunSpec) -> bool:
    """Whether what other jobs hold, and give back, makes money or GPU hours short for a run or for the reserve."""
    reserve_s = confirmation_s(state) + estimate.run_s(state, evaluate_run(state, None, "search", "estimate"))
    left = remaining(state, state.updated_at, reserve_s=reserve_s).model_copy(update={"seconds": None})
    needed_s = estimate.run_s(state, spec)
    return left.short_of(seconds=needed_s, micro_usd=estimate.cost_micro_usd(state.plan, needed_s)) is not None


def check_reserve(state: State, now: datetime) -> str | None:
    """What is missing for another training run and its evaluation, if the confirmation shall still be paid for."""
    config = state.plan.train if state.pending is None else state.pending.config
    train = RunSpec(name="next", kind="train", why="estimate", train=config)
    evaluation = evaluate_run(state, train.name, "search", "estimate")
    needed_s = estimate.run_s(state, train) + estimate.run_s(state, evaluation)
    short = _short_of(state, now, needed_s=needed_s, reserve_s=confirmation_s(state))
    return None if short is None else f"no room for another run: {short}"


def job_timeout_s(state: State, spec: RunSpec, now: datetime) -> int:
    """The timeout of a run's job: by the estimate, cut at the deadline and at what the budget pays for.

    What must follow the run has its time left free, as far as the run itself can spare it.
    """
    needed_s, later_s = estimate.run_s(state, spec), _later_s(state, spec)
    left_usd, price = money_left_micro_usd(state), state.plan.price_micro_usd_per_hour
    paid_s = None if left_usd is None or price == 0 else left_usd * 3600 // price
    timeout = float(estimate.timeout_s(needed_s))
    time_s = time_left_s(state, now) if _timed(state, spec) else None
    gpu_left_s = gpu_seconds_left(state)
    gpu_s = None if gpu_left_s is None else gpu_left_s / state.plan.gpus
    paid_later_s = later_s + _owed_s(state)
    for left_s, kept_s in ((time_s, later_s), (paid_s, paid_later_s), (gpu_s, paid_later_s)):
        if left_s is not None:
            timeout = min(timeout, left_s, max(needed_s, left_s - kept_s))
    return max(1, int(timeout))
