"""A real Slurm and a real Ray of one node, where `scripts/slurm-here` and `scripts/ray-here` have started them."""

import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import ray_address, use_slurm
from process_night import SCRIPT, leave_result
from world import World, ended, make_plan, work

import hfagent
from hfagent.agent import ledger
from hfagent.agent.clock import SystemClock
from hfagent.agent.desk import Desk
from hfagent.agent.events import PlanConfirmed, PlanMade
from hfagent.agent.folding import fold
from hfagent.agent.records import Job, JobSpec
from hfagent.tools import slurm_commands
from hfagent.tools.cluster_jobs import ClusterJobRunner, Queue
from hfagent.tools.ray_jobs import RayQueue
from hfagent.tools.slurm_jobs import SlurmQueue, Wants

HERE = Path(__file__).parent
NUMBER, SLOTS = 20, 2
ONCE = (
    "import sys, time\nout = open(sys.argv[1], 'a')\nbegan = time.time()\ntime.sleep(0.3)\n"
    "out.write(f'{sys.argv[2]} {began} {time.time()}\\n')\nprint('RESULT {}')\n"
)
FOREVER = "import time\ntime.sleep(600)\n"


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> SlurmQueue:
    use_slurm(monkeypatch)
    return SlurmQueue(Wants())


@pytest.fixture
def ray() -> RayQueue:
    return RayQueue(ray_address())


def make_runner(queue: Queue, tmp_path: Path, script: str) -> ClusterJobRunner:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "job.py").write_text(script)
    return ClusterJobRunner(queue, tmp_path / "jobs", templates=tmp_path / "templates", poll_s=0.5, grace_s=1)


def make_spec(runner: ClusterJobRunner, tmp_path: Path, number: int = 1) -> JobSpec:
    return JobSpec(
        key=f"night-r{number}-a1", project="night", run=f"r{number}", kind="train", template="job.py",
        args=(str(tmp_path / "runs"), str(number)), flavor=runner.name, timeout_s=60, price_micro_usd_per_hour=0,
    )  # fmt: skip


