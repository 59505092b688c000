"""What is done about the flags of a training run. Pure; every answer but `go_on` ends the job."""

from collections.abc import Sequence

from hfagent.agent import thresholds as limits
from hfagent.agent import trend
from hfagent.agent.findings import Flag, Response
from hfagent.agent.records import MetricPoint
from hfagent.agent.watch import floor_of


def respond(
    flags: Sequence[Flag], *, restarts: int, learning_rate: float, good_checkpoint_step: int | None
) -> Response:
    """The answer to the first flag that needs one.

    `restart_lower` begins the run again with a lower learning rate, `abandon` gives its configuration up, and `cancel`
    ends the job for a reason that is not the learning rate: after `hung` and `no_start` the same run may be started
    again, after `overfit` the checkpoint is the result, after `too_slow` only a shorter run makes sense.

    Args:
        flags: of one job, most severe first.
        restarts: how often this configuration was begun again at a lower rate already.
        learning_rate: of the run now.
        good_checkpoint_step: see `last_good_step`; None without such a checkpoint.
    """
    for flag in flags:
        response = _respond(flag, restarts, learning_rate, good_checkpoint_step)
        if response.action != "go_on":
            return response
    return Response(action="go_on", reason="; ".join(f"{flag.name}: {flag.reason}" for flag in flags) or "no flag")


def respond_to_failure(message: str, *, restarts: int, learning_rate: float) -> Response:
    """The answer to a job that stopped itself at NaN; its checkpoints are not known to be good."""
    return _lower(message, restarts, learning_rate, None)


def last_good_step(points: Sequence[MetricPoint], checkpoints: Sequence[int], flag: Flag) -> int | None:
    """The last checkpoint from before the trouble; None where there is none.

    After NaN or divergence that is one from before the last `CHECKPOINT_MARGIN_LOGS` logs ahead of the first bad one,
    and from when the loss still lay near its floor: a slow rise crosses the limit long after it began. After overfit
    it is one up to the lowest evaluation loss, otherwise the newest.

    Args:
        points: metrics of the job.
        checkpoints: optimizer steps whose checkpoints exist, in any order.
        flag: of the job.
    """
    end = _last_sound_step(points, flag) if flag.name in ("nan", "diverged", "overfit") else max(checkpoints, default=0)
    return max((step for step in checkpoints if step <= end), default=None)


def _respond(flag: Flag, restarts: int, learning_rate: float, checkpoint: int | None) -> Response:
    reason = f"{flag.name}: {flag.reason}"
    match flag.name:
        case "nan" | "diverged":
            return _lower(reason, restarts, learning_rate, checkpoint)
        case "dead_reward":
            return Response(action="abandon", reason=f"{reason}; the same rewards will come again")
        case "hung" | "no_start":
            return Response(action="cancel", reason=reason, checkpoint_step=checkpoint)
        case "overfit" if checkpoint is not None:
            return Response(
                action="cancel",
                reason=f"{reason}; the checkpoint of step {checkpoint} is kept",
                checkpoint_step=checkpoint,
            )
        case "too_slow" if checkpoint is None:
            # A checkpoint makes the cut harmless: the run goes on from it. Without one every further second is lost.
            return Response(action="cancel", reason=f"{reason}; nothing is saved yet")
        case _:
            return Response(action="go_on", reason=reason)


def _lower(reason: str, restarts: int, learning_rate: float, checkpoint: int | None) -> Response:
    if restarts >= limits.MAX_RESTARTS:
        return Response(action="abandon", reason=f"{reason}; begun again {restarts} times at a lower learning rate")
    lower = limits.LOWER_RATE * learning_rate
    start = "the beginning" if checkpoint is None else f"the checkpoint of step {checkpoint}"
    return Response(
        action="restart_lower",
        reason=f"{reason}; again from {start} at a learning rate of {lower:.3g} instead of {learning_rate:.3g}",
        learning_rate=lower,
        checkpoint_step=checkpoint,
    )


def _last_sound_step(points: Sequence[MetricPoint], flag: Flag) -> int:
    """The last step that trouble had not reached; 0 where none is known."""
    if flag.name == "overfit":
        return min(trend.series(points, "eval/loss"), key=lambda item: item[1], default=(0, 0.0))[0]
    if flag.step is None:
        return 0
    before = [(step, loss) for step, loss in trend.series(points, "train/loss") if step < flag.step]
    sound = before[: -limits.CHECKPOINT_MARGIN_LOGS]
    floor = floor_of([loss for _, loss in before])
    if flag.name == "diverged" and floor is not None:
        sound = [(step, loss) for step, loss in sound if loss <= floor]
    return sound[-1][0] if sound else 0
