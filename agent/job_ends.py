"""How a job ended, what it cost, and whether what it left can be used. Pure."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from hfagent.agent.backend_facts import StrayEnded
from hfagent.agent.events import JobEnded
from hfagent.agent.integrity import check_trained
from hfagent.agent.records import Job, JobSpec, Plan, RunKind, RunSpec, Score
from hfagent.agent.state import State
from hfagent.agent.upkeep_facts import OrphanFound

SCORING: tuple[RunKind, ...] = ("evaluate", "verify")
"""Runs whose result is a score."""
LOG_TAIL = 50
"""Lines in which the cause of a failure is looked for."""
ERROR_LINE = re.compile(r"^(?:[\w.]+(?:Error|Exception|Interrupt)\b.*|error: .*|[\w.]+: error: .*)$")
"""The line by which a Python traceback or a command's usage message ends."""
ERROR_CHARS = 300


def judged(state: State, run: RunSpec, spec: JobSpec, job: Job, log: Sequence[str]) -> JobEnded:
    """The end of a job; one that completed and left nothing that can be used has failed.

    Args:
        state: of the project.
        run: what the job was for.
        spec: as it was submitted.
        job: as it ended.
        log: the end of its output where it failed.
    """
    stage, message = job.stage, job.message
    if stage == "ERROR" and (cause := last_error(log)):
        message = f"{message or 'failed'}: {cause}"
    if stage == "COMPLETED" and run.kind in SCORING and (flaw := _flaw(job)):
        stage, message = "ERROR", f"the evaluation's result is unusable: {flaw}"
    if stage == "COMPLETED" and run.kind == "generate" and (lacks := lacking(job)):
        stage, message = "ERROR", f"the result names no {lacks}"
    if stage == "COMPLETED" and run.kind == "train" and (flaw := _mistrained(state, job)):
        stage, message = "ERROR", f"the trained model is unusable: {flaw}"
    return JobEnded(
        key=spec.key,
        stage=stage,
        finished_at=job.finished_at,
        running_s=job.running_s,
        cost_micro_usd=cost(spec, job),
        exit_code=job.exit_code,
        message=message,
        result=job.result,
    )


def stray_ended(spec: JobSpec, job: Job) -> StrayEnded:
    """The end of a second job of a key."""
    return StrayEnded(
        job_id=job.id,
        stage=job.stage,
        finished_at=job.finished_at,
        running_s=job.running_s,
        cost_micro_usd=cost(spec, job),
    )


def orphan(plan: Plan, job: Job, now: datetime, *, cancel_s: float) -> OrphanFound:
    """A job that the ledger knows nothing of. It is cancelled: it costs what it did so far, and until that is done."""
    begun_at = job.started_at or job.created_at or now
    spec = JobSpec(
        key=job.key,
        project=plan.project,
        run=job.key.removeprefix(f"{plan.label}-").rpartition("-a")[0],
        kind="train",
        template="unknown",
        args=(),
        flavor=job.flavor,
        timeout_s=max(1, math.ceil((now - begun_at).total_seconds() + cancel_s)),
        price_micro_usd_per_hour=plan.price_micro_usd_per_hour,
    )
    return OrphanFound(key=job.key, job_id=job.id, url=job.url, job=spec)


def cost(spec: JobSpec, job: Job) -> int | None:
    """Price times billed seconds, rounded up; None when the seconds are unknown and not free."""
    if spec.price_micro_usd_per_hour == 0:
        return 0
    return None if job.running_s is None else math.ceil(spec.price_micro_usd_per_hour * job.running_s / 3600)


def score(result: Mapping[str, Any]) -> Score:
    """The score in an evaluation's result.

    Raises:
        ValidationError: it is none.
    """
    return Score.model_validate({name: result[name] for name in Score.model_fields if name in result})


def lacking(job: Job) -> str | None:
    """What the result of a job that made data does not tell."""
    return next((name for name in ("dataset", "sha256") if not (job.result or {}).get(name)), None)


def last_error(lines: Sequence[str]) -> str | None:
    """The last line of a log that states an error, cut to a bounded length; None when none does."""
    return next((line.strip()[:ERROR_CHARS] for line in reversed(lines) if ERROR_LINE.match(line.strip())), None)


def _flaw(job: Job) -> str | None:
    """What is wrong with an evaluation's result; None when it is a score."""
    try:
        score(job.result or {})
    except ValidationError as error:
        problem = error.errors()[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return None


def _mistrained(state: State, job: Job) -> str | None:
    """What is wrong with a trained model: another base than planned, or weights that never moved."""
    earlier = [run.result.get("base_fingerprint") for run in state.trained if run.done]
    return check_trained(
        planned_model=state.model_path or state.plan.model.id,
        result=job.result or {},
        base_fingerprint=earlier[0] if earlier else None,
    )
