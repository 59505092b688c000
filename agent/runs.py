"""Runs, their jobs, and what was found about them, as far as a ledger tells. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from hfagent.agent.events import Compared, Flagged
from hfagent.agent.growing import Growing
from hfagent.agent.records import Decision, JobSpec, JobStage, MetricPoint, RunSpec, Score

SIGNALED = 128
"""Exit codes from here on: 128 + the signal that ended the process."""
OUT_OF_MEMORY = 137
"""SIGKILL, as the kernel sends it when memory runs out."""
OOM_SIGNS = ("outofmemoryerror", "out of memory", "cannot allocate memory")
"""Of torch and of the kernel."""
LOST = "lost:"
"""How a runner begins the message of a job that was ended from outside, whatever exit code that left."""
TIMED_OUT = "Job timeout"
"""How Hugging Face Jobs and the local runner begin the message of a job that ran out of time."""

Stage = JobStage | Literal["INTENDED", "REJECTED"]


@dataclass(frozen=True)
class Attempt:
    """One job of a run."""

    job: JobSpec
    intended_at: datetime
    tries: int = 1
    stage: Stage = "INTENDED"
    job_id: str | None = None
    url: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    running_s: float | None = None
    cost_micro_usd: int | None = None
    exit_code: int | None = None
    message: str | None = None
    result: Mapping[str, Any] | None = None
    cancel_why: str | None = None
    shift_s: float = 0.0
    """By how much the clock has jumped since its start."""

    @property
    def lost(self) -> bool:
        """Whether the machine failed and not the script: no exit code, or one of a signal from outside.

        Too little time or memory would be too little again; what hfagent itself cancelled is not lost.
        """
        if self.cancel_why is not None:
            return False
        if (self.message or "").startswith(LOST):
            return True
        if self.exit_code == OUT_OF_MEMORY or (self.message or "").startswith(TIMED_OUT):
            return False
        return self.exit_code is None or self.exit_code >= SIGNALED

    @property
    def out_of_memory(self) -> bool:
        """Whether it failed for want of memory, by its exit code or its own words."""
        said = self.message or ""
        if self.cancel_why is not None or said.startswith(TIMED_OUT):
            return False  # it had to be killed, which leaves the same exit code
        if self.exit_code == OUT_OF_MEMORY and not said.startswith(LOST):
            return True
        return self.stage == "ERROR" and any(sign in said.lower() for sign in OOM_SIGNS)

    @property
    def open(self) -> bool:
        """Whether it runs, waits, or may have been submitted: its reserve is held."""
        return self.stage in ("INTENDED", "SCHEDULING", "RUNNING")


@dataclass(frozen=True)
class Stray:
    """A second job of a key, or one that the ledger knew nothing of: unasked for, and it costs all the same."""

    job: JobSpec
    job_id: str
    url: str
    stage: Stage = "RUNNING"
    cost_micro_usd: int | None = None

    @property
    def open(self) -> bool:
        """Whether its reserve is held."""
        return self.stage == "RUNNING"


@dataclass(frozen=True)
class Run:
    """A run with its attempts, the metrics it logged and the score it gave."""

    spec: RunSpec
    attempts: tuple[Attempt, ...]
    points: Growing[MetricPoint] = field(default_factory=Growing)
    progress: Growing[tuple[datetime, int]] = field(default_factory=Growing)
    """When new rows of the last attempt were seen, and the last step of each time."""
    flags: tuple[Flagged, ...] = ()
    """What watching the last attempt found."""
    score: Score | None = None

    @property
    def last(self) -> Attempt:
        """The newest attempt."""
        return self.attempts[-1]

    @property
    def done(self) -> bool:
        """Whether it completed."""
        return self.last.stage == "COMPLETED"

    @property
    def result(self) -> Mapping[str, Any]:
        """What the job script reported; empty while there is nothing."""
        return self.last.result or {}


@dataclass(frozen=True)
class Comparison:
    """A verdict, and when it was reached."""

    at: datetime
    fact: Compared
    harness: str | None
    """Of the scores."""


@dataclass(frozen=True)
class Taken:
    """A decision, when it was taken and about which training run."""

    at: datetime
    about: str
    decision: Decision
