"""The ports of a simulated night: jobs and metrics of a world on a fake clock, beside stores that have everything."""

from collections.abc import Sequence
from datetime import timedelta

from hfagent.agent.dataset_records import DatasetReport
from hfagent.agent.fakes import FakeChecker, FakeClock, FakeFirewall, FakeJobRunner, FakeLooks
from hfagent.agent.integrity import ContaminationReport
from hfagent.agent.ports import Ports, Searcher
from hfagent.agent.records import (
    DatasetRef,
    Job,
    MetricPoint,
    ModelRef,
)
from hfagent.agent.simulated_jobs import CLEAN, PLACE, SimulatedJobs
from hfagent.agent.simulator import World


class SimulatedRunner(FakeJobRunner):
    """Fake jobs that leave their checkpoints when they are cancelled."""

    name = "simulated"

    def __init__(self, clock: FakeClock, jobs: SimulatedJobs):
        super().__init__(clock, jobs.behave)
        self.simulated = jobs

    def inspect(self, job_id: str) -> Job:
        """The job at the clock's time."""
        job = super().inspect(job_id)
        if job.stage != "CANCELED" or job.running_s is None:
            return job
        result = self.simulated.canceled_result(job.key, job.running_s)
        return job if result is None else job.model_copy(update={"result": dict(result)})


class SimulatedTracker:
    """Rows appear as the clock moves, and no more after a job's end."""

    def __init__(self, clock: FakeClock, runner: SimulatedRunner):
        self._clock = clock
        self._runner = runner

    def points(self, project: str, run: str, *, after_step: int = -1) -> Sequence[MetricPoint]:
        """Rows logged until now."""
        jobs = self._runner.simulated
        key = jobs.tracked.get((project, run))
        job = None if key is None else self._runner.find(key)
        if key is None or job is None or job.started_at is None:
            return []
        elapsed = (job.finished_at or self._clock.now()) - job.started_at
        last = jobs.courses[key].last_step(elapsed / timedelta(seconds=1))
        return [point for point in jobs.courses[key].training.points if after_step < point.step <= last]

    def url(self, project: str, run: str) -> str:
        """A made-up address."""
        return f"{PLACE}trackio/{project}/{run}"


class SimulatedChecker(FakeChecker):
    """A dataset of the world's size, ready for every method."""

    def __init__(self, world: World):
        super().__init__()
        self._machine = world.scenario.machine

    def check(self, dataset: DatasetRef, *, model: ModelRef | None, max_length: int | None) -> DatasetReport:
        """The same report for any dataset."""
        report = super().check(dataset, model=model, max_length=max_length)
        tokens = self._machine.row_tokens
        lengths = {"p50": tokens, "p95": 2 * tokens, "max": 3 * tokens}
        return report.model_copy(update={"rows": self._machine.rows, "token_lengths": lengths})


class SimulatedModels:
    """Models that are there under their own id."""

    def prepare(self, model: ModelRef) -> str:
        """The id itself."""
        return model.id


class SimulatedDatasets:
    """Datasets that are there under their own id."""

    def prepare(self, dataset: DatasetRef, *, rows: int | None, seed: int) -> str:
        """The id itself."""
        return dataset.id

    def verify(self, made: str, *, sha256: str) -> None:
        """It is what its job wrote."""


class SimulatedFirewall(FakeFirewall):
    """Finds the rows that hold benchmark problems, where a scenario has any."""

    def __init__(self, world: World):
        super().__init__(flagged=tuple(range(world.scenario.machine.contaminated_rows)))

    def clean(self, dataset: DatasetRef, report: ContaminationReport, *, max_rows: int | None = None) -> DatasetRef:
        """A copy that trainings read as clean."""
        return DatasetRef(id=f"{dataset.id}{CLEAN}")


def simulated_ports(world: World, searcher: Searcher) -> tuple[Ports, SimulatedJobs]:
    """Everything that a night needs, and the truth about its jobs."""
    clock, jobs = FakeClock(), SimulatedJobs(world)
    runner = SimulatedRunner(clock, jobs)
    ports = Ports(
        runner=runner,
        tracker=SimulatedTracker(clock, runner),
        checker=SimulatedChecker(world),
        models=SimulatedModels(),
        datasets=SimulatedDatasets(),
        clock=clock,
        firewall=SimulatedFirewall(world),
        searcher=searcher,
        looks=FakeLooks(),
    )
    return ports, jobs
