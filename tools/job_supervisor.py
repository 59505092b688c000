"""Runs one local job in a process of its own: time limit, cancel, end of the whole tree, record of the end.

Standard library only: `hfagent.tools.local_jobs` starts its `main`, and it outlives whoever did so.

    main([FOLDER, TIMEOUT_S, GRACE_S, *COMMAND])

FOLDER holds, besides the runner's `spec.json`:
    lock       held (flock) by the supervisor as long as it lives; the kernel drops it, so no pid is ever trusted
    run.json   written before the command starts; where it exists, no supervisor starts the command again
    log.txt    the command's stdout and stderr
    cancel     made by anyone who wants the job to end
    exit.json  how it ended, written when no process of the job is left

On Linux every descendant is found, whatever session it moved to: orphans come back to the supervisor (a subreaper), and
each process carries the folder in its environment (`MARKER`), which serves when the supervisor itself was killed.
Without /proc (macOS, untested) only the command's process group is ended.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from hfagent.tools.job_processes import (
    MARKER,
    become_subreaper,
    boot_id,
    descendants,
    end_all,
    gone,
    out_of_memory_kills,
    signal_all,
)

SIGNALED = "lost: the supervisor got"
"""How the message of a job begins that was ended by a signal to its supervisor."""
KILLED = "lost: killed by SIGKILL, while the kernel ended nothing for want of memory"
"""What is said of a job whose main process somebody else has killed."""
STRAGGLER_GRACE_S = 3.0  # from SIGTERM to SIGKILL, for what the command left behind
_ALONE_S = 0.5  # helpers such as multiprocessing's resource tracker end by themselves
_TOLD_S = 1.0  # whoever ends all processes at once may come to the command before its supervisor
_POLL_S = 0.2  # how late a cancel or the time limit is noticed; a signal is noticed at once
_LOCK_WAIT_S = 10.0  # for a supervisor that is just being killed
_RESERVED_BYTES = 4096


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Put the object under this name in one step, durable before the return. One writer at a time."""
    new = path.with_name(path.name + ".new")
    fill(new, value)
    new.replace(path)
    sync_folder(path.parent)


def fill(new: Path, value: dict[str, Any]) -> None:
    """Write the object into a file of any content, durable before the return."""
    # Without O_TRUNC, so that the blocks set aside for exit.json are used.
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(json.dumps(value, indent=1, allow_nan=False).encode())
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def reserve_end(folder: Path) -> None:
    """Set blocks aside for exit.json, so that a job that fills the disk can still say how it ended."""
    (folder / "exit.json.new").write_bytes(b" " * _RESERVED_BYTES)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


End = tuple[int | None, str, str | None]
"""Exit code, stage and message."""


class _Stop:
    """Why the command is to end, and a sleep that signals cut short."""

    def __init__(self, folder: Path, timeout_s: float) -> None:
        self._cancel = folder / "cancel"
        self._deadline = time.monotonic() + timeout_s
        self._signal: int | None = None
        self._wake, write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        # Handlers, not SIG_IGN, which the command would inherit.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._signal = number

    def reason(self) -> tuple[str, str] | None:
        """Stage and message of the end to come; None as long as the command may run."""
        if os.path.exists(self._cancel):  # noqa: PTH110 - unlike Path's it raises nothing where the disk is away
            return "CANCELED", "canceled"
        if self._signal is not None:
            name = signal.Signals(self._signal).name
            return "ERROR", f"{SIGNALED} {name}, as when a machine shuts down"
        if time.monotonic() >= self._deadline:
            return "ERROR", "Job timeout"
        return None

    def told_within(self, seconds: float) -> tuple[str, str] | None:
        """The reason, where it comes so soon."""
        until = time.monotonic() + seconds
        while (reason := self.reason()) is None and time.monotonic() < until:
            self.doze()
        return reason

    def doze(self) -> None:
        if select.select([self._wake], [], [], _POLL_S)[0]:
            os.read(self._wake, 4096)


class _Command:
    """The job's main process and whatever it started."""

    def __init__(self, command: Sequence[str], folder: Path, before: Callable[[], None] | None) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env={**os.environ, MARKER: str(folder)},
            process_group=0,
            preexec_fn=before,
        )
        self.pid = self._process.pid
        self.exit_code: int | None = None
        """128 + n after signal n, as in a shell."""

    def reap(self) -> None:
        # Never Popen.poll: it takes a child that this loop has reaped for one that ended with 0.
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.pid:
                    code = os.waitstatus_to_exitcode(ended[1])
                    self._process.returncode = code
                    self.exit_code = code if code >= 0 else 128 - code

    def tree(self) -> list[int]:
        self.reap()
        return descendants(os.getpid())

    def kill(self) -> None:
        signal_all(self.tree(), signal.SIGKILL)
        if sys.platform != "linux":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def end_stragglers(self) -> None:
        if not gone(self.tree, _ALONE_S):
            end_all(self.tree, grace_s=STRAGGLER_GRACE_S)
        self.kill()


