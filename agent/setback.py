"""What becomes of a training run that was cut off or failed: begun again with a change, or given up. Pure."""

from hfagent.agent import thresholds
from hfagent.agent.findings import Flag, Response
from hfagent.agent.hypotheses import halved
from hfagent.agent.records import Decision, TrainConfig
from hfagent.agent.remedy import last_good_step, respond, respond_to_failure
from hfagent.agent.runs import Run
from hfagent.agent.state import State

DIVERGED = "training diverged"
"""How the training templates begin the message of a run that stopped itself at NaN."""


def setback(state: State, run: Run) -> Decision | None:
    """The decision about a training run whose last job ended without a model.

    Returns:
        None where nothing is to be decided: the run is done or was decided, or its job may be started again as it is.
    """
    name = run.spec.name
    if run.spec.kind != "train" or run.last.open or state.decision_on(name) is not None:
        return None
    if name in state.wishes.vetoed:
        return _given_up(name, "veto", f"a person said no: {state.wishes.vetoed[name]}", {})
    if run.done:
        return None
    train = run.spec.train or state.plan.train
    if run.last.out_of_memory:
        return _out_of_memory(name, train)
    flagged = _flagged(run)
    restarts, numbers = state.restarts(name), flagged.numbers if flagged is not None else {}
    response, checkpoint = _response(run, flagged, train, restarts=restarts)
    if response is not None and response.action == "restart_lower" and response.learning_rate is not None:
        return Decision(
            action="change",
            run=name,
            reason=response.reason,
            rule="restart-lower",
            version=thresholds.VERSION,
            inputs=(name,),
            numbers={**numbers, "learning_rate": train.learning_rate, "restarts": restarts},
            alternatives=("discard: a lower learning rate was not tried", "wait: a broken run does not mend itself"),
            changes={"learning_rate": response.learning_rate},
            resume_from=checkpoint,
        )
    if response is not None and response.action == "abandon":
        return _given_up(name, "abandon", response.reason, numbers)
    if flagged is not None and flagged.name == "too_slow":
        return _too_slow(name, flagged, restarts=restarts)
    if len(run.attempts) >= thresholds.MAX_ATTEMPTS:
        reason = f"{len(run.attempts)} jobs were lost or ended without a model: {run.last.message}"
        return _given_up(name, "discard-lost", reason, numbers)
    if run.last.stage == "ERROR" and not run.last.lost:
        return _given_up(name, "discard-failed", f"its job failed: {run.last.message}", numbers)
    return None


def _flagged(run: Run) -> Flag | None:
    """The flag for which the job was cancelled."""
    cancelled = [f.flag for f in run.flags if f.key == run.last.job.key and f.response.action != "go_on"]
    return cancelled[-1] if cancelled else None


def _response(run: Run, flag: Flag | None, train: TrainConfig, *, restarts: int) -> tuple[Response | None, str | None]:
    """The answer to the flag or to the job's stopping itself, and the checkpoint that the next run starts from."""
    if flag is None:
        message = run.last.message or ""
        failure = respond_to_failure(message, restarts=restarts, learning_rate=train.learning_rate)
        return (failure, None) if DIVERGED in message else (None, None)
    left = run.result.get("checkpoints")
    checkpoints = {int(step): str(path) for step, path in left.items()} if isinstance(left, dict) else {}
    step = last_good_step(run.points, list(checkpoints), flag)
    response = respond((flag,), restarts=restarts, learning_rate=train.learning_rate, good_checkpoint_step=step)
    return response, None if step is None else checkpoints[step]


def _too_slow(name: str, flag: Flag, *, restarts: int) -> Decision:
    fits = flag.numbers.get("fits")
    if fits is None or fits < 1 or restarts >= thresholds.MAX_RESTARTS:
        return _given_up(name, "too-slow", flag.reason, flag.numbers)
    return Decision(
        action="change",
        run=name,
        reason=f"{flag.reason}; begun again for {fits:.0f} steps",
        rule="shorten",
        version=thresholds.VERSION,
        inputs=(name,),
        numbers=flag.numbers,
        alternatives=("wait: its timeout would end it without a model",),
        changes={"max_steps": fits},
    )


def _out_of_memory(name: str, train: TrainConfig) -> Decision:
    smaller = halved(train)
    if smaller is None:
        return _given_up(name, "out-of-memory", "out of memory with a micro-batch of 1", {})
    changes = {
        "per_device_train_batch_size": float(smaller.per_device_train_batch_size),
        "gradient_accumulation_steps": float(smaller.gradient_accumulation_steps),
    }
    return Decision(
        action="change",
        run=name,
        reason=(
            f"out of memory with a micro-batch of {train.per_device_train_batch_size}: "
            f"{smaller.per_device_train_batch_size} x {smaller.gradient_accumulation_steps}, the same effective batch"
        ),
        rule="halve-micro-batch",
        version=thresholds.VERSION,
        numbers={"per_device_train_batch_size": float(train.per_device_train_batch_size)},
        alternatives=("discard: a smaller micro-batch trains the same",),
        changes=changes,
    )


def _given_up(name: str, rule: str, reason: str, numbers: dict[str, float | None]) -> Decision:
    return Decision(action="discard", run=name, reason=reason, rule=rule, version=thresholds.VERSION, numbers=numbers)
