"""The folder of a job: made whole or not at all, and read as the job it tells of.

A job exists once its supervisor has written `run.json`. A folder without it belongs to a submitter that died before,
and the next submit of the key starts it. `hfagent.tools.job_supervisor` lists the files. The folders of local jobs must
lie on a local disk: network disks do not all keep the promise of flock. `hfagent.tools.cluster_folder` does without.
"""

import contextlib
import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hfagent.agent.records import Job, JobSpec, JobStage, Record
from hfagent.job_templates.runtime import RESULT_PREFIX
from hfagent.tools.job_processes import boot_id, end_all, marked
from hfagent.tools.job_supervisor import STRAGGLER_GRACE_S, sync_folder, write_json

ID_PREFIX = "local-"
_RESULT_TAIL_BYTES = 4 << 20


class _Submitted(Record):
    created_at: datetime
    spec: JobSpec


class Run(Record):
    """That a supervisor has started the command."""

    pid: int
    boot_id: str | None
    started_at: datetime
    command: tuple[str, ...]
    host: str | None = None
    """Machine of the cluster."""


class Ended(Record):
    """How a job ended."""

    exit_code: int | None
    stage: JobStage
    message: str | None
    started_at: datetime | None
    """None where it never began."""
    finished_at: datetime
    running_s: float | None = None
    """What passed, whatever the clock was set to meanwhile; None where the supervisor was killed."""


def create(folder: Path, spec: JobSpec, *, package: Path) -> None:
    """Make the folder, or leave an earlier one as it is.

    Args:
        folder: named by the spec's key.
        spec: what is to run.
        package: the folder of `hfagent`, which the job will be able to import.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        (new / "lock").touch()
        (new / "out").mkdir()
        # A folder with this package alone: with all of site-packages on PYTHONPATH, uv's own packages would lose.
        (new / "import").mkdir()
        (new / "import" / "hfagent").symlink_to(package)
        submitted = _Submitted(created_at=datetime.now(UTC), spec=spec)
        write_json(new / "spec.json", submitted.model_dump(mode="json"))
        new.rename(folder)
        sync_folder(folder.parent)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        if not folder.is_dir():  # else another submit was faster
            raise


def read_spec(folder: Path) -> JobSpec:
    """What the folder was made for."""
    return _submitted(folder).spec


def read_job(folder: Path) -> Job | None:
    """The job now; None as long as no supervisor has started it.

    A job whose supervisor is gone is buried first: what is left of it is ended (SIGKILL after 3 s), and it becomes an
    ERROR for good.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a file does not hold what it should.
    """
    if not (folder / "run.json").exists():
        # Even where the lock is held: a supervisor killed right now would leave an id that names nothing.
        return None
    ended = read_ended(folder) or _bury(folder)
    return open_job(folder, ID_PREFIX) if ended is None else ended_job(folder, ID_PREFIX, ended)


def open_job(folder: Path, prefix: str, *, waiting: str | None = None) -> Job:
    """A job that has not ended.

    Args:
        folder: of the job.
        prefix: of its id.
        waiting: why it has not begun, where that is known.
    """
    submitted = _submitted(folder)
    run = read_run(folder)
    return Job(
        id=prefix + folder.name,
        key=folder.name,
        stage="SCHEDULING" if run is None else "RUNNING",
        url=(folder / "log.txt").as_uri(),
        flavor=submitted.spec.flavor,
        created_at=submitted.created_at,
        started_at=None if run is None else run.started_at,
        message=waiting,
    )


def ended_job(folder: Path, prefix: str, ended: Ended) -> Job:
    """A job that has ended, with its result, or the checkpoints that it left."""
    result = _result(folder)
    if ended.stage == "COMPLETED" and result is None:
        ended = ended.model_copy(update={"stage": "ERROR", "message": "ended without a RESULT line"})
    if result is None:
        result = _left_behind(folder / "out")
    told = dict(ended)
    told["billed_s"] = told.pop("running_s") if ended.started_at is not None else 0.0
    return open_job(folder, prefix).model_copy(update={**told, "result": result})


def is_over(folder: Path) -> bool:
    """Whether a job that `read_job` has seen has ended or lost its supervisor; cheap enough to ask often."""
    with _lock(folder) as free:
        return free


def read_end(path: Path, limit: int) -> bytes:
    """The last bytes of a file, at most `limit`."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - limit))
        return file.read(limit)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Whether the lock was free; if so it is held inside. Only once run.json exists, so that no start is disturbed."""
    with (folder / "lock").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _bury(folder: Path) -> Ended | None:
    """End what a killed supervisor left behind and record it; None while a supervisor or another burial is at work."""
    with _lock(folder) as mine:
        # Asked under the lock, since the supervisor may have ended in good order a moment ago.
        run = read_run(folder)
        if mine and run is not None and not (folder / "exit.json").exists():
            cause = "its supervisor was killed" if run.boot_id == boot_id() else "the machine was restarted"
            end_all(lambda: marked(folder), grace_s=STRAGGLER_GRACE_S)
            last_sign = datetime.fromtimestamp((folder / "log.txt").stat().st_mtime, UTC)
            ended = Ended(
                exit_code=None,
                stage="ERROR",
                message=f"lost: {cause}",
                started_at=run.started_at,
                finished_at=max(run.started_at, last_sign),
            )
            write_json(folder / "exit.json", ended.model_dump(mode="json"))
    return read_ended(folder)


def _submitted(folder: Path) -> _Submitted:
    return _Submitted.model_validate_json((folder / "spec.json").read_bytes())


def read_run(folder: Path) -> Run | None:
    """The start of the job; None before it."""
    path = folder / "run.json"
    return Run.model_validate_json(path.read_bytes()) if path.exists() else None


def read_ended(folder: Path) -> Ended | None:
    """The recorded end of the job; None before it."""
    path = folder / "exit.json"
    return Ended.model_validate_json(path.read_bytes()) if path.exists() else None


def _result(folder: Path) -> dict[str, Any] | None:
    """What the script left as its result: in a file where it did, else in its log."""
    with contextlib.suppress(OSError, ValueError):
        value = json.loads((folder / "result.json").read_bytes(), parse_constant=_refuse_constant)
        return value if isinstance(value, dict) else None
    log = folder / "log.txt"
    lines = read_end(log, _RESULT_TAIL_BYTES).decode(errors="replace").split("\n") if log.exists() else []
    return last_result(lines)


def _left_behind(out: Path) -> dict[str, Any] | None:
    """The checkpoints of a job that ended without a result, as a training that was cut off reports them."""
    # The Trainer writes this file last.
    whole = [path.parent for path in out.glob("checkpoint-*/trainer_state.json")]
    steps = sorted((int(path.name.removeprefix("checkpoint-")), str(path)) for path in whole)
    return {"checkpoints": {str(step): path for step, path in steps}} if steps else None


def last_result(lines: Sequence[str]) -> dict[str, Any] | None:
    """The object of a log's last readable RESULT line; a progress bar may stand before it on the same line."""
    for line in reversed(lines):
        _, found, after = line.partition(f"{RESULT_PREFIX}{{")
        if found:
            with contextlib.suppress(ValueError):
                value = json.loads("{" + after, parse_constant=_refuse_constant)
                return value if isinstance(value, dict) else None
    return None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
