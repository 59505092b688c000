"""Jobs on this machine survive what a night brings: kills at any moment, stubborn processes, full disks."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hfagent.agent.errors import BackendAway, JobError, PackageMissing, SettingsError
from hfagent.agent.records import Job, JobSpec
from hfagent.agent.runs import Attempt
from hfagent.tools import job_folder, job_processes, job_supervisor, local_jobs
from hfagent.tools.job_processes import out_of_memory_kills
from hfagent.tools.local_jobs import LocalJobRunner
from hfagent.tools.script_command import requirements, script_command

ONCE = "import sys\nwith open(sys.argv[1], 'a') as runs:\n    runs.write('run\\n')\nprint('RESULT {}')\n"
FOREVER = "import time\ntime.sleep(600)\n"
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
STEPS = ("tempfile.mkdtemp", "os.mkdir", "os.symlink", "os.rename", "os.fork", "fcntl.flock", "subprocess.Popen")


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[LocalJobRunner]:
    (tmp_path / "templates").mkdir()
    runner = LocalJobRunner(tmp_path / "jobs", templates=tmp_path / "templates", grace_s=0.5)
    yield runner
    for folder in (tmp_path / "jobs").glob("*"):
        if runner.find(folder.name) is not None:
            runner.cancel(f"local-{folder.name}")


def make_spec(tmp_path: Path, script: str, *args: str, key: str = "k", timeout_s: int = 60) -> JobSpec:
    (tmp_path / "templates" / "job.py").write_text(script)
    return JobSpec(
        key=key,
        project="night",
        run="r1",
        kind="train",
        template="job.py",
        args=args,
        flavor="local",
        timeout_s=timeout_s,
        price_micro_usd_per_hour=0,
    )


def end_of(runner: LocalJobRunner, job: Job) -> Job:
    began = time.monotonic()
    runner.wait([job.id], timeout_s=20)
    assert time.monotonic() - began < 20
    return runner.inspect(job.id)


def in_child(work: Callable[[], object]) -> int:
    """Exit status of a fork that does the work: 0 if it raised nothing, negative if a signal killed it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_before_step(number: int) -> None:
    """Kill this process, or a fork of it, as it is about to change something for the `number`-th time."""
    left = number

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        if event in STEPS or (event == "open" and isinstance(args[2], int) and args[2] & WRITES):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_twenty_submits_from_five_processes_start_one_run(runner: LocalJobRunner, tmp_path: Path) -> None:
    spec = make_spec(tmp_path, ONCE, str(tmp_path / "runs"))

    def submit_four_times() -> None:
        with ThreadPoolExecutor(4) as pool:
            assert {job.id for job in pool.map(runner.submit, [spec] * 4)} == {"local-k"}

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(in_child, [submit_four_times] * 5)) == [0] * 5
    assert end_of(runner, runner.submit(spec)).stage == "COMPLETED"
    assert (tmp_path / "runs").read_text() == "run\n"
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["k"]


def test_a_job_outlives_its_submitter_and_its_exit_code_is_read_later(runner: LocalJobRunner, tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "import time\ntime.sleep(0.3)\nraise SystemExit(42)\n")

    def submit_and_die() -> None:
        runner.submit(spec)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(submit_and_die) == -signal.SIGKILL
    later = LocalJobRunner(tmp_path / "jobs")
    job = later.find("k")
    assert job is not None
    assert job.stage == "RUNNING"
    ended = end_of(later, job)
    assert (ended.stage, ended.exit_code, ended.message) == ("ERROR", 42, "exit code 42")


def test_a_submitter_killed_at_any_step_loses_nothing_and_runs_nothing_twice(
    runner: LocalJobRunner, tmp_path: Path
) -> None:
    def submit_and_die(number: int, spec: JobSpec) -> None:
        kill_before_step(number)
        runner.submit(spec)

    steps = 0
    died = True
    while died:
        steps += 1
        runs = tmp_path / f"runs{steps}"
        spec = make_spec(tmp_path, ONCE, str(runs), key=f"k{steps}")
        died = in_child(lambda number=steps, spec=spec: submit_and_die(number, spec)) != 0  # type: ignore[misc]
        found = runner.find(spec.key)
        job = runner.submit(spec)
        assert found is None or found.id == job.id
        assert end_of(runner, job).stage == "COMPLETED"
        assert runs.read_text() == "run\n"
    assert steps > 8


