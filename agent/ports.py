"""The seams: one Protocol for each part that can be replaced. Real and fake pass the same contract tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from hfagent.agent.dataset_records import DatasetReport
from hfagent.agent.events import Proposed
from hfagent.agent.findings import Look, Trial
from hfagent.agent.integrity import ContaminationReport
from hfagent.agent.records import (
    BenchmarkRef,
    DatasetRef,
    Job,
    JobSpec,
    MetricPoint,
    ModelRef,
    Plan,
)


class Clock(Protocol):
    """Time, so that a night can be rehearsed in a second."""

    def now(self) -> datetime:
        """The current time, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that passed since any moment, whatever the clock is set to meanwhile."""
        ...


class JobRunner(Protocol):
    """Where jobs run."""

    name: str
    """`local`, `hf`, ..."""
    settle_s: float
    """Seconds after which a submit that got no answer has either become a job that `find` sees, or never will."""
    cancel_s: float
    """Seconds that a cancelled job may take to end."""

    def submit(self, spec: JobSpec) -> Job:
        """Start the job, or return the one that this key has already started.

        Raises:
            AccountRefused: it did not start, and none will until a person has mended the account.
            NothingSent: it did not start; submit it again later.
            NoRoom: it did not start, and can under the same key once there is room.
            BackendAway: nobody knows; look for the key after `settle_s`, then submit again.
            JobError: it did not start.
        """
        ...

    def find(self, key: str) -> Job | None:
        """The job started under this key, the oldest of them, or None if there is none."""
        ...

    def jobs(self, label: str, *, ended: bool = False) -> Sequence[Job]:
        """The jobs of a project that have not ended, or all; `label` is the plan's, the beginning of their keys."""
        ...

    def inspect(self, job_id: str) -> Job:
        """The job now; every method that asks raises `BackendAway` where there is no answer.

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

    def fetch(self, path: str) -> Path:
        """A file or folder that a result names, where this machine reads it: a copy where jobs run elsewhere.

        Raises:
            BackendAway: not now.
            NoRoom: it cannot be written here.
            JobError: there is none.
        """
        ...


class Tracker(Protocol):
    """Where training runs log their metrics."""

    def points(self, project: str, run: str, *, after_step: int = -1) -> Sequence[MetricPoint]:
        """Rows logged after `after_step`, in order of step; empty while there are none."""
        ...

    def url(self, project: str, run: str) -> str:
        """Where a person sees this run, or the command that shows it."""
        ...


class Searcher(Protocol):
    """Chooses hyperparameters from what was tried."""

    def propose(self, plan: Plan, past: Sequence[Trial]) -> Proposed:
        """The next set; the same past gives the same answer."""
        ...


class Looks(Protocol):
    """Counts looks at confirm sets over all projects."""

    def take(self, model: ModelRef, benchmark: BenchmarkRef, *, project: str, candidate: str) -> Look:
        """The number of this look and what it may spend; the same look again for the same candidate.

        Raises:
            LedgerError, SettingsError: it cannot be recorded, and then it must not be used.
        """
        ...


class DatasetChecker(Protocol):
    """Reads a sample of a dataset and judges it for every method."""

    def check(self, dataset: DatasetRef, *, model: ModelRef | None, max_length: int | None) -> DatasetReport:
        """Judge the dataset.

        Raises:
            DatasetError: it cannot be found or read.
        """
        ...


class Firewall(Protocol):
    """Keeps benchmark problems out of the training rows."""

    def check(
        self, dataset: DatasetRef, *, name: str, benchmarks: Sequence[BenchmarkRef], max_rows: int | None = None
    ) -> ContaminationReport:
        """Compare the rows that a training would read with every problem of these sets.

        Raises:
            DatasetError: they cannot be read; nothing may be trained on them then.
        """
        ...

    def clean(self, dataset: DatasetRef, report: ContaminationReport, *, max_rows: int | None = None) -> DatasetRef:
        """A copy without the rows that the report flags.

        Raises:
            DatasetError: it cannot be written, or no row is left.
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

    def verify(self, made: str, *, sha256: str) -> None:
        """Refuse data that a model made and that are not, or no longer, what its job wrote.

        Raises:
            DatasetError: they are cut, changed or gone.
        """
        ...


class Planner(Protocol):
    """Proposes moves until there is nothing to do but wait."""

    def wake(self) -> None:
        """Work at the desk until jobs run or the project is over."""
        ...


@dataclass(frozen=True)
class Ports:
    """The outside world of a night."""

    runner: JobRunner
    tracker: Tracker
    checker: DatasetChecker
    models: ModelStore
    datasets: DatasetStore
    clock: Clock
    firewall: Firewall
    searcher: Searcher
    looks: Looks