def until(condition: Callable[[], object], *, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def ends_of(runner: ClusterJobRunner, jobs: Sequence[Job], within_s: float) -> list[Job]:
    deadline = time.monotonic() + within_s
    left = [job.id for job in jobs]
    while left and time.monotonic() < deadline:
        runner.wait(left, timeout_s=5)
        left = [job_id for job_id in left if not runner.inspect(job_id).ended]
    assert left == []
    return [runner.inspect(job.id) for job in jobs]


@pytest.mark.slow
def test_twenty_jobs_pass_through_two_slots_each_once(slurm: SlurmQueue, tmp_path: Path) -> None:
    runner = make_runner(slurm, tmp_path, ONCE)
    jobs = [runner.submit(make_spec(runner, tmp_path, number)) for number in range(NUMBER)]
    assert len(runner.jobs("night", ended=True)) == NUMBER
    ended = ends_of(runner, jobs, 120)
    assert {job.stage for job in ended} == {"COMPLETED"}
    rows = [line.split() for line in (tmp_path / "runs").read_text().splitlines()]
    assert sorted(int(row[0]) for row in rows) == list(range(NUMBER))
    changes = sorted([(float(row[1]), 1) for row in rows] + [(float(row[2]), -1) for row in rows])
    at_once = [sum(change for _, change in changes[: end + 1]) for end in range(len(changes))]
    assert max(at_once) == SLOTS


@pytest.mark.slow
def test_a_night_tries_sets_side_by_side_in_the_slots_that_slurm_has(slurm: SlurmQueue, tmp_path: Path) -> None:
    """The real loop, ledger and Slurm; what the jobs find is made up."""
    there, results = World(defaultdict(lambda: 0.3, baseline=0.1), falling=False), tmp_path / "results"
    runner = make_runner(slurm, tmp_path, ONCE)
    results.mkdir()
    for name in ("train_sft.py", "evaluate.py"):
        (tmp_path / "templates" / name).write_text(SCRIPT.format(seconds=2))
    submit = runner.submit

    def planned(spec: JobSpec) -> Job:
        leave_result(results, spec, there)
        return submit(spec)

    runner.submit = planned  # type: ignore[method-assign]
    ports = replace(there.ports, runner=runner, clock=SystemClock())
    with ledger.open_ledger(tmp_path / "night.jsonl", ports.clock) as book:
        plan = make_plan(backend="slurm", flavor="slurm", max_trials=4, max_jobs=SLOTS)
        book.append(PlanMade(plan=plan, versions={}))
        desk = Desk(book, ports)
        desk.append(PlanConfirmed(by="--yes"))
        state = work(desk)
    assert (ended(state), len(state.trials)) == ("finished", 4)
    assert {path.parent.name: path.read_text().split() for path in (tmp_path / "jobs").glob("*/starts")} == {
        attempt.job.key: ["started"] for run in state.runs.values() for attempt in run.attempts
    }
    spans = [(a.started_at, a.finished_at) for run in state.trained for a in run.attempts]
    assert any(a[0] < b[0] < a[1] for a in spans for b in spans if None not in (*a, *b))  # type: ignore[operator]


@pytest.mark.slow
def test_every_key_runs_once_on_slurm_whenever_the_launcher_is_killed(slurm: SlurmQueue, tmp_path: Path) -> None:
    draw, kills, path = random.Random(1), 0, tmp_path / "n.jsonl"
    make_runner(slurm, tmp_path, ONCE)
    script = ONCE.replace("sys.argv[1]", repr(str(tmp_path / "runs"))).replace("sys.argv[2]", "sys.argv[-1]")
    (tmp_path / "templates" / "evaluate.py").write_text(script)
    folders = (Path(hfagent.__file__).parent.parent, HERE, HERE.parent)
    env = os.environ | {"PYTHONPATH": ":".join(map(str, folders))}
    place = f"slurm:{tmp_path}"
    command = [sys.executable, str(HERE / "launcher.py"), str(path), "1", str(NUMBER), "1", place]
    for _ in range(100):
        with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as process:
            try:
                assert process.wait(timeout=draw.uniform(1.5, 5.0)) == 0
                break
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
    state = fold(ledger.read(path))
    assert state is not None
    assert kills > 0
    ran = [line.split()[0] for line in (tmp_path / "runs").read_text().splitlines()]
    assert sorted(ran) == sorted(str(tmp_path / "jobs" / f"night-r{n}-a1" / "out") for n in range(1, NUMBER + 1))
    assert {run.last.stage for run in state.runs.values()} == {"COMPLETED"}


def test_slurm_shows_the_key_and_the_folder_and_requeues_nothing(slurm: SlurmQueue, tmp_path: Path) -> None:
    runner = make_runner(slurm, tmp_path, FOREVER)
    job = runner.submit(make_spec(runner, tmp_path))
    shown = slurm_commands.ask(["scontrol", "show", "job", slurm.entries(tmp_path / "jobs")[job.key].number])
    folder = tmp_path / "jobs" / job.key
    for text in (f"JobName={job.key}", f"Comment=hfagent:{folder}", "Requeue=0", "TimeLimit=00:03"):
        assert text in shown
    runner.cancel(job.id)
    assert ends_of(runner, [job], 20)[0].stage == "CANCELED"


def test_a_job_that_a_person_cancels_in_slurm_is_cancelled(slurm: SlurmQueue, tmp_path: Path) -> None:
    runner = make_runner(slurm, tmp_path, FOREVER)
    job = runner.submit(make_spec(runner, tmp_path))
    until(lambda: runner.inspect(job.id).stage == "RUNNING")
    slurm_commands.call(["scancel", slurm.entries(tmp_path / "jobs")[job.key].number])
    ended = ends_of(runner, [job], 40)[0]
    assert (ended.stage, ended.message) == ("CANCELED", "canceled in Slurm")


def test_slurm_refuses_what_it_does_not_have(slurm: SlurmQueue, tmp_path: Path) -> None:
    assert slurm.trial().code == 0
    assert SlurmQueue(Wants(gres="gpu:99")).trial().code != 0


@pytest.fixture
def held(ray: RayQueue, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Both slots of Ray are taken until this is called."""
    (tmp_path / "holding").mkdir()
    runner = make_runner(RayQueue(ray.address, cpus=SLOTS), tmp_path / "holding", FOREVER)
    job = runner.submit(make_spec(runner, tmp_path))
    until(lambda: runner.inspect(job.id).stage == "RUNNING")
    yield lambda: runner.cancel(job.id)
    runner.cancel(job.id)


def ran(tmp_path: Path) -> list[int]:
    return sorted(int(line.split()[0]) for line in (tmp_path / "runs").read_text().splitlines())


def test_ray_takes_a_name_once_and_never_begins_what_was_cancelled_while_it_waited(
    ray: RayQueue, tmp_path: Path, held: Callable[[], None]
) -> None:
    runner = make_runner(ray, tmp_path, ONCE)
    cancelled = runner.submit(make_spec(runner, tmp_path, 1))
    after = runner.submit(make_spec(runner, tmp_path, 2))
    runner.cancel(cancelled.id)
    assert runner.inspect(cancelled.id).stage == "CANCELED"
    runner._enqueue(tmp_path / "jobs" / after.key, ["true"], 60)  # as by a second process that saw no job yet
    held()
    assert [job.stage for job in ends_of(runner, [after], 60)] == ["COMPLETED"]
    assert ran(tmp_path) == [2]


@pytest.mark.slow
def test_a_job_that_waits_longer_than_ray_lets_it_is_queued_again(
    ray: RayQueue, tmp_path: Path, held: Callable[[], None]
) -> None:
    limit_s = float(os.environ.get("RAY_JOB_START_TIMEOUT_SECONDS", "900"))
    if limit_s > 30:
        pytest.skip(f"this Ray gives a waiting job up after {limit_s:.0f} s only")
    runner = make_runner(ray, tmp_path, ONCE)
    job = runner.submit(make_spec(runner, tmp_path))
    said = set()
    until(lambda: said.add(runner.inspect(job.id).message) or len(said) > 1, within_s=3 * limit_s)
    assert any((message or "").startswith("queued again") for message in said)
    held()
    assert [ended.stage for ended in ends_of(runner, [job], 60)] == ["COMPLETED"]
    assert ran(tmp_path) == [1]