def run_command(
    folder: Path,
    command: Sequence[str],
    *,
    timeout_s: float,
    grace_s: float,
    before: Callable[[], None] | None = None,
    beat: Callable[[], None] = lambda: None,
) -> End:
    """Run the command to its end, whatever that is, and end all that it left.

    Args:
        folder: of the job.
        command: what is run.
        timeout_s: after which it is asked to end.
        grace_s: that it gets then, before it is killed.
        before: called in the command's process before the command.
        beat: called a few times a second.
    """
    become_subreaper()
    stop = _Stop(folder, timeout_s)
    if (reason := stop.reason()) is not None:
        return None, *reason
    starved = out_of_memory_kills()
    try:
        job = _Command(command, folder, before)
    except OSError as error:
        return None, "ERROR", f"the command could not be started: {error}"
    kill_at = 0.0  # set with the reason
    try:
        while job.exit_code is None:
            if reason is None:
                if (reason := stop.reason()) is not None:
                    # To the main process alone: data loader workers that die first would spoil its last checkpoint.
                    signal_all([job.pid], signal.SIGTERM)
                    kill_at = time.monotonic() + grace_s
            elif time.monotonic() >= kill_at:
                job.kill()
            beat()
            stop.doze()
            job.reap()
        if reason is None and job.exit_code == 128 + signal.SIGTERM:
            reason = stop.told_within(_TOLD_S)
    finally:  # whatever happened, nothing runs on unwatched
        job.end_stragglers()
    starving = starved is None or out_of_memory_kills() != starved
    return job.exit_code, *(reason or _verdict(job.exit_code, starving=starving))


def _verdict(exit_code: int, *, starving: bool) -> tuple[str, str | None]:
    """Stage and message of a command that ended by itself.

    Args:
        exit_code: its own.
        starving: whether the kernel may have ended a process of this machine for want of memory meanwhile.
    """
    if exit_code == 0:
        return "COMPLETED", None
    if exit_code == 128 + signal.SIGKILL:
        return "ERROR", "killed by SIGKILL, which the kernel sends when memory runs out" if starving else KILLED
    return "ERROR", f"exit code {exit_code}"


def _take_lock(folder: Path) -> bool:
    """Lock the folder until this process ends; False if the job has been started before."""
    descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    deadline = time.monotonic() + _LOCK_WAIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return not _was_started(folder)
        if _was_started(folder):
            return False
        time.sleep(0.005)
    raise TimeoutError(f"another process held the lock of the job for {_LOCK_WAIT_S:.0f} s")


def _was_started(folder: Path) -> bool:
    return (folder / "run.json").exists() or (folder / "exit.json").exists()


def _supervise(folder: Path, command: Sequence[str], *, timeout_s: float, grace_s: float, report: int) -> None:
    """Start the job unless that has happened; `report` gets what went wrong, and is closed once the job is on."""
    try:
        os.setsid()
        with (folder / "log.txt").open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        if not _take_lock(folder):
            return
        reserve_end(folder)
        started_at = datetime.now(UTC).isoformat()
        run = {"pid": os.getpid(), "boot_id": boot_id(), "started_at": started_at, "command": list(command)}
        write_json(folder / "run.json", run)
        begun = time.monotonic()
    except OSError as error:
        os.write(report, str(error).encode())
        return
    os.close(report)
    exit_code, stage, message = run_command(folder, command, timeout_s=timeout_s, grace_s=grace_s)
    end: dict[str, Any] = {"exit_code": exit_code, "stage": stage, "message": message, "started_at": started_at}
    end |= {"finished_at": datetime.now(UTC).isoformat(), "running_s": round(time.monotonic() - begun, 3)}
    write_json(folder / "exit.json", end)


def main(arguments: Sequence[str]) -> int:
    """Leave a supervisor behind and return: 0 when the job is on or was before, else 1 with a line on stderr."""
    folder, timeout_s, grace_s, *command = arguments
    read, write = os.pipe()
    # A grandchild of the submitter: nobody has to wait for it, and no zombie stays in a long-lived submitter.
    if os.fork() == 0:
        os.close(read)
        _supervise(Path(folder), command, timeout_s=float(timeout_s), grace_s=float(grace_s), report=write)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as report:
        problem = report.read().decode(errors="replace")
    sys.stderr.write(problem)
    return 1 if problem else 0
