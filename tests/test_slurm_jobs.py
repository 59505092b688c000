"""Jobs on Slurm: nothing runs twice and nothing is lost, whatever Slurm answers, forgets or gives away again."""

import json
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_slurm import AWAY, FakeSlurm

from hfagent.agent.errors import AccountRefused, BackendAway, HfagentError, JobError, NoRoom, NothingSent, SettingsError
from hfagent.agent.records import Job, JobSpec
from hfagent.tools import cluster_folder, slurm_commands, slurm_states
from hfagent.tools.cluster_jobs import ClusterJobRunner
from hfagent.tools.job_processes import marked
from hfagent.tools.slurm_jobs import SlurmQueue, Wants

ONCE = "import os, sys\nopen(sys.argv[1], 'a').write('run\\n')\nprint('RESULT {\"loss\": 0.5}')\n"
FOREVER = "import time\ntime.sleep(600)\n"
TELL = (
    "import json, os, sys\nnames = ('HF_TOKEN', 'OPENAI_API_KEY', 'SLURM_JWT', "
    "'CUDA_VISIBLE_DEVICES', 'SLURM_JOB_ID')\n"
    "print('RESULT ' + json.dumps({name: os.environ.get(name) for name in names} | {'cwd': os.getcwd()}))\n"
)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "slurm")
    fake.install()
    monkeypatch.setenv("PATH", f"{fake.bin}:{os.environ['PATH']}")
    return fake


@pytest.fixture
def runner(slurm: FakeSlurm, tmp_path: Path) -> ClusterJobRunner:
    return make_runner(tmp_path)


def make_runner(
    tmp_path: Path, wants: Wants | None = None, *, late_s: float = 0.0, lost_s: float = 0.0
) -> ClusterJobRunner:
    (tmp_path / "templates").mkdir(exist_ok=True)
    return ClusterJobRunner(
        SlurmQueue(wants or Wants()), tmp_path / "jobs", templates=tmp_path / "templates",
        poll_s=0.01, grace_s=1, late_s=late_s, lost_s=lost_s,
    )  # fmt: skip


def make_spec(tmp_path: Path, script: str = ONCE, *, key: str = "night-r1-a1", timeout_s: int = 60) -> JobSpec:
    (tmp_path / "templates" / "job.py").write_text(script)
    return JobSpec(
        key=key, project="night", run="r1", kind="train", template="job.py", args=(str(tmp_path / "runs"),),
        flavor="slurm", timeout_s=timeout_s, price_micro_usd_per_hour=0,
    )  # fmt: skip


def runs(tmp_path: Path) -> int:
    path = tmp_path / "runs"
    return path.read_text().count("run") if path.exists() else 0


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def told(job: Job) -> tuple[str, int | None, str | None]:
    return job.stage, job.exit_code, job.message


# --- a job's life ----------------------------------------------------------------------------------------------------


def test_a_job_waits_runs_and_ends_with_its_result(runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path) -> None:
    job = runner.submit(make_spec(tmp_path))
    assert (job.stage, job.started_at) == ("SCHEDULING", None)
    assert runner.inspect(job.id).message == "PENDING: Resources (slurm job 1)"
    assert slurm.start(1).wait() == 0
    ended = runner.inspect(job.id)
    assert told(ended) == ("COMPLETED", 0, None)
    assert ended.result == {"loss": 0.5}
    slurm.forget(1)
    assert runner.submit(make_spec(tmp_path)) == ended
    assert runs(tmp_path) == 1


def test_the_job_sees_this_environment_and_the_nodes_devices_and_sbatch_no_secret(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "of the job that hfagent runs in")
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    monkeypatch.setenv("SBATCH_ARRAY_INX", "1-3")
    monkeypatch.setenv("SBATCH_ACCOUNT", "lab")
    monkeypatch.setenv("SLURM_JWT", "eyJ-of-the-person")
    job = runner.submit(make_spec(tmp_path, TELL))
    start = tmp_path / "jobs" / job.key / "start.json"
    assert stat.S_IMODE(start.stat().st_mode) == 0o600
    assert "secret" not in json.dumps(slurm.jobs)
    assert not {"SLURM_JOB_ID", "SQUEUE_FORMAT", "SBATCH_ARRAY_INX"} & slurm.jobs[0]["env"].keys()
    assert slurm.jobs[0]["env"]["SBATCH_ACCOUNT"] == "lab"
    assert slurm.jobs[0]["env"]["SLURM_JWT"] == "eyJ-of-the-person"  # without it Slurm may not take the job
    assert slurm.start(1).wait() == 0
    assert runner.inspect(job.id).result == {
        "HF_TOKEN": "hf_secret", "OPENAI_API_KEY": None, "SLURM_JWT": None, "CUDA_VISIBLE_DEVICES": "7",
        "SLURM_JOB_ID": "1", "cwd": os.getcwd(),  # noqa: PTH109
    }  # fmt: skip
    assert not start.exists()


