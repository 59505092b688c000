"""The seams: one Protocol for each part that can be replaced. Real and fake pass the same contract tests."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from hfagent.agent.records import DatasetRef, DatasetReport, Job, JobSpec, MetricPoint, ModelRef


class Clock(Protocol):
    """Time, so that a night can be rehearsed in a second."""

    def now(self) -> datetime:
        """The current time, UTC."""
        ...


class JobRunner(Protocol):
    """Where jobs run."""

    name: str
    """`local`, `hf`, ..."""

    def submit(self, spec: JobSpec) -> Job:
        """Start the job, or return the one that this key has already started.

        Raises:
            JobError: it did not start, or nobody knows; the key stays valid either way.
        """
        ...

    def find(self, key: str) -> Job | None:
        """The job started under this key, or None if there is none."""
        ...

    def inspect(self, job_id: str) -> Job:
        """The job now.

        Raises:
            JobError: no such job.
        """
        ...

    def logs(self, job_id: str, *, tail: int = 100) -> Sequence[str]:
        """The last lines of its output, oldest first."""
        ...

    def cancel(self, job_id: str) -> None:
        """Stop the job and everything it started. Returns at once; the stage tells when it is done."""
        ...

    def wait(self, job_ids: Sequence[str], *, timeout_s: float) -> None:
        """Return as soon as one of the jobs has ended, or after `timeout_s`."""
        ...


class Tracker(Protocol):
    """Where training runs log their metrics."""

    def points(self, project: str, run: str, *, after_step: int = -1) -> Sequence[MetricPoint]:
        """Rows logged after `after_step`, in order of step; empty while there are none."""
        ...

    def url(self, project: str, run: str) -> str:
        """Where a person sees this run, or the command that shows it."""
        ...


class DatasetChecker(Protocol):
    """Reads a sample of a dataset and judges it for every method."""

    def check(self, dataset: DatasetRef, *, model: ModelRef | None, max_length: int | None) -> DatasetReport:
        """Judge the dataset.

        Raises:
            DatasetError: it cannot be found or read.
        """
        ...


class ModelStore(Protocol):
    """Makes a base model loadable."""

    def prepare(self, model: ModelRef) -> Path | str:
        """A folder or Hub id that `from_pretrained` takes; fetches and converts an embedded model once.

        Raises:
            ModelError: it cannot be had.
        """
        ...


class DatasetStore(Protocol):
    """Makes a dataset readable for a job."""

    def prepare(self, dataset: DatasetRef, *, rows: int | None, seed: int) -> Path | str:
        """A file, folder or Hub id that the train template reads; writes an embedded dataset once.

        Raises:
            DatasetError: it cannot be had.
        """
        ...
