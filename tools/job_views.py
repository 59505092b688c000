"""What a planner is shown of a run's log and metrics: bounded, in quotes, and without secrets."""

from typing import Any

from hfagent.agent.brief import CONTROL, cut
from hfagent.agent.errors import JobError
from hfagent.agent.ports import JobRunner
from hfagent.agent.records import Refusal
from hfagent.agent.redact import redact
from hfagent.agent.state import State

LOG_LINES = 12
LINE_CHARS = 100
MAX_BEFORE = 2000
"""Lines back from the end of a log that can be asked for."""
POINTS = 8
SHOWN = ("train/loss", "eval/loss", "train/learning_rate", "train/reward")


def log_view(state: State, runner: JobRunner, run: str, *, before: int) -> dict[str, Any] | Refusal:
    """The last lines of a run's newest job, or those before.

    Args:
        state: the project.
        runner: has the log.
        run: name of the run.
        before: lines from the end to leave out; outside 0 to MAX_BEFORE it is moved to the nearest.
    """
    job = state.runs[run].last.job_id if run in state.runs else None
    if job is None:
        return Refusal(what=f"logs of {run}", why=f"no run {run!r} with a job; there are {_known(state)}")
    skipped = min(max(before, 0), MAX_BEFORE)
    try:
        lines = list(runner.logs(job, tail=skipped + LOG_LINES))
    except JobError as error:
        return Refusal(what=f"logs of {run}", why=str(error))
    shown = lines[: max(len(lines) - skipped, 0)][-LOG_LINES:]
    more = len(lines) >= skipped + LOG_LINES and skipped < MAX_BEFORE
    return {
        "run": run,
        "log": [cut(redact(CONTROL.sub("", line)), LINE_CHARS) for line in shown],
        "before": skipped + len(shown) if more else None,
    }


def metrics_view(state: State, run: str) -> dict[str, Any] | Refusal:
    """A training run's curve at a few steps, the last one included."""
    points = state.runs[run].points if run in state.runs else ()
    if not points:
        return Refusal(what=f"metrics of {run}", why=f"no metrics of {run!r}; there are {_known(state)}")
    every = max(1, -(-len(points) // POINTS))
    thin = [*points[:-1:every], points[-1]]
    rows = [
        {"step": point.step, **{name: _rounded(point.values[name]) for name in SHOWN if name in point.values}}
        for point in thin
    ]
    return {"run": run, "points": len(points), "rows": rows, "flags": [f.flag.name for f in state.runs[run].flags]}


def _known(state: State) -> str:
    return ", ".join(list(state.runs)[-12:]) or "none yet"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