@pytest.mark.parametrize("launcher", ["time.sleep(60)", "os.kill(os.getpid(), 9)"])
def test_a_start_that_gets_no_answer_may_come_yet_and_is_asked_for_again_under_its_key(
    runner: LocalJobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    spec = make_spec(tmp_path, "import time\ntime.sleep(1)\n" + ONCE, str(tmp_path / "runs"))
    slow = f"import os, time\nif os.fork():\n    {launcher}\n{local_jobs._SUPERVISE}"  # the answer comes late
    with monkeypatch.context() as patch:
        patch.setattr(local_jobs, "_START_TIMEOUT_S", 1.0)
        patch.setattr(local_jobs, "_SUPERVISE", slow)
        with pytest.raises(BackendAway, match=r"did not answer|got signal 9"):
            runner.submit(spec)
    assert end_of(runner, runner.submit(spec)).stage == "COMPLETED"
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_supervisor_that_comes_late_does_not_run_a_finished_job_again(runner: LocalJobRunner, tmp_path: Path) -> None:
    spec = make_spec(tmp_path, ONCE, str(tmp_path / "runs"))
    ended = end_of(runner, runner.submit(spec))
    command = [sys.executable, str(tmp_path / "templates" / "job.py"), str(tmp_path / "runs")]
    assert in_child(lambda: job_supervisor.main([str(tmp_path / "jobs" / "k"), "60", "1", *command])) == 0
    assert (tmp_path / "runs").read_text() == "run\n"
    assert runner.find("k") == ended


def test_a_supervisor_killed_at_any_step_never_runs_a_job_twice(runner: LocalJobRunner, tmp_path: Path) -> None:
    """Supervisor: `kill -9` at each of its steps, from its start to the job's."""

    def supervise_and_die(number: int, folder: Path, command: list[str]) -> None:
        kill_before_step(number)
        job_supervisor.main([str(folder), "60", "1", *command])

    stages = []
    for step in range(1, 12):
        runs = tmp_path / f"runs{step}"
        spec = make_spec(tmp_path, ONCE, str(runs), key=f"k{step}")
        folder = tmp_path / "jobs" / spec.key
        job_folder.create(folder, spec, package=tmp_path)
        command = [sys.executable, str(tmp_path / "templates" / "job.py"), str(runs)]
        in_child(lambda step=step, folder=folder, command=command: supervise_and_die(step, folder, command))  # type: ignore[misc]
        ended = end_of(runner, runner.submit(spec))
        assert ended.ended
        assert job_processes.marked(folder) == []
        started = runs.read_text() if runs.exists() else ""
        assert started == "run\n" if ended.stage == "COMPLETED" else started in ("", "run\n")
        stages.append(ended.message)
    assert set(stages) == {None, "lost: its supervisor was killed"}


STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        os.execve(sys.executable, [sys.executable, "-c", "print('fled', flush=True); import time; time.sleep(600)"], {})
    os._exit(0)
print(subprocess.Popen(["nohup", "sleep", "600"], start_new_session=True).pid, flush=True)
time.sleep(600)
"""


def test_cancel_from_elsewhere_ends_processes_that_fled_or_ignore_sigterm(
    runner: LocalJobRunner, tmp_path: Path
) -> None:
    job = runner.submit(make_spec(tmp_path, STUBBORN))
    until(lambda: "fled" in runner.logs(job.id) and len(runner.logs(job.id)) >= 4)
    pids = [int(line) for line in runner.logs(job.id) if line.isdecimal()]
    assert len(pids) == 3
    assert all(map(is_alive, pids))
    assert in_child(lambda: LocalJobRunner(tmp_path / "jobs").cancel(job.id)) == 0
    ended = end_of(runner, job)
    assert (ended.stage, ended.exit_code) == ("CANCELED", 128 + signal.SIGKILL)
    assert not any(map(is_alive, pids))


def test_a_job_that_is_asked_to_end_can_save_and_report(runner: LocalJobRunner, tmp_path: Path) -> None:
    script = (
        "import signal, time\nfrom hfagent.job_templates.runtime import emit_result, on_sigterm\nstopped = []\n"
        "on_sigterm(lambda: stopped.append(1))\nwhile not stopped:\n    time.sleep(0.01)\nemit_result({'step': 7})\n"
    )
    ended = end_of(runner, runner.submit(make_spec(tmp_path, script, timeout_s=1)))
    assert (ended.stage, ended.message, ended.exit_code, ended.result) == ("ERROR", "Job timeout", 0, {"step": 7})


def test_what_a_finished_job_leaves_behind_is_ended(runner: LocalJobRunner, tmp_path: Path) -> None:
    script = (
        "import subprocess\nprint(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)\nprint('RESULT {}')\n"
    )
    job = end_of(runner, runner.submit(make_spec(tmp_path, script)))
    assert job.stage == "COMPLETED"
    assert not is_alive(int(runner.logs(job.id)[0]))


@pytest.mark.parametrize("boot", ["same", "other"])
def test_a_killed_supervisor_makes_the_job_lost_and_leaves_no_process(
    runner: LocalJobRunner, tmp_path: Path, boot: str
) -> None:
    job = runner.submit(make_spec(tmp_path, "print('on', flush=True)\n" + FOREVER))
    until(lambda: "on" in runner.logs(job.id))
    folder = tmp_path / "jobs" / "k"
    run = json.loads((folder / "run.json").read_text())
    assert len(job_processes.marked(folder)) == 1
    os.kill(run["pid"], signal.SIGKILL)
    if boot == "other":
        job_supervisor.write_json(folder / "run.json", run | {"boot_id": "of another day"})
    ended = end_of(runner, job)
    cause = "its supervisor was killed" if boot == "same" else "the machine was restarted"
    assert (ended.stage, ended.message, ended.exit_code) == ("ERROR", f"lost: {cause}", None)
    assert job_processes.marked(folder) == []
    assert runner.find("k") == ended


def test_after_a_reboot_a_job_is_lost_and_the_process_that_got_its_pid_is_left_alone(
    runner: LocalJobRunner, tmp_path: Path
) -> None:
    """Reboot: another process has the supervisor's pid by now."""
    job = runner.submit(make_spec(tmp_path, FOREVER))
    folder = tmp_path / "jobs" / "k"
    run = json.loads((folder / "run.json").read_text())
    os.kill(run["pid"], signal.SIGKILL)
    job_processes.end_all(lambda: job_processes.marked(folder), grace_s=1)
    with subprocess.Popen([sys.executable, "-c", FOREVER]) as other:
        try:
            reused = run | {"boot_id": "of another day", "pid": other.pid}
            job_supervisor.write_json(folder / "run.json", reused)
            ended = runner.inspect(job.id)
            assert (ended.stage, ended.message) == ("ERROR", "lost: the machine was restarted")
            assert other.poll() is None
        finally:
            other.kill()


def test_a_job_dies_at_its_time_limit_though_nobody_is_left_to_look(runner: LocalJobRunner, tmp_path: Path) -> None:
    """Lease: hfagent is killed, and the job runs into its time limit."""
    spec = make_spec(tmp_path, "print('on', flush=True)\n" + FOREVER, timeout_s=1)
    assert in_child(lambda: os.kill(os.getpid(), signal.SIGKILL) if runner.submit(spec) else None) == -signal.SIGKILL
    folder = tmp_path / "jobs" / "k"
    until(lambda: (folder / "exit.json").exists())
    told = json.loads((folder / "exit.json").read_text())
    assert (told["stage"], told["message"]) == ("ERROR", "Job timeout")
    assert 1 <= told["running_s"] < 5
    assert job_processes.marked(folder) == []


def test_the_seconds_of_a_job_are_those_that_passed_whatever_its_clock_says(
    runner: LocalJobRunner, tmp_path: Path
) -> None:
    """The clock is set back while a job runs."""
    job = end_of(runner, runner.submit(make_spec(tmp_path, "print('RESULT {}')")))
    path = tmp_path / "jobs" / "k" / "exit.json"
    job_supervisor.write_json(path, json.loads(path.read_text()) | {"finished_at": "2001-01-01T00:00:00Z"})
    told = runner.inspect(job.id)
    assert told.running_s == job.running_s
    assert told.running_s is not None
    assert 0 < told.running_s < 20


def test_a_supervisor_told_to_end_takes_the_job_with_it(runner: LocalJobRunner, tmp_path: Path) -> None:
    job = runner.submit(make_spec(tmp_path, FOREVER))
    os.kill(json.loads((tmp_path / "jobs" / "k" / "run.json").read_text())["pid"], signal.SIGTERM)
    ended = end_of(runner, job)
    assert ended.stage == "ERROR"
    assert ended.message is not None
    assert ended.message.startswith("lost: the supervisor got SIGTERM")
    assert job_processes.marked(tmp_path / "jobs" / "k") == []


def test_a_machine_that_ends_every_process_may_come_to_the_command_before_its_supervisor(
    runner: LocalJobRunner, tmp_path: Path
) -> None:
    script = (
        "import os, signal, subprocess\n"
        "subprocess.Popen(['sh', '-c', f'sleep 0.3; kill -TERM {os.getppid()}'], start_new_session=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    ended = end_of(runner, runner.submit(make_spec(tmp_path, script)))
    assert ended.message is not None
    assert ended.message.startswith("lost: the supervisor got SIGTERM")


def supervised(folder: Path, *command: str, beat: str = "int") -> subprocess.CompletedProcess[str]:
    """What `run_command` gives for a command, in a process of its own, whose signals it handles."""
    called = f"run_command(Path({str(folder)!r}), {command!r}, timeout_s=30, grace_s=1, beat={beat})"
    code = f"from pathlib import Path\nfrom hfagent.tools.job_supervisor import run_command\nprint({called})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)


def test_a_disk_that_does_not_answer_cancels_no_job(tmp_path: Path) -> None:
    unreadable = tmp_path / ("x" * 300)  # an error of the disk, and not that nothing is there
    with pytest.raises(OSError, match="too long"):
        (unreadable / "cancel").exists()
    assert supervised(unreadable, "true").stdout == "(0, 'COMPLETED', None)\n"


def test_no_error_of_a_supervisor_leaves_its_command_alone(tmp_path: Path) -> None:
    done = supervised(tmp_path, "sleep", "600", beat="lambda: 1 / 0")
    assert "ZeroDivisionError" in done.stderr
    assert job_processes.marked(tmp_path) == []


def test_wait_is_back_within_half_a_second_of_the_end(runner: LocalJobRunner, tmp_path: Path) -> None:
    job = runner.submit(make_spec(tmp_path, "import time\ntime.sleep(0.5)\nprint('RESULT {}')\n"))
    runner.wait([job.id], timeout_s=20)
    returned_at = time.time()
    finished_at = runner.inspect(job.id).finished_at
    assert finished_at is not None
    assert returned_at - finished_at.timestamp() < 0.5


@pytest.mark.parametrize(
    ("output", "result"),
    [
        ("RESULT {'n': 1}\nRESULT {'n': 2}\nbye\n", {"n": 2}),
        ("RESULT {'text': '" + "x" * 200_000 + "'}\n" + "noise\n" * 1000, {"text": "x" * 200_000}),
        ("\r 50%|#####     | 1/2\r100%|##########| 2/2RESULT {'n': 2}\n", {"n": 2}),
        ("RESULT {'text': 'RESULT {'}\n", {"text": "RESULT {"}),
        ("RESULT {'n': 1}\nRESULT {'n': 2", {"n": 1}),
        ("RESULT {'n': NaN}\n", None),
        ("the RESULT [1]\n", None),
    ],
)
def test_the_last_readable_result_line_counts(
    runner: LocalJobRunner, tmp_path: Path, output: str, result: dict[str, Any] | None
) -> None:
    text = output.replace("'", '"')
    job = end_of(runner, runner.submit(make_spec(tmp_path, f"import sys\nsys.stdout.write({text!r})\n")))
    assert (job.stage, job.result) == ("ERROR" if result is None else "COMPLETED", result)


def test_logs_split_progress_bars_and_stay_under_a_mebibyte(runner: LocalJobRunner, tmp_path: Path) -> None:
    script = "for n in range(3):\n    print('y' * 1_000_000)\nprint('\\r10%\\r20%\\r30%')\nprint('RESULT {}')\n"
    job = end_of(runner, runner.submit(make_spec(tmp_path, script)))
    lines = runner.logs(job.id)
    assert list(lines[-4:]) == ["10%", "20%", "30%", "RESULT {}"]
    assert sum(map(len, lines)) <= 1 << 20


def test_the_job_sees_its_callers_folder_and_variables_but_not_the_planners_keys(
    runner: LocalJobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import json, os, pathlib, sys\nimport hfagent.job_templates.runtime\n"
        "print('RESULT', json.dumps({'env': dict(os.environ), 'cwd': os.getcwd(), 'argv': sys.argv[1:],"
        " 'stdin': sys.stdin.read(), 'out': pathlib.Path(sys.argv[-1]).is_dir()}))\n"
    )
    monkeypatch.setenv("OPENAI_API_KEY", "planner's")
    monkeypatch.setenv("HF_TOKEN", "hub's")
    monkeypatch.chdir(tmp_path)
    runner = LocalJobRunner(Path("jobs"), templates=Path("templates"), trackio_dir=Path("trackio"))
    seen = end_of(runner, runner.submit(make_spec(tmp_path, script, "--seed", "1"))).result
    assert seen is not None
    assert "OPENAI_API_KEY" not in seen["env"]
    assert seen["env"]["HF_TOKEN"] == "hub's"
    assert seen["env"]["TRACKIO_DIR"] == str(tmp_path / "trackio")
    assert seen["argv"] == ["--seed", "1", "--output-dir", str(tmp_path / "jobs" / "k" / "out")]
    assert (seen["cwd"], seen["stdin"], seen["out"]) == (str(tmp_path), "", True)
    assert job_processes.marked(tmp_path / "jobs" / "k") == []


def header(*dependencies: str) -> str:
    return f"# /// script\n# requires-python = '>=3.11'\n# dependencies = {list(dependencies)}\n# ///\n"


def test_a_template_whose_packages_are_here_runs_in_this_python(runner: LocalJobRunner, tmp_path: Path) -> None:
    needs = header("hfagent", "pydantic>=2", "no-such-package; python_version < '3'")
    job = end_of(runner, runner.submit(make_spec(tmp_path, needs + "import pydantic\nprint('RESULT {}')\n")))
    assert job.stage == "COMPLETED"


def test_a_template_whose_packages_are_not_here_runs_under_uv(
    runner: LocalJobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(f'#!/bin/sh\necho "$1 $2"\nshift 2\nexec {sys.executable} "$@"\n')
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(uv.parent))
    job = end_of(runner, runner.submit(make_spec(tmp_path, header("no-such-package>=2") + "print('RESULT {}')\n")))
    assert job.stage == "COMPLETED"
    assert runner.logs(job.id)[0] == "run --script"


def test_an_argument_may_ask_for_further_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "job.py"
    table = "#\n# [tool.hfagent.with]\n# sums = ['no-such-package>=2']\n# ///\n"
    script.write_text(header("pydantic>=2").removesuffix("# ///\n") + table)
    assert script_command(script, ("--task", "words"))[0] == sys.executable
    assert requirements(script, ("--task", "sums")) == ["pydantic>=2", "no-such-package>=2"]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackageMissing, match="needs no-such-package>=2, which"):
        script_command(script, ("--task", "sums"))


def test_without_the_packages_and_uv_nothing_starts(
    runner: LocalJobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    spec = make_spec(tmp_path, header("no-such-package>=2", "pydantic<1") + "print('RESULT {}')\n")
    with pytest.raises(PackageMissing, match=r"job\.py needs no-such-package>=2, pydantic<1.*pip install"):
        runner.submit(spec)
    assert runner.find("k") is None
    assert not (tmp_path / "jobs").exists()


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """Processes whose ids are written into this file have 60 MB together."""
    root = Path("/sys/fs/cgroup")
    old = (root / "memory").is_dir()
    group = root / ("memory" if old else "") / f"hfagent-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text("60000000")
    except OSError:
        pytest.skip("no memory group may be made here")
    yield group / "cgroup.procs"
    until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def test_a_job_that_the_kernel_ends_for_want_of_memory_says_so(
    runner: LocalJobRunner, tmp_path: Path, little_memory: Path
) -> None:
    """Memory runs out: the kernel ends the job's own process."""
    if out_of_memory_kills() is None:
        pytest.skip("this kernel does not count them")
    script = (
        f"import os\nopen({str(little_memory)!r}, 'w').write(str(os.getpid()))\nx = bytearray(b'x') * 300_000_000\n"
    )
    job = end_of(runner, runner.submit(make_spec(tmp_path, script)))
    assert (job.exit_code, job.message) == (137, "killed by SIGKILL, which the kernel sends when memory runs out")


def test_a_job_that_somebody_kills_is_lost_and_has_not_run_out_of_memory(
    runner: LocalJobRunner, tmp_path: Path
) -> None:
    if out_of_memory_kills() is None:
        pytest.skip("this kernel does not count them")
    job = end_of(runner, runner.submit(make_spec(tmp_path, "import os\nos.kill(os.getpid(), 9)\n")))
    assert (job.exit_code, (job.message or "")[:26]) == (137, "lost: killed by SIGKILL, w")


def test_a_job_that_ignores_the_end_of_its_machine_is_lost_though_it_had_to_be_killed(
    runner: LocalJobRunner, tmp_path: Path
) -> None:
    script = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('on', flush=True)\ntime.sleep(600)\n"
    spec = make_spec(tmp_path, script)
    job = runner.submit(spec)
    until(lambda: "on" in runner.logs(job.id))
    os.kill(json.loads((tmp_path / "jobs" / "k" / "run.json").read_text())["pid"], signal.SIGTERM)
    ended = end_of(runner, job)
    assert ended.exit_code == 137
    at = ended.created_at
    told = Attempt(spec, at, at, stage="ERROR", exit_code=ended.exit_code, message=ended.message)
    assert (told.lost, told.out_of_memory) == (True, False)


def test_another_flavor_or_template_is_refused(runner: LocalJobRunner, tmp_path: Path) -> None:
    spec = make_spec(tmp_path, FOREVER)
    with pytest.raises(SettingsError, match=r"'t4-small'.*'local'"):
        runner.submit(spec.model_copy(update={"flavor": "t4-small"}))
    for name in ("no_such.py", "../templates/job.py"):
        with pytest.raises(JobError, match=r"there are job\.py"):
            runner.submit(spec.model_copy(update={"template": name}))


def test_a_folder_that_is_no_job_is_named(runner: LocalJobRunner, tmp_path: Path) -> None:
    (tmp_path / "jobs" / "k").mkdir(parents=True)
    with pytest.raises(JobError, match=r"jobs/k' cannot be used: .*spec\.json"):
        runner.submit(make_spec(tmp_path, FOREVER))


def test_a_full_disk_is_a_job_error_and_leaves_nothing_half_written(runner: LocalJobRunner, tmp_path: Path) -> None:
    spec = make_spec(tmp_path, FOREVER)

    def submit_on_a_full_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # every write fails, as with no space left
        with pytest.raises(JobError, match="cannot be made"):
            runner.submit(spec)

    assert in_child(submit_on_a_full_disk) == 0
    assert list((tmp_path / "jobs").iterdir()) == []


def test_a_disk_that_fills_up_before_the_start_keeps_the_key_valid(runner: LocalJobRunner, tmp_path: Path) -> None:
    spec = make_spec(tmp_path, ONCE, str(tmp_path / "runs"))
    job_folder.create(tmp_path / "jobs" / "k", spec, package=tmp_path)

    def submit_on_a_full_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        with pytest.raises(JobError, match="could not be started"):
            runner.submit(spec)

    assert in_child(submit_on_a_full_disk) == 0
    assert runner.find("k") is None
    assert end_of(runner, runner.submit(spec)).stage == "COMPLETED"
