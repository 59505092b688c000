"""Jobs on Ray: what its client answers, forgets or claims falsely runs nothing twice and loses nothing."""

import subprocess
import time
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from hfagent.agent.errors import AccountRefused, BackendAway, JobError, NothingSent
from hfagent.agent.records import JobSpec
from hfagent.tools.cluster_jobs import ClusterJobRunner
from hfagent.tools.ray_jobs import RayQueue, submission_id

ONCE = "import sys\nopen(sys.argv[1], 'a').write('run\\n')\nprint('RESULT {}')\n"
GAVE_UP = (
    "Job supervisor actor failed to start within 900.0 seconds. This timeout can be configured by setting the "
    "environment variable RAY_JOB_START_TIMEOUT_SECONDS."
)


class Status(Enum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass
class Details:
    submission_id: str
    metadata: dict[str, str]
    entrypoint: str
    status: Status = Status.PENDING
    message: str | None = None
    driver_exit_code: int | None = None
    needs: dict[str, Any] = field(default_factory=dict)


class Client:
    """Ray's JobSubmissionClient as it behaves, over a list."""

    def __init__(self) -> None:
        self.listed: list[Details] = []
        self.submits = 0
        self.fault: Exception | None = None
        self.lost_answer: Exception | None = None

    def submit_job(self, *, entrypoint: str, submission_id: str, metadata: dict[str, str], **needs: Any) -> str:
        self._fail()
        if any(job.submission_id == submission_id for job in self.listed):
            raise RuntimeError(
                f"Request failed with status code 500: Traceback\nValueError: Job with submission_id {submission_id} "
                "already exists. Please use a different submission_id."
            )
        self.submits += 1
        self.listed.append(Details(submission_id, metadata, entrypoint, needs=needs))
        if self.lost_answer is not None:
            raise self.lost_answer
        return submission_id

    def list_jobs(self) -> list[Details]:
        self._fail()
        return list(self.listed)

    def stop_job(self, name: str) -> bool:
        """True also for a job that waits, on which it has no effect."""
        self._fail()
        for job in self.listed:
            if job.submission_id == name and job.status is Status.RUNNING:
                job.status = Status.STOPPED
        return True

    def delete_job(self, name: str) -> bool:
        self._fail()
        assert all(job.status.value not in ("PENDING", "RUNNING") for job in self.listed if job.submission_id == name)
        self.listed = [job for job in self.listed if job.submission_id != name]
        return True

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault

    def start(self) -> int:
        """Run the newest job's entrypoint."""
        job = self.listed[-1]
        job.status = Status.RUNNING
        code = subprocess.run(job.entrypoint, shell=True, check=False).returncode
        job.status, job.driver_exit_code = (Status.FAILED if code else Status.SUCCEEDED), code
        return code


@pytest.fixture
def ray() -> Client:
    return Client()


@pytest.fixture
def runner(ray: Client, tmp_path: Path) -> ClusterJobRunner:
    (tmp_path / "templates").mkdir()
    queue = RayQueue("http://ray.test", gpus=1, client=lambda address: ray)
    return ClusterJobRunner(
        queue, tmp_path / "jobs", templates=tmp_path / "templates", poll_s=0.01, grace_s=1, late_s=0.0, lost_s=0.0
    )


def make_spec(tmp_path: Path, script: str = ONCE) -> JobSpec:
    (tmp_path / "templates" / "job.py").write_text(script)
    return JobSpec(
        key="night-r1-a1", project="night", run="r1", kind="train", template="job.py", args=(str(tmp_path / "runs"),),
        flavor="ray", timeout_s=60, price_micro_usd_per_hour=0,
    )  # fmt: skip


def runs(tmp_path: Path) -> int:
    path = tmp_path / "runs"
    return path.read_text().count("run") if path.exists() else 0


def test_a_job_waits_runs_and_ends(runner: ClusterJobRunner, ray: Client, tmp_path: Path) -> None:
    job = runner.submit(make_spec(tmp_path))
    assert job.stage == "SCHEDULING"
    assert ray.listed[0].needs == {"entrypoint_num_cpus": 1, "entrypoint_num_gpus": 1}
    assert ray.start() == 0
    assert runner.inspect(job.id).stage == "COMPLETED"


def test_a_second_submit_of_a_key_is_refused_by_ray_and_adopted(
    runner: ClusterJobRunner, ray: Client, tmp_path: Path
) -> None:
    import requests

    ray.fault = ConnectionError("Failed to connect")
    with pytest.raises(NothingSent, match=r"ray\.test"):
        runner.submit(make_spec(tmp_path))
    ray.fault, ray.lost_answer = None, requests.ConnectionError("no answer")
    with pytest.raises(BackendAway, match=r"ray\.test") as raised:
        runner.submit(make_spec(tmp_path))
    assert type(raised.value) is BackendAway
    start = runner._home.folder("night-r1-a1")
    assert start is not None
    runner._enqueue(start, ["true"], 60)  # as by a second process that looked before the first submit arrived
    assert ray.submits == 1
    found = runner.find("night-r1-a1")
    assert found is not None
    assert found.stage == "SCHEDULING"


def test_a_waiting_job_that_is_cancelled_never_begins_though_ray_starts_it(
    runner: ClusterJobRunner, ray: Client, tmp_path: Path
) -> None:
    job = runner.submit(make_spec(tmp_path))
    runner.cancel(job.id)
    assert runner.inspect(job.id).stage == "CANCELED"
    assert ray.start() == 0
    assert runs(tmp_path) == 0
    assert runner.inspect(job.id).stage == "CANCELED"


def test_a_job_that_waited_too_long_for_ray_is_queued_again(
    runner: ClusterJobRunner, ray: Client, tmp_path: Path
) -> None:
    job = runner.submit(make_spec(tmp_path))
    ray.listed[0].status, ray.listed[0].message = Status.FAILED, GAVE_UP
    again = runner.inspect(job.id)
    assert (again.stage, again.message) == ("SCHEDULING", "queued again: Ray gave up waiting for resources")
    assert (ray.submits, len(ray.listed)) == (2, 1)
    ray.start()
    assert runner.inspect(job.id).stage == "COMPLETED"
    assert runs(tmp_path) == 1


def test_a_cancelled_job_is_not_queued_again(runner: ClusterJobRunner, ray: Client, tmp_path: Path) -> None:
    job = runner.submit(make_spec(tmp_path))
    runner.cancel(job.id)
    ray.listed[0].status, ray.listed[0].message = Status.FAILED, GAVE_UP
    assert runner.inspect(job.id).stage == "CANCELED"
    assert ray.submits == 1


@pytest.mark.parametrize(
    ("status", "message", "exit_code", "expected"),
    [
        (Status.FAILED, "runtime env failed", None, ("ERROR", None, "lost: Ray calls it FAILED")),
        (Status.FAILED, "exit code 127", 127, ("ERROR", 127, "exit code 127 before the script began")),
        (Status.STOPPED, None, None, ("CANCELED", None, "stopped in Ray")),
    ],
)
def test_ends_of_a_job_that_never_began(
    runner: ClusterJobRunner, ray: Client, tmp_path: Path,
    status: Status, message: str | None, exit_code: int | None, expected: tuple[str, int | None, str],
) -> None:  # fmt: skip
    job = runner.submit(make_spec(tmp_path))
    found = ray.listed[0]
    found.status, found.message, found.driver_exit_code = status, message, exit_code
    ended = runner.inspect(job.id)
    assert (ended.stage, ended.exit_code) == expected[:2]
    assert (ended.message or "").startswith(expected[2])


def test_a_restarted_head_forgets_its_jobs_and_none_runs_twice(
    runner: ClusterJobRunner, ray: Client, tmp_path: Path
) -> None:
    job = runner.submit(make_spec(tmp_path))
    ray.start()
    entrypoint = ray.listed[0].entrypoint
    ray.listed.clear()
    assert runner.inspect(job.id).stage == "COMPLETED"
    assert subprocess.run(entrypoint, shell=True, check=False).returncode == 0
    assert runs(tmp_path) == 1


def test_a_job_of_the_same_key_in_another_folder_is_another(tmp_path: Path) -> None:
    assert submission_id(tmp_path / "a" / "night-r1-a1") != submission_id(tmp_path / "b" / "night-r1-a1")


def test_errors_of_the_client_are_those_of_a_runner(runner: ClusterJobRunner, ray: Client, tmp_path: Path) -> None:
    import requests

    class AuthenticationError(RuntimeError):
        pass

    job = runner.submit(make_spec(tmp_path))
    cases: list[tuple[Exception, type[JobError]]] = [
        (ConnectionError("Failed to connect to Ray at address: http://ray.test."), BackendAway),
        (requests.Timeout("timed out"), BackendAway),
        (RuntimeError("Request failed with status code 500: GCS is away"), BackendAway),
        (RuntimeError("Request failed with status code 400: bad"), JobError),
        (AuthenticationError("no token"), AccountRefused),
    ]
    for fault, expected in cases:
        ray.fault = fault
        time.sleep(0.02)
        with pytest.raises(JobError) as raised:
            runner.inspect(job.id)
        assert type(raised.value) is expected
