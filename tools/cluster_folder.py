"""The folder of a job on a cluster, seen from where it was submitted. Nothing here trusts a lock or two clocks."""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from hfagent.agent.records import JobStage, Record
from hfagent.job_templates.runtime import RESULT_FILE
from hfagent.tools import cluster_supervisor
from hfagent.tools.job_folder import Ended, read_ended, read_run
from hfagent.tools.job_home import end_of_log
from hfagent.tools.job_supervisor import SIGNALED, write_json


class End(NamedTuple):
    """How a job ended that did not say so itself."""

    stage: JobStage
    exit_code: int | None
    """None says that the machine failed and not the script, so that the job may be begun again."""
    message: str


class Ticket(Record):
    """That the cluster has taken the job."""

    number: str
    """The cluster's own name of it."""
    at: datetime


def prepare(
    folder: Path, command: Sequence[str], *, environment: dict[str, str], timeout_s: float, grace_s: float
) -> list[str]:
    """Write down what is to run; gives the command that has it run, whichever machine calls it."""
    own = cluster_supervisor.NODES_OWN
    kept = {name: value for name, value in environment.items() if not name.startswith(own)}
    start = {
        "command": list(command),
        "environment": kept | {RESULT_FILE: str(folder / "result.json")},
        "cwd": str(Path.cwd()),
        "timeout_s": timeout_s,
        "grace_s": grace_s,
    }
    write_json(folder / "start.json", start)
    return supervised(folder)


def supervised(folder: Path) -> list[str]:
    """The command that runs a prepared job. It names no secret: everybody sees it in the queue."""
    variables = [f"PYTHONPATH={folder / 'import'}", "PYTHONSAFEPATH=1", "PYTHONDONTWRITEBYTECODE=1"]
    return ["env", *variables, sys.executable, "-S", "-m", cluster_supervisor.__name__, str(folder)]


def write_ticket(folder: Path, number: str) -> None:
    """Remember that the cluster has taken the job."""
    write_json(folder / "ticket.json", Ticket(number=number, at=datetime.now(UTC)).model_dump(mode="json"))


def read_ticket(folder: Path) -> Ticket | None:
    """What the cluster answered to the submit; None while no answer is known."""
    path = folder / "ticket.json"
    return Ticket.model_validate_json(path.read_bytes()) if path.exists() else None


def claimed(folder: Path) -> bool:
    """Whether a supervisor has begun, or the job was given up."""
    return (folder / "claim").exists()


def silent_s(folder: Path) -> float:
    """Seconds since the supervisor's last sign of life."""
    return min(age_s(folder, name) for name in ("alive", "claim"))


def age_s(folder: Path, name: str) -> float:
    """Seconds since a file was touched, by the clock of the disk; infinite where there is none."""
    try:
        # Opened, since a network disk answers from memory about a file that is only looked at.
        with (folder / name).open("rb") as file:
            touched = os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return float("inf")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".now-") as now:
            return os.fstat(now.fileno()).st_mtime - touched
    except OSError:  # a full disk takes no file
        return time.time() - touched


def give_up(folder: Path, end: End) -> bool:
    """Record the end of a job that did not say so itself; False where a supervisor has just begun it, or told its end.

    A supervisor that lives against all appearance ends its job as cancelled, and changes nothing here.
    """
    run = read_run(folder)
    if run is None and not claimed(folder) and not cluster_supervisor.claim(folder, f"given up: {end.message}"):
        return False
    (folder / "cancel").touch()
    (folder / "start.json").unlink(missing_ok=True)
    log = folder / "log.txt"
    last = datetime.fromtimestamp(log.stat().st_mtime, UTC) if log.exists() else datetime.now(UTC)
    started_at = None if run is None else run.started_at
    ended = Ended(
        exit_code=end.exit_code,
        stage=end.stage,
        message=end.message,
        started_at=started_at,
        finished_at=last if started_at is None else max(started_at, last),
    )
    return cluster_supervisor.write_end(folder, ended.model_dump(mode="json"), by="given-up")


def signaled(ended: Ended) -> bool:
    """Whether a job got a signal from outside, of which the cluster may know why it came."""
    return (ended.message or "").startswith(SIGNALED)


def told(folder: Path) -> bool:
    """Whether a job has said how it ended, and nobody else has to say why."""
    try:
        ended = read_ended(folder)
    except OSError:  # the disk may come back
        return False
    except ValueError:  # whoever looks at the job is told
        return True
    return ended is not None and not signaled(ended)


def cluster_said(folder: Path, tail: int) -> list[str]:
    """What a job printed before it had a log, e.g. that its Python is not there."""
    outputs = sorted(folder.glob("*.out"), key=lambda path: path.stat().st_mtime)
    return list(end_of_log(outputs[-1], tail)) if outputs else []


def explain(folder: Path, ended: Ended, end: End) -> Ended:
    """A recorded end with the cluster's better knowledge of its cause."""
    better = ended.model_copy(update={"stage": end.stage, "message": end.message, "exit_code": end.exit_code})
    write_json(folder / "exit.json", better.model_dump(mode="json"))
    return better
