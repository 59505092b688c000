"""Facts about the place where jobs run: when it did not answer, and the jobs there that nobody asked for."""

from datetime import datetime
from typing import Literal

from hfagent.agent.records import JobStage, Record


class BackendLost(Record):
    """It does not answer. Its jobs go on; their money stays held."""

    kind: Literal["backend_lost"] = "backend_lost"
    error: str


class BackendFound(Record):
    """It answers again."""

    kind: Literal["backend_found"] = "backend_found"


class SubmitRetried(Record):
    """An intended job will be submitted once more, since it was not found. Written before the submit."""

    kind: Literal["submit_retried"] = "submit_retried"
    key: str


class StrayFound(Record):
    """A second job of a key: a request that was thought lost had been taken. It is cancelled."""

    kind: Literal["stray_found"] = "stray_found"
    key: str
    job_id: str
    url: str


class StrayEnded(Record):
    """A stray reached a terminal stage; its cost replaces its reserve."""

    kind: Literal["stray_ended"] = "stray_ended"
    job_id: str
    stage: JobStage
    finished_at: datetime | None
    running_s: float | None
    cost_micro_usd: int | None


BackendFact = BackendLost | BackendFound | SubmitRetried | StrayFound | StrayEnded
