"""The only memory of a project: append-only JSONL, one writer, on disk before the effect it announces."""

import contextlib
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

from hfagent.agent import chain
from hfagent.agent.chain import Chain, Head
from hfagent.agent.errors import LedgerError, SettingsError, UsageError
from hfagent.agent.events import Event, Fact, PlanConfirmed, PlanMade, from_dict, to_line
from hfagent.agent.ports import Clock
from hfagent.agent.redact import holds_secret, redact_all
from hfagent.agent.upkeep_facts import LineTorn


def read(path: Path) -> list[Event]:
    """All whole events of a ledger; a torn last line (a crash while writing) is left out.

    Raises:
        LedgerError: no such file.
        LedgerDamaged: a line before the last is not what was written.
    """
    return read_chain(path).events


def read_chain(path: Path) -> Chain:
    """The events with what holds them together; raises as `read` does."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LedgerError(f"cannot read the ledger {str(path)!r}: {error.strerror}") from error
    return chain.parse(str(path), data)


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

    def __init__(self, path: Path, file: IO[bytes], clock: Clock, found: Chain, *, sync: bool = True):
        self.path = path
        self.events = found.events
        self._file = file
        self._clock = clock
        self._size = found.size
        self._head = found.head
        self._sync = sync
        self._listeners: list[Callable[[Event], None]] = []

    @property
    def head(self) -> Head:
        """How far it goes."""
        return Head(len(self.events), self._head)

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` after each event is on disk."""
        self._listeners.append(listener)

    def clear(self) -> None:
        """Forget everything: for a project that nobody confirmed."""
        self._file.truncate(0)
        self.events.clear()
        self._size, self._head = 0, chain.BEGIN
        for piece in _pieces(self.path):
            piece.unlink()

    def append(self, fact: Fact) -> Event:
        """Write the fact without any secrets, wait until the disk has it, and return the event.

        Raises:
            LedgerError: it could not be written; the ledger is as before.
        """
        event = Event(seq=len(self.events) + 1, at=self._clock.now(), fact=fact)
        line = to_line(event, prev=self._head)
        if holds_secret(line):
            event = _redacted(event)
            line = to_line(event, prev=self._head)
        data = line.encode()
        self._write(data + b"\n")
        self._head = chain.link(data)
        self.events.append(event)
        for listener in self._listeners:
            listener(event)
        return event

    def mend(self, torn: bytes) -> None:
        """Put a line that was never whole aside, its bytes kept, and tell of it.

        Raises:
            LedgerError: they cannot be kept; the ledger is as before.
        """
        if torn:
            piece = self.path.with_name(f"{self.path.name}.torn-after-{len(self.events)}")
            try:
                _keep(piece, torn)
                self._file.truncate(self._size)
            except OSError as error:
                raise _unwritable(self.path, error) from error
        told = {event.fact.kept for event in self.events if isinstance(event.fact, LineTorn)}
        for piece in _pieces(self.path):  # a crash may have come between the last repair and its line
            if piece.name not in told and (size := piece.stat().st_size):
                self.append(LineTorn(kept=piece.name, bytes=size))

    def _write(self, data: bytes) -> None:
        try:
            if self._file.seek(0, os.SEEK_END) != self._size:  # a failed write could not be taken back
                self._file.truncate(self._size)
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._sync:
                os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            raise _unwritable(self.path, error) from error
        self._size += len(data)


@contextmanager
def open_ledger(path: Path, clock: Clock, *, sync: bool = True) -> Iterator[Ledger]:
    """Lock a ledger for writing, create it if needed, and put a torn last line aside.

    Args:
        path: its file.
        clock: dates the events.
        sync: wait for the disk at each event; False is for rehearsals, which nobody resumes.

    Raises:
        UsageError: another process holds it.
        SettingsError: its folder cannot be written.
        LedgerError: it is damaged, or what is torn cannot be put aside.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
        while not _locked(file, path):  # whoever held it has abandoned the project meanwhile
            file.close()
            file = path.open("a+b", buffering=0)
    except OSError as error:
        raise SettingsError(
            f"cannot write the ledger {str(path)!r}: {error.strerror}; choose another folder with --reports-dir"
        ) from error
    with file:
        file.seek(0)
        found = chain.parse(str(path), file.read())
        if not sync:
            yield Ledger(path, file, clock, found, sync=False)
            return
        with _holding(_holder(path), clock):
            book = Ledger(path, file, clock, found)
            book.mend(found.torn)
            yield book


def _redacted(event: Event) -> Event:
    """The event without secrets; as it is where the masked one would be none, e.g. a name that looks like a key."""
    told = json.loads(to_line(event))
    kept = {name: told.pop(name) for name in ("seq", "at", "kind")}
    try:
        return from_dict({**kept, **redact_all(told)})
    except ValidationError:
        return event


def _locked(file: IO[bytes], path: Path) -> bool:
    """Take the lock, and tell whether the path still names this file.

    Raises:
        UsageError: another process holds it, and not for a moment only, as `is_held` does.
    """
    for _ in range(11):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        time.sleep(0.05)
    else:
        file.close()
        raise UsageError(
            f"another hfagent process{_held_by(_holder(path))} works on the project {path.stem!r}: see it with "
            f"`hfagent status {path.stem}`, end it with `hfagent cancel {path.stem}`"
        )
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def _holding(path: Path, clock: Clock) -> Iterator[None]:
    """Say who holds the lock, for the message to whoever comes second; the lock alone counts."""
    with contextlib.suppress(OSError):
        path.write_text(f"{os.getpid()} {clock.now():%Y-%m-%d %H:%M:%S} UTC", encoding="utf-8")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _holder(ledger: Path) -> Path:
    return ledger.with_name(f".{ledger.name}.holder")


def _held_by(path: Path) -> str:
    try:
        pid, since = path.read_text(encoding="utf-8").split(" ", 1)
    except (OSError, ValueError):
        return ""
    return f" (pid {pid}, since {since})"


def _keep(path: Path, data: bytes) -> None:
    """Write the file, whole and on disk, or leave none."""
    try:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _pieces(ledger: Path) -> list[Path]:
    return sorted(ledger.parent.glob(f"{ledger.name}.torn-after-*"))


def _unwritable(path: Path, error: OSError) -> LedgerError:
    return LedgerError(
        f"cannot write the ledger {str(path)!r}: {error.strerror}; free the disk, then `hfagent resume {path.stem}`"
    )


def is_confirmed(path: Path) -> bool:
    """Whether the project was ever started: one that was not may be replaced."""
    return any(isinstance(event.fact, PlanConfirmed) for event in read(path))


def pipeline_of(path: Path) -> str | None:
    """The pipeline that a ledger's project is a stage of, by its first line; None where it is none."""
    try:
        with path.open("rb") as file:
            fact = chain.parse(str(path), file.readline()).events[0].fact
    except (OSError, LedgerError, IndexError):
        return None
    stage = fact.plan.stage if isinstance(fact, PlanMade) else None
    return None if stage is None else stage.pipeline
