"""Public test doubles for every seam: a whole night in milliseconds, on a clock that moves only when somebody waits."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hfagent.agent.dataset_records import DatasetReport, MethodCheck
from hfagent.agent.errors import JobError
from hfagent.agent.events import Proposed
from hfagent.agent.findings import Look, Trial
from hfagent.agent.integrity import ContaminationReport, Hit
from hfagent.agent.records import (
    BenchmarkRef,
    DatasetRef,
    Job,
    JobSpec,
    JobStage,
    Method,
    MetricPoint,
    ModelRef,
    Plan,
)
from hfagent.agent.sequential import LookKey, alpha_of_look, look_key
from hfagent.agent.train_config import METHODS


class FakeClock:
    """Starts at a given time and moves by `advance`."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, 22, tzinfo=UTC)):
        self._now = start
        self._passed = 0.0

    def now(self) -> datetime:
        """The clock's time."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += timedelta(seconds=seconds)
        self._passed += seconds

    def monotonic(self) -> float:
        """Seconds that passed."""
        return self._passed

    def jump(self, seconds: float) -> None:
        """Be set to another time."""
        self._now += timedelta(seconds=seconds)


@dataclass(frozen=True)
class Ending:
    """How a fake job goes: how long it queues and runs, and what it leaves."""

    running_s: float
    stage: JobStage = "COMPLETED"
    result: Mapping[str, Any] | None = None
    exit_code: int | None = 0
    message: str | None = None
    queued_s: float = 0.0
    log: Sequence[str] = ()


@dataclass
class _FakeJob:
    spec: JobSpec
    ending: Ending
    created_at: datetime
    created_after_s: float
    """By the clock's monotonic time."""
    canceled_at: datetime | None = None


class FakeJobRunner:
    """Jobs that end as `behave` says."""

    name = "fake"
    settle_s = 0.0
    cancel_s = 30.0

    def __init__(self, clock: FakeClock, behave: Callable[[JobSpec], Ending]):
        self._clock = clock
        self._behave = behave
        self._jobs: dict[str, _FakeJob] = {}
        self.submits: list[str] = []
        """Keys, in order of start."""

    def submit(self, spec: JobSpec) -> Job:
        """Start the job once for its key."""
        known = self._jobs.get(spec.key)
        if known is not None and known.spec != spec:
            raise JobError(f"key {spec.key!r} was used for another job")
        if known is None:
            self._jobs[spec.key] = _FakeJob(spec, self._behave(spec), self._clock.now(), self._clock.monotonic())
            self.submits.append(spec.key)
        return self.inspect(f"fake-{spec.key}")

    def find(self, key: str) -> Job | None:
        """The job of this key."""
        return self.inspect(f"fake-{key}") if key in self._jobs else None

    def jobs(self, label: str, *, ended: bool = False) -> Sequence[Job]:
        """The jobs whose keys begin with the label."""
        found = [self.inspect(f"fake-{key}") for key in self._jobs if key.startswith(f"{label}-")]
        return [job for job in found if ended or not job.ended]

    def inspect(self, job_id: str) -> Job:
        """The job at the clock's time."""
        job = self._job(job_id)
        started, finished = self._times(job)
        now, ending = self._now(job), job.ending
        common = {"id": job_id, "key": job.spec.key, "url": f"fake://{job.spec.key}", "flavor": job.spec.flavor}
        if job.canceled_at is not None and job.canceled_at < finished:
            return Job(**common, created_at=job.created_at, started_at=min(started, job.canceled_at),
                       finished_at=job.canceled_at, stage="CANCELED", message="canceled")  # fmt: skip
        if now < started:
            return Job(**common, created_at=job.created_at, stage="SCHEDULING")
        if now < finished:
            return Job(**common, created_at=job.created_at, started_at=started, stage="RUNNING")
        return Job(**common, created_at=job.created_at, started_at=started, finished_at=finished, stage=ending.stage,
                   exit_code=ending.exit_code, message=ending.message,
                   result=dict(ending.result) if ending.result is not None else None)  # fmt: skip

    def logs(self, job_id: str, *, tail: int = 100) -> Sequence[str]:
        """The last lines of the ending's log."""
        return list(self._job(job_id).ending.log)[-tail:]

    def cancel(self, job_id: str) -> None:
        """Stop the job now."""
        job = self._job(job_id)
        job.canceled_at = job.canceled_at or self._now(job)

    def wait(self, job_ids: Sequence[str], *, timeout_s: float) -> None:
        """Move the clock to the next end among the jobs, at most `timeout_s`."""
        jobs = [self._job(job_id) for job_id in job_ids]
        if any(self.inspect(job_id).ended for job_id in job_ids):
            return
        ends = [(self._times(job)[1] - self._now(job)).total_seconds() for job in jobs]
        self._clock.advance(min([timeout_s, *ends]))

    def fetch(self, path: str) -> Path:
        """The path itself: nothing lies there."""
        return Path(path)

    def _job(self, job_id: str) -> _FakeJob:
        try:
            return self._jobs[job_id.removeprefix("fake-")]
        except KeyError:
            raise JobError(f"no job {job_id!r}") from None

    def _now(self, job: _FakeJob) -> datetime:
        """What the job's own clock shows, which nobody sets."""
        return job.created_at + timedelta(seconds=self._clock.monotonic() - job.created_after_s)

    @staticmethod
    def _times(job: _FakeJob) -> tuple[datetime, datetime]:
        started = job.created_at + timedelta(seconds=job.ending.queued_s)
        return started, started + timedelta(seconds=min(job.ending.running_s, job.spec.timeout_s))


