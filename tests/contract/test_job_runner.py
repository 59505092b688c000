"""What every JobRunner promises, whatever it runs jobs on.

A factory takes a scratch folder and gives a runner for which the scripts of `SCRIPTS` do what they say.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from tests.clusters import ray_address, use_slurm
from tests.emulator.jobs import Jobs
from tests.emulator.server import Emulator

import hfagent
from hfagent.agent.errors import JobError
from hfagent.agent.ports import JobRunner
from hfagent.agent.records import Job, JobSpec
from hfagent.tools.cluster_jobs import ClusterJobRunner, Queue
from hfagent.tools.hf_jobs import HfJobRunner
from hfagent.tools.hub_calls import api
from hfagent.tools.job_bucket import JobBucket
from hfagent.tools.local_jobs import LocalJobRunner
from hfagent.tools.ray_jobs import RayQueue
from hfagent.tools.slurm_jobs import SlurmQueue, Wants

SCRIPTS = {
    "succeed.py": 'print("one")\nprint("two")\nprint(\'RESULT {"loss": 0.5}\')\n',
    "fail.py": 'print("no such column")\nraise SystemExit(3)\n',
    "forget_result.py": 'print("done")\n',
    "never_end.py": "import time\ntime.sleep(600)\n",
    "leave_rows.py": """import json, pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--output-dir") + 1]).resolve() / "data"
