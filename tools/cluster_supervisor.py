"""Runs one job on a machine of a cluster; Slurm and Ray start it with the job's folder, which both sides see.

    python -S -m hfagent.tools.cluster_supervisor FOLDER

Standard library only. It adds to what `hfagent.tools.job_supervisor` writes, and leaves out its lock, which network
disks may not keep:
    start.json  what to run, where, with which variables; gone once it is read, for it may hold a token
    claim       made by the first supervisor of the key, or by whoever has given the job up; any later one ends at once
    alive       touched every `BEAT_S` seconds as long as the supervisor lives
"""

import ctypes
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hfagent.tools.job_processes import boot_id, end_all, marked
from hfagent.tools.job_supervisor import fill, reserve_end, run_command, sync_folder, write_json

BEAT_S = 5.0
NODES_OWN = ("SLURM", "CUDA_", "NVIDIA_", "ROCR_", "HIP_", "ZE_", "GPU_", "RAY_")
"""Variables that begin so are the cluster's, whatever they are where the job was submitted."""
_PR_SET_PDEATHSIG = 1


def claim(folder: Path, who: str) -> bool:
    """Whether the job is the caller's from now on: exactly one of all callers on all machines is told so."""
    try:
        # Exclusive creation is atomic on NFS, too.
        descriptor = os.open(folder / "claim", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        file.write(who)
    return True


def write_end(folder: Path, end: dict[str, Any], *, by: str) -> bool:
    """Record how a job ended, unless that is recorded already: an end is final, on whichever machine it was written."""
    path = folder / "exit.json"
    new = folder / f"exit.json.{by}"
    fill(new, end)
    try:
        os.link(new, path)  # asks the disk itself, whatever this machine remembers of it
    except FileExistsError:
        return False
    except OSError:  # a disk without links
        if path.exists():
            return False
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    sync_folder(folder)
    return True


class _Pulse:
    """Touches `alive` at intervals."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "alive"
        self._path.touch()
        self._next = 0.0

    def beat(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + BEAT_S
            try:
                os.utime(self._path)
            except OSError:
                return  # the disk may come back


def _die_with_parent() -> None:
    """Have the kernel end the command with its supervisor: on another machine nobody could."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def watch_over(folder: Path) -> None:
    """Leave a process that ends what is left of the job once this one is gone, however it went.

    The kernel ends the command alone with its supervisor, and where the command is uv, the training is uv's child.
    """
    gone, held = os.pipe()  # the kernel closes `held` with this process; no command inherits it
    if (child := os.fork()) == 0:
        if os.fork() == 0:  # a grandchild, which is no part of the job's tree
            os.setsid()
            os.close(held)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            os.read(gone, 1)
            end_all(lambda: marked(folder), grace_s=0.0)
        os._exit(0)
    os.waitpid(child, 0)
    os.close(gone)


def main(arguments: Sequence[str]) -> int:
    """Run the job unless it has been claimed before; returns its exit code."""
    folder = Path(arguments[0])
    host = socket.gethostname()
    if not claim(folder, f"{host} {os.getpid()}"):
        sys.stderr.write(f"{folder.name} has been started before, or was given up: it is not started again\n")
        if any((folder / name).exists() for name in ("run.json", "exit.json")):  # before that it is still to be read
            (folder / "start.json").unlink(missing_ok=True)
        return 0
    pulse = _Pulse(folder)
    start = json.loads((folder / "start.json").read_bytes())
    (folder / "start.json").unlink()
    own = {name: value for name, value in os.environ.items() if name.startswith((*NODES_OWN, "TMPDIR", "HOSTNAME"))}
    os.environ.clear()
    os.environ.update(start["environment"] | own)
    os.chdir(start["cwd"])
    with (folder / "log.txt").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    reserve_end(folder)
    started_at = datetime.now(UTC).isoformat()
    begun = time.monotonic()
    run = {"pid": os.getpid(), "boot_id": boot_id(), "started_at": started_at, "command": start["command"]}
    write_json(folder / "run.json", run | {"host": host})
    watch_over(folder)
    exit_code, stage, message = run_command(
        folder,
        start["command"],
        timeout_s=start["timeout_s"],
        grace_s=start["grace_s"],
        before=_die_with_parent,
        beat=pulse.beat,
    )
    end: dict[str, Any] = {"exit_code": exit_code, "stage": stage, "message": message, "started_at": started_at}
    end |= {"finished_at": datetime.now(UTC).isoformat(), "running_s": round(time.monotonic() - begun, 3)}
    write_end(folder, end, by="new")
    (folder / "start.json").unlink(missing_ok=True)  # a submit whose answer was lost may have been repeated meanwhile
    return 1 if exit_code is None else exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
