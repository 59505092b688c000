"""The processes of a job, as the kernel knows them: found, ended, and whether memory ran out. Standard library only."""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

MARKER = "HFAGENT_JOB"
_PR_SET_CHILD_SUBREAPER = 36


def boot_id() -> str | None:
    """The kernel's id of this start of the machine; None where it has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def marked(folder: Path) -> list[int]:
    """The living processes of a job, by the marker in the environment they were started with."""
    wanted = os.fsencode(f"{MARKER}={folder}")
    found = []
    for entry in processes():
        # Other people's processes are not readable.
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def end_all(find: Callable[[], list[int]], *, grace_s: float) -> bool:
    """SIGTERM to the processes found, SIGKILL to those that `grace_s` did not end; whether none is left."""
    signal_all(find(), signal.SIGTERM)
    if gone(find, grace_s):
        return True
    deadline = time.monotonic() + 5  # a killed process in an uninterruptible read may linger
    while time.monotonic() < deadline:
        signal_all(find(), signal.SIGKILL)  # again and again: one of them may have forked meanwhile
        if gone(find, 0.1):
            return True
    return False


def signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    """Signal processes listed just now: a pid is not reused before the kernel's counter went all the way round."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def gone(find: Callable[[], list[int]], within_s: float) -> bool:
    """Whether none is left that is found, at once or within so many seconds."""
    deadline = time.monotonic() + within_s
    while find():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def processes() -> Iterator[Path]:
    """The folders of /proc, one a process."""
    if Path("/proc/self/stat").exists():
        yield from (entry for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def descendants(root: int) -> list[int]:
    """The living processes below this one."""
    children: dict[int, list[int]] = {}
    for entry in processes():
        with contextlib.suppress(OSError):
            # The second field, the program's name, may hold spaces and parentheses.
            state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state not in "ZX":
                children.setdefault(int(parent), []).append(int(entry.name))
    found = list(children.get(root, ()))
    for pid in found:
        found += children.get(pid, ())
    return found


def become_subreaper() -> None:
    """Have orphans of this process's tree come back to it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def out_of_memory_kills() -> int | None:
    """Processes that the kernel has ended for want of memory since the machine began; None where it does not count."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return None
