"""Jobs on hf as their runner sees them, where the service answers late, oddly or not at all."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.emulator.jobs import Behavior, Jobs
from tests.emulator.server import Emulator

from hfagent.agent.errors import AccountRefused, BackendAway, JobError, NoRoom, NothingSent
from hfagent.agent.records import Job, JobSpec
from hfagent.job_templates.remote import ARGS
from hfagent.tools.hf_jobs import HfJobRunner
from hfagent.tools.hub_calls import api
from hfagent.tools.job_bucket import JobBucket
from hfagent.tools.job_log import last_lines

LEAVE = """
import pathlib, time
time.sleep({after_s})
home = pathlib.Path({home!r}); home.mkdir(parents=True, exist_ok=True)
(home / "result.json").write_text('{{"number": {number}}}')
(home / "exit.json").write_text('{{"exit_code": {code}}}')
"""


@dataclass
class Place:
    """The emulator and what is told of it."""

    hub: Emulator
    jobs: Jobs
    token: str
    package: Path

    @property
    def folder(self) -> Path:
        return self.hub.hub.bucket_folder("ada", "hfagent")

    @property
    def copies(self) -> Path:
        return self.hub.hub.root.parent / "copies"

    def runner(self, *, settle_s: float = 0.0, poll_s: float = 0.05) -> HfJobRunner:
        client = api(self.hub.endpoint, self.token)
        bucket = JobBucket(client, "ada/hfagent", mount=str(self.folder))
        return HfJobRunner(
            client, "ada", bucket, environment={}, secrets={}, copies=self.copies,
            poll_s=poll_s, settle_s=settle_s, package=self.package,
        )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    package = tmp_path / "hfagent"
    (package / "job_templates").mkdir(parents=True)
    (package / "job_templates" / "evaluate.py").touch()
    jobs = Jobs(lambda body: Behavior(idle_s=60))
    with Emulator(tmp_path / "hub", extra=jobs.routes) as hub:
        yield Place(hub, jobs, hub.hub.add_user("ada"), package)
        jobs.close()


def spec(*args: str, key: str = "night-r1-a1") -> JobSpec:
    return JobSpec(
        key=key, project="night", run="r1", kind="evaluate", template="evaluate.py", args=args, flavor="cpu-basic",
        timeout_s=60, price_micro_usd_per_hour=0,
    )  # fmt: skip


def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def end_of(runner: HfJobRunner, job: Job) -> Job:
    until(lambda: runner.inspect(job.id).ended)
    return runner.inspect(job.id)


def test_a_cancel_that_comes_too_late_is_none(place: Place) -> None:
    runner = place.runner(poll_s=1.5)
    job = runner.submit(spec())
    until(lambda: runner.inspect(job.id).stage == "RUNNING")
    late = place.hub.faults.plan(path="/cancel$", method="POST", status=409, when="after", body={"error": "has ended"})
    place.jobs.all[0].canceled.set()
    place.jobs.all[0].over.wait(5)
    runner.cancel(job.id)  # by the list of a moment ago it runs
    assert late.hits == 1
    assert end_of(runner, job).stage == "CANCELED"


def test_a_cancel_that_is_refused_is_an_error(place: Place) -> None:
    runner = place.runner()
    job = runner.submit(spec())
    place.hub.faults.plan(path="/cancel$", method="POST", status=409, body={"error": "not now"})
    with pytest.raises(JobError, match="not now"):
        runner.cancel(job.id)


def leaving(number: int, *, code: int = 0, after_s: float = 0.0) -> Callable[[Mapping[str, Any]], Behavior]:
    def behave(body: Mapping[str, Any]) -> Behavior:
        home = body["command"][-2]
        return Behavior(script=LEAVE.format(home=home, number=number, code=code, after_s=after_s) + f"\nexit({code})")

    return behave


@pytest.mark.parametrize(("code", "stage"), [(0, "COMPLETED"), (3, "ERROR")])
def test_files_that_a_job_wrote_last_may_come_after_its_end(place: Place, code: int, stage: str) -> None:
    place.jobs.behave = leaving(7, code=code)
    runner = place.runner(settle_s=5.0)
    job = runner.submit(spec())
    until(lambda: place.jobs.all[0].stage == stage)
    home = Path(place.jobs.all[0].body["command"][-2])
    late = home.rename(home.with_name("late"))
    for _ in range(3):
        assert runner.inspect(job.id).stage == "RUNNING"
    late.rename(home)
    ended = end_of(runner, job)
    assert (ended.stage, ended.exit_code, ended.result) == (stage, code, {"number": 7})


def test_two_jobs_of_a_key_leave_their_files_apart(place: Place) -> None:
    runner = place.runner()
    place.hub.faults.plan(path="/api/jobs/ada$", method="POST", when="after")
    place.jobs.behave = lambda body: Behavior(
        script=leaving(len(place.jobs.all))(body).script, hidden_s=0.0 if place.jobs.all else 2.0
    )
    with pytest.raises(BackendAway):
        runner.submit(spec())
    second = end_of(runner, runner.submit(spec()))
    until(lambda: len(runner.jobs("night", ended=True)) == 2)
    assert second.result == {"number": 1}
    assert sorted(job.result["number"] for job in runner.jobs("night", ended=True) if job.result) == [0, 1]


def test_what_cannot_be_fetched_is_said(place: Place) -> None:
    runner, left = place.runner(), place.folder / "jobs" / "k" / "0" / "out" / "data"
    runner.submit(spec())
    left.mkdir(parents=True)
    (left / "train.jsonl").write_text("{}")
    assert (runner.fetch(str(left)) / "train.jsonl").read_text() == "{}"
    inside = [f"{place.folder}/{path}" for path in ("../other", "jobs/k/1", "jobs", "jobs/k", "jobs/k/0", "data")]
    for path in ("/etc", *inside):
        with pytest.raises(JobError, match="there is no"):
            runner.fetch(path)
    shutil.rmtree(place.copies)
    place.copies.touch()
    with pytest.raises(NoRoom, match="make room"):
        runner.fetch(str(left))


@dataclass(frozen=True)
class Entry:
    path: str
    size: int = 2
    type: str = "file"


@dataclass(frozen=True)
class Listing:
    """A bucket in which these files are listed, and of which none can be downloaded."""

    entries: list[Entry]

    def create_bucket(self, *_: object, **__: object) -> None:
        """It is there."""

    def get_bucket_paths_info(self, *_: object) -> list[Entry]:
        return []

    def list_bucket_tree(self, *_: object, **__: object) -> list[Entry]:
        return self.entries


@pytest.mark.parametrize(
    ("entry", "error", "said"),
    [
        (Entry("jobs/k/0/out/../../../../../evil"), JobError, "would lie outside its folder"),
        (Entry("jobs/k/0/out/rows.jsonl", size=1 << 60), NoRoom, "are free"),
    ],
)
def test_a_bucket_s_files_neither_leave_their_folder_nor_fill_the_disk(
    entry: Entry, error: type[Exception], said: str, tmp_path: Path
) -> None:
    bucket = JobBucket(Listing([entry]), "ada/hfagent")
    with pytest.raises(error, match=said):
        bucket.copy(bucket.path("jobs", "k", "0", "out"), tmp_path / "copies")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_a_job_left_is_no_file_of_this_machine(place: Place, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    adapter = place.folder / "jobs" / "night-sft-01-a1" / "0" / "out" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    place.runner().submit(spec("--dataset", str(rows), "--adapter", str(adapter)))
    args = json.loads(place.jobs.all[0].body["environment"][ARGS])
    assert args[3] == str(adapter)
    assert args[1].startswith(f"{place.folder}/data/")


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [("/api/buckets", 503, NothingSent), ("/api/jobs/ada$", 429, NothingSent), ("/api/jobs/ada$", 401, AccountRefused)],
)
def test_it_is_told_where_nothing_was_sent(place: Place, path: str, status: int, error: type[JobError]) -> None:
    place.hub.faults.plan(path=path, method="POST", times=9, status=status, headers={"retry-after": "0"})
    with pytest.raises(error):
        place.runner().submit(spec())
    assert place.jobs.all == []


def test_an_answer_to_a_submit_that_is_none_leaves_open_whether_there_is_a_job(place: Place) -> None:
    place.hub.faults.plan(path="/api/jobs/ada$", method="POST", when="after", status=200, body="<html>")
    runner = place.runner()
    with pytest.raises(BackendAway) as raised:
        runner.submit(spec())
    assert not isinstance(raised.value, NothingSent)
    assert runner.find("night-r1-a1") is not None


def test_waiting_for_a_job_that_is_not_known_yet_stops_nobody(place: Place) -> None:
    runner = place.runner()
    job = runner.submit(spec())
    place.hub.faults.plan(path=f"{job.id}$|ada$", method="GET", times=9, status=404)
    runner.wait([job.id], timeout_s=5)


def test_a_local_file_with_the_name_of_a_module_is_not_taken_for_it(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evaluate").write_text("notes")
    monkeypatch.chdir(tmp_path)
    place.runner().submit(spec())
    assert place.jobs.all[0].body["command"][-1] == "hfagent.job_templates.evaluate"
    assert len(place.jobs.all[0].body["volumes"]) == 1


def test_the_log_of_a_quiet_job_holds_nobody_up(place: Place) -> None:
    place.jobs.behave = lambda body: Behavior(script="import time\nprint('here', flush=True)\ntime.sleep(60)")
    runner = place.runner()
    job = runner.submit(spec())
    until(lambda: place.jobs.all[0].lines)
    begun = time.monotonic()
    assert list(runner.logs(job.id, tail=5)) == ["here"]
    assert time.monotonic() - begun < 4


def test_a_job_that_ends_in_the_queue_costs_nothing(place: Place) -> None:
    place.jobs.behave = lambda body: Behavior(stuck=True)
    runner = place.runner()
    job = runner.submit(spec())
    runner.cancel(job.id)
    ended = end_of(runner, job)
    assert (ended.stage, ended.running_s) == ("CANCELED", 0)


def test_a_log_without_end_is_read_for_a_bounded_time_in_bounded_memory() -> None:
    asked = 0

    def endless() -> Iterator[str]:
        nonlocal asked
        while True:
            asked += 1
            yield f"line {asked}"

    before, begun = threading.active_count(), time.monotonic()
    found = last_lines(endless, 5, wait_s=0.3)
    assert time.monotonic() - begun < 2
    assert len(found) == 5
    until(lambda: threading.active_count() == before)
