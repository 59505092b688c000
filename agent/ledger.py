"""The only memory of a project: append-only JSONL, one writer, on disk before the effect it announces."""

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from hfagent.agent.errors import LedgerError, SettingsError, UsageError
from hfagent.agent.events import Event, Fact, PlanConfirmed, PlanMade, from_dict, to_line
from hfagent.agent.ports import Clock
from hfagent.agent.redact import holds_secret, redact_all


def read(path: Path) -> list[Event]:
    """All whole events of a ledger; a torn last line (a crash while writing) is left out.

    Raises:
        LedgerError: no such file, or a damaged line before the last.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LedgerError(f"cannot read the ledger {str(path)!r}: {error.strerror}") from error
    return _parse(path, data)


def is_held(path: Path) -> bool:
    """Whether an hfagent process is writing this ledger now."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class Ledger:
    """An open ledger. Made by `open_ledger`, which holds the lock."""

    def __init__(self, path: Path, file: IO[bytes], clock: Clock, events: list[Event], *, sync: bool = True):
        self.path = path
        self.events = events
        self._file = file
        self._clock = clock
        self._sync = sync
        self._listeners: list[Callable[[Event], None]] = []

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` after each event is on disk."""
        self._listeners.append(listener)

    def clear(self) -> None:
        """Forget everything: for a project that nobody confirmed."""
        self._file.truncate(0)
        self.events.clear()

    def append(self, fact: Fact) -> Event:
        """Write the fact without any secrets, wait until the disk has it, and return the event.

        Raises:
            LedgerError: it could not be written; the ledger is as before.
        """
        event = Event(seq=len(self.events) + 1, at=self._clock.now(), fact=fact)
        line = to_line(event)
        if holds_secret(line):
            event = _redacted(event)
            line = to_line(event)
        data = line.encode() + b"\n"
        size = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._sync:
                os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(size)
            raise LedgerError(
                f"cannot write the ledger {str(self.path)!r}: {error.strerror}; free the disk, then `hfagent resume`"
            ) from error
        self.events.append(event)
        for listener in self._listeners:
            listener(event)
        return event


@contextmanager
def open_ledger(path: Path, clock: Clock, *, sync: bool = True) -> Iterator[Ledger]:
    """Lock a ledger for writing, create it if needed, and cut off a torn last line.

    Args:
        path: its file.
        clock: dates the events.
        sync: wait for the disk at each event; False is for rehearsals, which nobody resumes.

    Raises:
        UsageError: another process holds it.
        SettingsError: its folder cannot be written.
        LedgerError: it is damaged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise SettingsError(
            f"cannot write the ledger {str(path)!r}: {error.strerror}; choose another folder with --reports-dir"
        ) from error
    with file:
        try:
            _lock(file)
        except OSError as error:
            raise UsageError(
                f"another hfagent process works on the project {path.stem!r}; see `hfagent status {path.stem}`"
            ) from error
        file.seek(0)
        data = file.read()
        events = _parse(path, data)
        file.truncate(data.rfind(b"\n") + 1)
        yield Ledger(path, file, clock, events, sync=sync)


def _redacted(event: Event) -> Event:
    """The event without secrets; as it is where the masked one would be none, e.g. a name that looks like a key."""
    told = json.loads(to_line(event))
    kept = {name: told.pop(name) for name in ("seq", "at", "kind")}
    try:
        return from_dict({**kept, **redact_all(told)})
    except ValidationError:
        return event


def _lock(file: IO[bytes]) -> None:
    """Take the lock; a moment's patience, since `is_held` takes it for a moment, too."""
    for _ in range(10):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
    return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_confirmed(path: Path) -> bool:
    """Whether the project was ever started: one that was not may be replaced."""
    return any(isinstance(event.fact, PlanConfirmed) for event in read(path))


def pipeline_of(path: Path) -> str | None:
    """The pipeline that a ledger's project is a stage of, by its first line; None where it is none."""
    try:
        with path.open("rb") as file:
            fact = from_dict(json.loads(file.readline())).fact
    except (OSError, ValueError, ValidationError):
        return None
    stage = fact.plan.stage if isinstance(fact, PlanMade) else None
    return None if stage is None else stage.pipeline


def _parse(path: Path, data: bytes) -> list[Event]:
    lines = data.split(b"\n")[:-1]
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            event = from_dict(json.loads(line))
        except (ValueError, ValidationError) as error:
            raise LedgerError(f"line {number} of the ledger {str(path)!r} is damaged: {error}") from error
        if event.seq != number:
            raise LedgerError(
                f"line {number} of the ledger {str(path)!r} has seq {event.seq}: lines were lost or added"
            )
        events.append(event)
    return events
