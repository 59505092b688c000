"""The metrics in a training script's progress lines, and rows of Trackio as points."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hfagent.agent.errors import JobError
from hfagent.agent.ports import JobRunner
from hfagent.agent.records import Job, MetricPoint

STEP = "train/global_step"
"""The optimizer step in a row; Trackio's own `step` counts rows, and an evaluation is a row of its own."""
LOG_LINES = 400
_PROGRESS = re.compile(r"step (\d+)/\d+ (?:loss (\S+) lr (\S+)|eval_loss (\S+))")
_ATTEMPT = re.compile(r"-a\d+$")


def key_of(project: str, run: str) -> str:
    """The key of the job that logs under this name."""
    return f"{project}-{run}" if _ATTEMPT.search(run) else f"{project}-{run}-a1"


def logged(runner: JobRunner, job: Job | None) -> list[dict[str, Any]]:
    """What a job has printed, oldest first; nothing where it has no log that can be read."""
    if job is None or job.stage == "SCHEDULING":  # whose log is waited for in vain
        return []
    try:
        return from_log(runner.logs(job.id, tail=LOG_LINES))
    except (JobError, OSError):
        return []


def from_log(lines: Sequence[str]) -> list[dict[str, Any]]:
    """The metrics in a training script's progress lines, as rows of Trackio."""
    rows = []
    for line in lines:
        found = _PROGRESS.search(line)
        if found is None:
            continue
        step, loss, rate, eval_loss = found.groups()
        values: Mapping[str, str | None] = {"train/loss": loss, "train/learning_rate": rate, "eval/loss": eval_loss}
        if rate == "nan":  # as a line is printed whose rate is not known
            values = {**values, "train/learning_rate": None}
        rows.append({STEP: int(step), **{name: float(value) for name, value in values.items() if value is not None}})
    return rows


def merged(rows: Sequence[Mapping[str, Any]], after_step: int) -> list[MetricPoint]:
    """Trackio's rows, oldest first, one point for each step after `after_step`; of a metric the later value counts."""
    by_step: dict[int, dict[str, float | None]] = {}
    for row in rows:
        step = row.get(STEP)
        if isinstance(step, int) and step > after_step:
            values = {name: value for name, value in row.items() if name != STEP}
            by_step[step] = by_step.get(step, {}) | _numbers(values)
    return [MetricPoint(step=step, values=by_step[step]) for step in sorted(by_step)]


def _numbers(row: dict[str, Any]) -> dict[str, float | None]:
    """The scalars; NaN and infinity, which Trackio spells as text, become None."""
    values: dict[str, float | None] = {}
    for name, value in row.items():
        if value in ("NaN", "Infinity", "-Infinity"):
            values[name] = None
        elif isinstance(value, int | float) and not isinstance(value, bool):
            values[name] = float(value) if math.isfinite(value) else None
    return values
