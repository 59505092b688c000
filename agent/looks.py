"""How often each confirm set was looked at, over all projects and restarts: a JSONL file that is only appended to.

A look is on disk before anything is evaluated, so a crash wastes no look and hides none: taken again, it is the same
look. What the file cannot prevent is its removal; the looks of a project also stand in that project's ledger.
"""

import errno
import fcntl
import json
import os
import time
from pathlib import Path
from typing import IO

from pydantic import Field, ValidationError

from hfagent.agent.errors import LedgerError, SettingsError
from hfagent.agent.findings import Look
from hfagent.agent.records import BenchmarkRef, ModelRef, Record
from hfagent.agent.sequential import LookKey, alpha_of_look, look_key

WAIT_S = 10.0
"""For another process that takes a look at the same moment; that takes milliseconds."""


class TakenLook(Record):
    """One line of the file."""

    key: LookKey
    project: str
    candidate: str
    number: int = Field(ge=1)
    """From 1, over all projects."""
    alpha: float = Field(gt=0, lt=1)


class LookBook:
    """The looks of one file, a `ports.Looks`. Any number of processes may share it."""

    def __init__(self, path: Path):
        self.path = path

    def take(self, model: ModelRef, benchmark: BenchmarkRef, *, project: str, candidate: str) -> Look:
        """The look of this candidate: its own if it was taken before, else the next one, on disk before it is returned.

        Args:
            model: the base model.
            benchmark: the confirm set; see `look_key` for what of both counts.
            project: a name that no other project has, its token included.
            candidate: the training run.

        Raises:
            SettingsError: the file cannot be made, opened or locked.
            LedgerError: it is damaged, or the look could not be written; no look was used.
        """
        key = look_key(model, benchmark)
        with self._open() as file:
            _lock(file, self.path)
            data = file.read()
            same = [look for look in _parse(self.path, data) if look.key == key]
            for look in same:
                if (look.project, look.candidate) == (project, candidate):
                    return Look(number=look.number, alpha=look.alpha)
            number = len(same) + 1
            look = TakenLook(key=key, project=project, candidate=candidate, number=number, alpha=alpha_of_look(number))
            file.truncate(data.rfind(b"\n") + 1)  # a torn last line: its look was never given out
            self._append(file, look)
            return Look(number=number, alpha=look.alpha)

    def _open(self) -> IO[bytes]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+b", buffering=0)
            file.seek(0)
        except OSError as error:
            raise SettingsError(
                f"cannot write the looks {str(self.path)!r}: {error.strerror}; no look was used; make the folder "
                "writable or choose another with HFAGENT_LOOKS_FILE"
            ) from error
        return file

    def _append(self, file: IO[bytes], look: TakenLook) -> None:
        line = look.model_dump_json().encode() + b"\n"
        size = file.seek(0, os.SEEK_END)
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
            if size == 0:
                _fsync_folder(self.path.parent)  # the file's name must outlive a crash, too
        except OSError as error:
            file.truncate(size)
            raise LedgerError(
                f"cannot write the looks {str(self.path)!r}: {error.strerror}; no look was used; free the disk, then "
                "`hfagent resume`"
            ) from error


def _lock(file: IO[bytes], path: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not isinstance(error, BlockingIOError) or time.monotonic() > deadline:
                raise SettingsError(
                    f"cannot lock the looks {str(path)!r} within {WAIT_S:g} s: {error.strerror}; end the process that "
                    "holds the file, or choose a folder whose file system has locks with HFAGENT_LOOKS_FILE"
                ) from error
            time.sleep(0.01)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parse(path: Path, data: bytes) -> list[TakenLook]:
    looks = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            looks.append(TakenLook.model_validate(json.loads(line)))
        except (ValueError, ValidationError) as error:
            raise LedgerError(
                f"line {number} of the looks {str(path)!r} is damaged ({str(error).splitlines()[0]}): repair or remove "
                "this line; without the file the confirm sets would count as unseen"
            ) from error
    return looks