def test_the_time_limit_is_the_supervisors_and_then_slurms(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    job = runner.submit(make_spec(tmp_path, FOREVER, timeout_s=1))
    assert slurm.jobs[0]["minutes"] == 2  # 1 s, twice the grace of 1 s, and a minute, rounded up
    slurm.start(1).wait()
    assert told(runner.inspect(job.id))[2] == "Job timeout"


def test_what_a_person_sets_reaches_sbatch_but_nothing_that_breaks_jobs(slurm: FakeSlurm, tmp_path: Path) -> None:
    wants = Wants(gres="gpu:a100:2", cpus=8, partition="long", account="lab", qos="night", options="--mem=32G -C 'a|b'")
    make_runner(tmp_path, wants).submit(make_spec(tmp_path))
    called = slurm.calls("sbatch")[0]
    for option in ("--gres=gpu:a100:2", "--cpus-per-task=8", "--partition=long", "--account=lab", "--qos=night"):
        assert option in called
    assert called[-3:] == ["--mem=32G", "-C", "a|b"]
    assert "--no-requeue" in called
    for options in ("--requeue", "--array=1-3", "-J other", "'"):
        with pytest.raises(SettingsError, match="slurm_options"):
            SlurmQueue(Wants(options=options))


def test_one_squeue_answers_for_all_jobs(slurm: FakeSlurm, tmp_path: Path) -> None:
    runner = make_runner(tmp_path)
    runner._poll_s = 60.0
    jobs = [runner.submit(make_spec(tmp_path, key=f"night-r{n}-a1")) for n in range(5)]
    before = len(slurm.calls("squeue"))
    assert {runner.inspect(job.id).stage for job in jobs} == {"SCHEDULING"}
    assert len(slurm.calls("squeue")) == before + 1


# --- answers that are lost -------------------------------------------------------------------------------------------


def test_a_submit_that_was_taken_without_an_answer_is_found_by_its_name(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    slurm.break_tool("sbatch", "Batch job submission failed: Socket timed out on send/recv operation", after=True)
    with pytest.raises(BackendAway, match="Socket timed out"):
        runner.submit(make_spec(tmp_path))
    slurm.mend()
    found = runner.find("night-r1-a1")
    assert found is not None
    assert runner.submit(make_spec(tmp_path)).id == found.id
    assert len(slurm.jobs) == 1


def test_a_submit_that_hangs_is_given_up_and_looked_for(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_commands, "SUBMIT_S", 0.5)
    slurm.break_tool("sbatch", after=True, sleep_s=30)
    with pytest.raises(BackendAway, match="sbatch took more than"):
        runner.submit(make_spec(tmp_path))
    assert runner.find("night-r1-a1") is not None


def test_without_its_tools_and_without_room_nothing_was_sent(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(tmp_path)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(NothingSent, match="sbatch cannot be run"):
            runner.submit(spec)
    folder = tmp_path / "jobs" / spec.key
    (folder / "start.json").unlink()
    (folder / "start.json.new").unlink(missing_ok=True)
    (folder / "start.json.new").mkdir()
    with pytest.raises(NoRoom, match="could not be prepared"):
        runner.submit(spec)
    (folder / "start.json.new").rmdir()
    assert runner.submit(spec).stage == "SCHEDULING"
    assert len(slurm.jobs) == 1


def test_a_submit_that_never_arrived_leaves_nothing_and_may_be_repeated(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    slurm.break_tool("sbatch", "Batch job submission failed: Unable to contact slurm controller (connect failure)")
    with pytest.raises(BackendAway):
        runner.submit(make_spec(tmp_path))
    slurm.mend()
    assert runner.find("night-r1-a1") is None
    runner.submit(make_spec(tmp_path))
    assert [job["number"] for job in slurm.jobs] == [1]


def test_of_two_jobs_of_a_key_the_second_is_cancelled_while_it_waits(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    job = runner.submit(make_spec(tmp_path))
    slurm.write("jobs", [*slurm.jobs, slurm.jobs[0] | {"number": 2}])
    assert runner.inspect(job.id).stage == "SCHEDULING"
    assert [(known["number"], known["state"]) for known in slurm.jobs] == [(1, "PENDING"), (2, "CANCELLED")]


def test_of_two_jobs_of_a_key_that_both_begin_one_runs(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    job = runner.submit(make_spec(tmp_path))
    slurm.write("jobs", [*slurm.jobs, slurm.jobs[0] | {"number": 2}])
    assert [started.wait() for started in [slurm.start(1), slurm.start(2)]] == [0, 0]
    assert runner.inspect(job.id).stage == "COMPLETED"
    assert runs(tmp_path) == 1


def test_what_a_repeated_submit_has_written_down_for_a_job_that_runs_does_not_stay(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    """It may hold a token."""
    job = runner.submit(make_spec(tmp_path, "import time\ntime.sleep(1)\n" + ONCE))
    slurm.write("jobs", [*slurm.jobs, slurm.jobs[0] | {"number": 2}])
    start = tmp_path / "jobs" / job.key / "start.json"
    first = slurm.start(1)
    until((tmp_path / "jobs" / job.key / "run.json").exists)
    assert not start.exists()
    start.write_text("{}")
    slurm.start(2).wait()
    assert not start.exists()
    start.write_text("{}")
    first.wait()
    assert not start.exists()
    assert runs(tmp_path) == 1


def test_a_job_that_a_site_requeues_all_the_same_does_not_run_again(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    job = runner.submit(make_spec(tmp_path))
    slurm.start(1).wait()
    ended = runner.inspect(job.id)
    slurm.start(1).wait()
    assert runs(tmp_path) == 1
    assert runner.inspect(job.id) == ended


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        ("Batch job submission failed: Invalid account or account/partition combination specified", AccountRefused),
        ("Batch job submission failed: Invalid qos specification", AccountRefused),
        ("Batch job submission failed: Requested node configuration is not available", JobError),
        ("invalid partition specified: x", JobError),
        ("Batch job submission failed: Zero Bytes were transmitted or received", BackendAway),
        ("Slurm temporarily unable to accept job, sleeping and retrying", BackendAway),
    ],
)
def test_a_refusal_is_told_from_an_answer_that_nobody_knows(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path, error: str, refusal: type[HfagentError]
) -> None:
    slurm.break_tool("sbatch", error)
    with pytest.raises(JobError, match=error.rpartition(": ")[2][:20]) as raised:
        runner.submit(make_spec(tmp_path))
    assert type(raised.value) is refusal
    slurm.mend()
    assert runner.find("night-r1-a1") is None


# --- Slurm away, or forgetful ----------------------------------------------------------------------------------------


def test_while_slurm_is_away_what_runs_is_seen_and_what_waits_is_not_known(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    runner = make_runner(tmp_path, late_s=30.0, lost_s=120.0)
    script = "print('on', flush=True)\n" + FOREVER
    running = runner.submit(make_spec(tmp_path, script))
    waiting = runner.submit(make_spec(tmp_path, script, key="night-r2-a1"))
    process = slurm.start(1)
    until(lambda: runner.inspect(running.id).stage == "RUNNING" and runner.logs(running.id))
    slurm.break_tool("squeue", AWAY)
    time.sleep(0.05)
    with pytest.raises(BackendAway, match="connect failure"):
        runner.inspect(waiting.id)
    assert runner.inspect(running.id).stage == "RUNNING"
    runner.wait([waiting.id, running.id], timeout_s=0.2)  # raises nothing
    runner.cancel(running.id)
    process.wait(timeout=10)
    assert told(runner.inspect(running.id)) == ("CANCELED", 143, "canceled")


def test_a_disk_that_is_away_is_an_outage_and_a_damaged_folder_is_not(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    job = runner.submit(make_spec(tmp_path))
    end = tmp_path / "jobs" / job.key / "exit.json"
    end.mkdir()  # any error of the disk but that nothing is there
    with pytest.raises(BackendAway, match="cannot be read"):
        runner.inspect(job.id)
    end.rmdir()
    end.write_text("{")
    with pytest.raises(JobError, match="cannot be used") as raised:
        runner.inspect(job.id)
    assert type(raised.value) is JobError


def test_a_running_job_that_slurm_has_lost_is_followed_to_its_end(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    runner = make_runner(tmp_path, late_s=30.0, lost_s=120.0)
    job = runner.submit(make_spec(tmp_path, "import time\ntime.sleep(1)\n" + ONCE))
    process = slurm.start(1)
    until(lambda: runner.inspect(job.id).stage == "RUNNING")
    slurm.forget(1)
    # Its number goes to somebody else's job, and that one fails.
    other = {"number": 1, "name": "other", "comment": "(null)", "state": "FAILED", "reason": "NonZeroExitCode"}
    slurm.write("jobs", [other])
    assert runner.inspect(job.id).stage == "RUNNING"
    process.wait(timeout=10)
    assert told(runner.inspect(job.id)) == ("COMPLETED", 0, None)


def test_a_job_of_the_same_name_in_another_folder_is_somebody_elses(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    other = {"number": 7, "name": "night-r1-a1", "comment": "hfagent:/other/jobs/night-r1-a1", "state": "PENDING"}
    slurm.write("jobs", [other | {"reason": "Priority"}])
    runner.submit(make_spec(tmp_path))
    runner.cancel("slurm-night-r1-a1")
    assert [job["state"] for job in slurm.jobs] == ["PENDING", "CANCELLED"]


def test_a_comment_that_a_site_writes_over_says_nothing_against_a_job(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    job = runner.submit(make_spec(tmp_path))
    slurm.change(1, comment="billed|to:lab")
    assert runner.inspect(job.id).message == "PENDING: Resources (slurm job 1)"


def test_a_waiting_job_that_slurm_forgot_is_lost_and_never_begins(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    job = runner.submit(make_spec(tmp_path))
    lost = slurm.jobs
    slurm.forget(1)
    assert told(runner.inspect(job.id)) == (
        "ERROR", None, "lost: slurm no longer knows its job 1, which never began",
    )  # fmt: skip
    slurm.write("jobs", lost)
    slurm.start(1).wait()
    assert runs(tmp_path) == 0


def test_without_accounting_a_forgotten_job_is_lost(runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path) -> None:
    job = runner.submit(make_spec(tmp_path))
    slurm.forget(1)
    (slurm.bin / "sacct").unlink()
    assert (runner.inspect(job.id).message or "").startswith("lost: slurm no longer knows")


def test_accounting_knows_what_slurm_forgot(runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path) -> None:
    job = runner.submit(make_spec(tmp_path))
    slurm.forget(1)
    slurm.write("accounting", ["1|TIMEOUT|/other/place", f"1|CANCELLED by 1000|{tmp_path / 'jobs' / job.key}"])
    assert told(runner.inspect(job.id)) == ("CANCELED", None, "canceled in Slurm")


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_a_job_that_accounting_alone_calls_open_is_lost(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path, state: str
) -> None:
    job = runner.submit(make_spec(tmp_path))
    slurm.forget(1)
    slurm.write("accounting", [f"1|{state}|{tmp_path / 'jobs' / job.key}"])
    assert (runner.inspect(job.id).message or "").startswith("lost: slurm no longer knows")


# --- ends ------------------------------------------------------------------------------------------------------------


LOST_STATES = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED")


@pytest.mark.parametrize("state", sorted(slurm_states.FINISHED | slurm_states.MACHINE))
def test_every_end_of_a_job_that_never_began_is_told(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path, state: str
) -> None:
    job = runner.submit(make_spec(tmp_path))
    slurm.change(1, state=state)
    (tmp_path / "jobs" / job.key / "slurm-1.out").write_text("env: python: not found\n")
    ended = runner.inspect(job.id)
    wanted = {"CANCELLED": "CANCELED"}.get(state, "ERROR")
    codes = {"FAILED": 1, "OUT_OF_MEMORY": 137}
    assert (ended.stage, ended.exit_code, ended.running_s) == (wanted, codes.get(state), 0.0)
    assert ended.message is not None
    assert ended.message.endswith("env: python: not found")
    assert list(runner.logs(job.id)) == ["env: python: not found"]
    assert ended.message.startswith("lost") == (state in LOST_STATES or state not in (
        "FAILED", "CANCELLED", "TIMEOUT", "DEADLINE", "OUT_OF_MEMORY"
    ))  # fmt: skip
    assert runner.inspect(job.id) == ended


@pytest.mark.parametrize(
    ("state", "stage", "exit_code", "message"),
    [
        ("COMPLETED", "ERROR", None, "lost: Slurm calls it completed, and it left no end"),
        ("FAILED", "ERROR", None, "lost: its supervisor was killed (Resources)"),
        ("TIMEOUT", "ERROR", None, "Job timeout"),
        ("NODE_FAIL", "ERROR", None, "lost: Slurm ended it as NODE_FAIL"),
        ("OUT_OF_MEMORY", "ERROR", 137, "out of memory: Slurm ended it at its limit"),
        ("CANCELLED", "CANCELED", None, "canceled in Slurm"),
    ],
)
def test_a_job_whose_supervisor_was_killed_is_what_slurm_calls_it(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path,
    state: str, stage: str, exit_code: int | None, message: str,
) -> None:  # fmt: skip
    job = runner.submit(make_spec(tmp_path, FOREVER))
    process = slurm.start(1)
    until((tmp_path / "jobs" / job.key / "run.json").exists)
    process.kill()
    process.wait()
    slurm.change(1, state=state, reason="Resources" if state == "FAILED" else "None")
    ended = runner.inspect(job.id)
    assert (ended.stage, ended.exit_code) == (stage, exit_code)
    assert (ended.message or "").startswith(message)
    assert ended.started_at is not None
    assert runner.inspect(job.id) == ended


def test_the_end_that_a_job_wrote_down_counts_before_what_slurm_says(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    job = runner.submit(make_spec(tmp_path))
    slurm.start(1).wait()
    slurm.change(1, state="NODE_FAIL")
    assert runner.inspect(job.id).stage == "COMPLETED"


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("PREEMPTED", ("ERROR", None, "lost: Slurm ended it as PREEMPTED")),
        ("TIMEOUT", ("ERROR", None, "Job timeout")),
        ("CANCELLED", ("CANCELED", None, "canceled in Slurm")),
    ],
)
def test_why_a_signal_came_is_asked_of_slurm_and_remembered(
    slurm: FakeSlurm, tmp_path: Path, state: str, expected: tuple[str, int | None, str]
) -> None:
    runner = make_runner(tmp_path, late_s=60.0)
    job = signaled(runner, slurm, tmp_path)
    assert runner.inspect(job.id).stage == "RUNNING"  # Slurm has not closed it yet
    slurm.change(1, state=state, reason="None")
    time.sleep(0.05)
    assert told(runner.inspect(job.id)) == expected
    slurm.forget(1)
    assert told(runner.inspect(job.id)) == expected


def signaled(runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path) -> Job:
    """A job whose supervisor got a signal and said so."""
    job = runner.submit(make_spec(tmp_path, "print('on', flush=True)\n" + FOREVER))
    process = slurm.start(1)
    until(lambda: runner.inspect(job.id).stage == "RUNNING" and runner.logs(job.id))
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=10)
    return job


def long_ago(tmp_path: Path, job: Job) -> None:
    """The job's end lies back longer than anybody waits for Slurm's word about it."""
    os.utime(tmp_path / "jobs" / job.key / "exit.json", (time.time() - 1000,) * 2)


def waited_s(runner: ClusterJobRunner, job: Job, timeout_s: float) -> float:
    begun = time.monotonic()
    runner.wait([job.id], timeout_s=timeout_s)
    return time.monotonic() - begun


def test_a_signaled_job_that_slurm_never_closes_is_waited_for_and_then_ended(slurm: FakeSlurm, tmp_path: Path) -> None:
    runner = make_runner(tmp_path, late_s=60.0)
    job = signaled(runner, slurm, tmp_path)
    slurm.change(1, state="COMPLETING")
    assert waited_s(runner, job, 0.6) >= 0.6
    long_ago(tmp_path, job)
    time.sleep(0.05)
    assert (runner.inspect(job.id).message or "").startswith("lost: the supervisor got SIGTERM")
    assert waited_s(runner, job, 60.0) < 30.0


def test_a_signaled_job_ends_though_slurm_stays_away(slurm: FakeSlurm, tmp_path: Path) -> None:
    runner = make_runner(tmp_path, late_s=60.0)
    job = signaled(runner, slurm, tmp_path)
    slurm.break_tool("squeue", AWAY)
    time.sleep(0.05)
    with pytest.raises(BackendAway):
        runner.inspect(job.id)
    assert waited_s(runner, job, 0.6) >= 0.6
    long_ago(tmp_path, job)
    assert (runner.inspect(job.id).message or "").startswith("lost: the supervisor got SIGTERM")


def test_why_a_signal_came_is_asked_of_accounting_where_slurm_forgot(slurm: FakeSlurm, tmp_path: Path) -> None:
    runner = make_runner(tmp_path, late_s=60.0)
    job = signaled(runner, slurm, tmp_path)
    slurm.forget(1)
    slurm.write("accounting", [f"1|TIMEOUT|{tmp_path / 'jobs' / job.key}"])
    time.sleep(0.05)
    assert told(runner.inspect(job.id)) == ("ERROR", None, "Job timeout")


def test_the_command_dies_with_its_supervisor_and_so_does_what_it_started(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    started = "subprocess.Popen(['sleep', '600'], start_new_session=True)"  # as uv starts Python
    script = f"import subprocess, time\nprint({started}.pid, flush=True)\ntime.sleep(600)\n"
    job = runner.submit(make_spec(tmp_path, script))
    process = slurm.start(1)
    until(lambda: runner.inspect(job.id).stage == "RUNNING" and runner.logs(job.id))
    assert len(marked(tmp_path / "jobs" / job.key)) == 2
    process.kill()
    process.wait()
    until(lambda: not marked(tmp_path / "jobs" / job.key))


def test_a_job_that_was_given_up_and_lives_all_the_same_ends_itself_and_changes_nothing(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    job = runner.submit(make_spec(tmp_path, "print('on', flush=True)\n" + FOREVER))
    process = slurm.start(1)
    until(lambda: runner.inspect(job.id).stage == "RUNNING" and runner.logs(job.id))
    process.send_signal(signal.SIGSTOP)  # a machine that hangs
    slurm.forget(1)
    time.sleep(0.05)
    lost = runner.inspect(job.id)
    assert told(lost) == ("ERROR", None, "lost: it gives no more sign of life, and its end was not recorded")
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=10) == 143
    assert runner.inspect(job.id) == lost


def test_an_end_that_this_machine_does_not_see_yet_is_not_written_over(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    job = runner.submit(make_spec(tmp_path))
    slurm.start(1).wait()
    folder = tmp_path / "jobs" / job.key
    written = (folder / "exit.json").read_text()
    assert not cluster_folder.give_up(folder, cluster_folder.End("ERROR", None, "lost"))
    assert (folder / "exit.json").read_text() == written
    assert sorted(path.name for path in folder.glob("exit.json*")) == ["exit.json"]


def test_a_second_job_that_was_cancelled_tells_nothing_of_the_first() -> None:
    lines = slurm_states.parse("1|NODE_FAIL|None|k|hfagent:/jobs/k\n2|CANCELLED|None|k|hfagent:/jobs/k\n")
    found, extra = slurm_states.chosen(lines, "/jobs")
    assert (found["k"].state, extra) == ("NODE_FAIL", [])


# --- cancel ----------------------------------------------------------------------------------------------------------


def test_a_waiting_job_that_is_cancelled_never_begins(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    job = runner.submit(make_spec(tmp_path))
    slurm.break_tool("scancel", "Unable to contact slurm controller (connect failure)")
    with pytest.raises(BackendAway, match="scancel"):
        runner.cancel(job.id)
    assert told(runner.inspect(job.id)) == ("CANCELED", None, "canceled")
    slurm.start(1).wait()  # all the same
    assert runs(tmp_path) == 0
    assert told(runner.inspect(job.id)) == ("CANCELED", None, "canceled")


def test_a_job_whose_supervisor_does_not_heed_a_cancel_is_ended_by_slurm(
    runner: ClusterJobRunner, slurm: FakeSlurm, tmp_path: Path
) -> None:
    job = runner.submit(make_spec(tmp_path, FOREVER))
    process = slurm.start(1)
    until(lambda: runner.inspect(job.id).stage == "RUNNING")
    process.send_signal(signal.SIGSTOP)
    runner.cancel(job.id)
    runner.cancel(job.id)
    assert slurm.calls("scancel") == []
    os.utime(tmp_path / "jobs" / job.key / "cancel", (time.time() - 100,) * 2)
    runner.cancel(job.id)
    assert slurm.calls("scancel") == [["--name=night-r1-a1", "1"]]
    process.kill()
    process.wait()


def test_a_claim_is_given_once(tmp_path: Path) -> None:
    (tmp_path / "claim").touch()
    end = cluster_folder.End("CANCELED", None, "canceled")
    assert not cluster_folder.cluster_supervisor.claim(tmp_path, "another")
    (tmp_path / "claim").unlink()
    assert cluster_folder.give_up(tmp_path, end)
    assert not cluster_folder.cluster_supervisor.claim(tmp_path, "a late one")