(folder / "more").mkdir(parents=True)
(folder / "train.jsonl").write_text("one")
(folder / "more" / "empty.txt").touch()
print("RESULT " + json.dumps({"dataset": str(folder)}))
""",
}


@contextmanager
def hf(folder: Path) -> Iterator[JobRunner]:
    """Against the emulator, with a package of these scripts alone."""
    package = folder / "hfagent"
    (package / "job_templates").mkdir(parents=True)
    for name in ("__init__.py", "job_templates/remote.py", "job_templates/runtime.py"):
        shutil.copy(Path(hfagent.__file__).parent / name, package / name)
    for name, text in SCRIPTS.items():
        (package / "job_templates" / name).write_text(text)
    jobs = Jobs()
    with Emulator(folder / "hub", extra=jobs.routes) as emulator:
        client = api(emulator.endpoint, emulator.hub.add_user("ada"))
        bucket = JobBucket(client, "ada/hfagent", mount=str(emulator.hub.bucket_folder("ada", "hfagent")))
        yield HfJobRunner(client, "ada", bucket, environment={}, secrets={}, copies=folder / "copies", poll_s=0.1,
                          settle_s=0.0, package=package)  # fmt: skip
        jobs.close()


@contextmanager
def local(folder: Path) -> Iterator[JobRunner]:
    templates = folder / "templates"
    templates.mkdir()
    for name, text in SCRIPTS.items():
        (templates / name).write_text(text)
    yield LocalJobRunner(folder / "jobs", templates=templates, grace_s=2)


@contextmanager
def on_cluster(folder: Path, queue: Queue) -> Iterator[JobRunner]:
    templates = folder / "templates"
    templates.mkdir()
    for name, text in SCRIPTS.items():
        (templates / name).write_text(text)
    yield ClusterJobRunner(queue, folder / "jobs", templates=templates, poll_s=0.2, grace_s=2)


@contextmanager
def slurm(folder: Path) -> Iterator[JobRunner]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_slurm(monkeypatch)
        with on_cluster(folder, SlurmQueue(Wants())) as runner:
            yield runner


@contextmanager
def ray(folder: Path) -> Iterator[JobRunner]:
    with on_cluster(folder, RayQueue(ray_address())) as runner:
        yield runner


FACTORIES: dict[str, Callable[[Path], AbstractContextManager[JobRunner]]] = {
    "local": local,
    "hf": hf,
    "slurm": slurm,
    "ray": ray,
}


@pytest.fixture(params=FACTORIES)
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobRunner]:
    with FACTORIES[request.param](tmp_path) as made:
        yield made


def spec(runner: JobRunner, template: str, *, key: str = "night-r1-a1", timeout_s: int = 60) -> JobSpec:
    return JobSpec(
        key=key,
        project="night",
        run="r1",
        kind="train",
        template=template,
        args=(),
        flavor="cpu-basic" if runner.name == "hf" else runner.name,
        timeout_s=timeout_s,
        price_micro_usd_per_hour=0,
    )


def end_of(runner: JobRunner, job: Job) -> Job:
    for _ in range(10):
        runner.wait([job.id], timeout_s=10)
        if (now := runner.inspect(job.id)).ended:
            return now
    raise AssertionError(f"still {now.stage}")


def test_a_job_that_succeeds_carries_its_result_and_its_times(runner: JobRunner) -> None:
    job = end_of(runner, runner.submit(spec(runner, "succeed.py")))
    assert (job.stage, job.result, job.message) == ("COMPLETED", {"loss": 0.5}, None)
    assert job.exit_code in (0, None)
    assert job.created_at is not None
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.created_at <= job.started_at <= job.finished_at


def test_a_job_that_fails_says_so_and_keeps_its_log(runner: JobRunner) -> None:
    job = end_of(runner, runner.submit(spec(runner, "fail.py")))
    assert (job.stage, job.result) == ("ERROR", None)
    assert job.exit_code in (3, None)
    assert job.message
    assert "no such column" in runner.logs(job.id)


def test_success_without_a_result_line_is_an_error(runner: JobRunner) -> None:
    job = end_of(runner, runner.submit(spec(runner, "forget_result.py")))
    assert (job.stage, job.message) == ("ERROR", "ended without a RESULT line")


def test_a_job_past_its_time_limit_is_ended(runner: JobRunner) -> None:
    job = end_of(runner, runner.submit(spec(runner, "never_end.py", timeout_s=1)))
    assert (job.stage, job.message) == ("ERROR", "Job timeout")


def test_a_canceled_job_ends_and_may_be_canceled_again(runner: JobRunner) -> None:
    job = runner.submit(spec(runner, "never_end.py"))
    assert not job.ended
    runner.cancel(job.id)
    assert end_of(runner, job).stage == "CANCELED"
    runner.cancel(job.id)
    assert runner.inspect(job.id).stage == "CANCELED"


def test_cancel_leaves_a_job_that_has_ended(runner: JobRunner) -> None:
    job = end_of(runner, runner.submit(spec(runner, "succeed.py")))
    runner.cancel(job.id)
    assert runner.inspect(job.id) == job


def test_a_key_starts_one_job(runner: JobRunner) -> None:
    first = runner.submit(spec(runner, "succeed.py"))
    again = runner.submit(spec(runner, "succeed.py"))
    ended = end_of(runner, first)
    assert (first.id, first.created_at) == (again.id, again.created_at)
    assert runner.submit(spec(runner, "succeed.py")) == runner.find("night-r1-a1") == ended
    assert list(runner.logs(first.id)).count("one") == 1


def test_a_key_is_not_given_to_another_spec(runner: JobRunner) -> None:
    job = runner.submit(spec(runner, "succeed.py"))
    with pytest.raises(JobError, match="night-r1-a1"):
        runner.submit(spec(runner, "fail.py"))
    assert end_of(runner, job).stage == "COMPLETED"


def test_an_unknown_job_is_none_by_key_and_an_error_by_id(runner: JobRunner) -> None:
    id_of_another = runner.submit(spec(runner, "succeed.py")).id
    assert runner.find("night-r2-a1") is None
    unknown = id_of_another.replace("night-r1-a1", "") + "x"
    for ask in (runner.inspect, runner.cancel, runner.logs):
        with pytest.raises(JobError, match=unknown):
            ask(unknown)


def test_logs_are_the_last_lines_oldest_first(runner: JobRunner) -> None:
    job = end_of(runner, runner.submit(spec(runner, "succeed.py")))
    assert list(runner.logs(job.id)) == ["one", "two", 'RESULT {"loss": 0.5}']
    assert list(runner.logs(job.id, tail=2)) == ["two", 'RESULT {"loss": 0.5}']
    assert list(runner.logs(job.id, tail=0)) == []


def test_what_a_job_has_left_can_be_read_here_and_read_again(runner: JobRunner) -> None:
    job = end_of(runner, runner.submit(spec(runner, "leave_rows.py")))
    assert job.result is not None
    for _ in range(2):
        folder = runner.fetch(job.result["dataset"])
        found = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.*")}
        assert found == {"train.jsonl": "one", "more/empty.txt": ""}
    assert runner.fetch(job.result["dataset"] + "/train.jsonl").read_text() == "one"


def test_what_a_job_has_not_left_is_an_error(runner: JobRunner) -> None:
    job = end_of(runner, runner.submit(spec(runner, "leave_rows.py")))
    assert job.result is not None
    for missing in (job.result["dataset"] + "x", "/nowhere/else"):
        with pytest.raises(JobError, match=missing):
            runner.fetch(missing)


def test_wait_returns_at_the_first_end(runner: JobRunner) -> None:
    long = runner.submit(spec(runner, "never_end.py", key="long"))
    short = runner.submit(spec(runner, "succeed.py", key="short"))
    began = time.monotonic()
    runner.wait([long.id, short.id], timeout_s=60)
    assert time.monotonic() - began < 30
    assert [runner.inspect(job.id).ended for job in (long, short)] == [False, True]
    runner.cancel(long.id)
    end_of(runner, long)


def test_wait_gives_up_after_its_time(runner: JobRunner) -> None:
    job = runner.submit(spec(runner, "never_end.py"))
    runner.wait([job.id], timeout_s=0.2)
    assert not runner.inspect(job.id).ended
    runner.cancel(job.id)
    end_of(runner, job)