class FakeTracker:
    """Metric rows put in by a test."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], list[MetricPoint]] = {}

    def points(self, project: str, run: str, *, after_step: int = -1) -> Sequence[MetricPoint]:
        """Rows after a step."""
        return [row for row in self.rows.get((project, run), []) if row.step > after_step]

    def url(self, project: str, run: str) -> str:
        """A made-up address."""
        return f"fake://trackio/{project}/{run}"


@dataclass
class FakeChecker:
    """Every dataset gets the same verdict for every method, but for those that are named."""

    check_result: MethodCheck = field(default_factory=lambda: MethodCheck(verdict="READY", reason="found 'messages'"))
    by_method: Mapping[Method, MethodCheck] = field(default_factory=dict)
    """Other verdicts, by method."""
    columns: Mapping[str, str] = field(default_factory=lambda: {"messages": "list"})
    ready: tuple[str, ...] = ()
    """Datasets that every method can train on."""

    def check(self, dataset: DatasetRef, *, model: ModelRef | None, max_length: int | None) -> DatasetReport:
        """The same report for any dataset, as far as its name is not among those that are ready."""
        ready = MethodCheck(verdict="READY", reason="found all columns")
        found = {method: self.by_method.get(method, self.check_result) for method in METHODS}
        return DatasetReport(
            dataset=dataset.id,
            rows=1000,
            columns=dict(self.columns),
            methods=dict.fromkeys(METHODS, ready) if dataset.id in self.ready else found,
        )


@dataclass
class FakeFirewall:
    """Flags the rows that it is told to."""

    flagged: tuple[int, ...] = ()
    denied: bool = False

    def check(
        self, dataset: DatasetRef, *, name: str, benchmarks: Sequence[BenchmarkRef], max_rows: int | None = None
    ) -> ContaminationReport:
        """The same report for any dataset."""
        return ContaminationReport(
            dataset=name,
            rows=1000,
            problems=1,
            benchmarks=tuple(f"{benchmark.name}/{benchmark.set}" for benchmark in benchmarks),
            hits=tuple(Hit(row=row, problem="p0", layer="ngram", evidence="a row's own text") for row in self.flagged),
            hit_counts={"ngram": len(self.flagged)},
            flagged=self.flagged,
            verdict="denied" if self.denied else "contaminated" if self.flagged else "clean",
            ignored={},
        )

    def clean(self, dataset: DatasetRef, report: ContaminationReport, *, max_rows: int | None = None) -> DatasetRef:
        """A made-up copy."""
        return DatasetRef(id=f"{dataset.id}-clean")


class FakeSearcher:
    """Halves the plan's learning rate with each set."""

    def propose(self, plan: Plan, past: Sequence[Trial]) -> Proposed:
        """The next set."""
        number = len(past) + 1
        config = plan.train.model_copy(update={"learning_rate": plan.train.learning_rate / 2 ** (number - 1)})
        return Proposed(number=number, config=config, why="half the learning rate", source="optuna")


class FakeLooks:
    """Counts looks in memory."""

    def __init__(self) -> None:
        self.taken: list[tuple[LookKey, str, str]] = []

    def take(self, model: ModelRef, benchmark: BenchmarkRef, *, project: str, candidate: str) -> Look:
        """The number of this look."""
        look = (look_key(model, benchmark), project, candidate)
        if look not in self.taken:
            self.taken.append(look)
        number = 1 + [taken for taken in self.taken if taken[0] == look[0]].index(look)
        return Look(number=number, alpha=alpha_of_look(number))


class FakeStore:
    """Models and datasets that are always there under their own id."""

    def prepare(self, ref: ModelRef | DatasetRef, **options: Any) -> str:
        """The id itself."""
        return ref.id

    def verify(self, made: str, *, sha256: str) -> None:
        """It is what its job wrote."""


def fake_outcomes(n: int, solved: float, *, salt: str = "") -> dict[str, float]:
    """`n` problems, of which the same `solved` share always passes: a problem that a lower share solves, a higher
    one solves too.
    """
    ranks = {f"p{i}": int(hashlib.sha256(f"{salt}{i}".encode()).hexdigest()[:8], 16) / 16**8 for i in range(n)}
    return {name: float(rank < solved) for name, rank in ranks.items()}
