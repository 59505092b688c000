"""What a person asks of a night that runs in another process: small files in a folder, taken in order.

Nothing is acted on here: the process that holds the ledger heeds each request at its next look, see `Desk.heed`.
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field, ValidationError

from hfagent.agent.errors import SettingsError
from hfagent.agent.records import Record

MAX_TEXT = 2000
"""Characters of a reason."""

Ask = Literal["stop", "pause", "resume", "approve", "veto", "steer"]


class Request(Record):
    """One thing that a person asks for."""

    ask: Ask
    run: str | None = None
    """Of `approve` and `veto`; None is the one that waits, or runs."""
    text: str = Field(default="", max_length=MAX_TEXT)
    """The reason, or what to keep in mind."""


class Mailbox(Protocol):
    """Where requests arrive."""

    def stop_asked(self) -> str | None:
        """Why the night is to stop; None while nobody asks for it. The request stays."""
        ...

    def take(self) -> Iterable[Request]:
        """What arrived beside requests to stop, oldest first; each is forgotten once the next one is asked for."""
        ...

    def clear(self) -> None:
        """Forget everything, e.g. requests that were meant for an earlier night."""
        ...


class FolderMailbox:
    """A mailbox on disk, one for each project."""

    def __init__(self, folder: Path):
        self._folder = folder

    def post(self, request: Request) -> None:
        """Put a request in; it is whole or not there.

        Raises:
            SettingsError: it cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"{time.time_ns():020d}-{os.getpid()}"
            part = self._folder / f"{name}.part"
            part.write_text(request.model_dump_json(), encoding="utf-8")
            part.rename(self._folder / f"{name}.json")
        except OSError as error:
            for part in self._folder.glob(f"*-{os.getpid()}.part"):
                part.unlink(missing_ok=True)
            raise SettingsError(
                f"cannot write a request into {str(self._folder)!r}: {error.strerror}; choose another --state-dir"
            ) from error

    def stop_asked(self) -> str | None:
        """Why the night is to stop."""
        for _, request in self._read():
            if request.ask == "stop":
                return request.text or "asked to stop"
        return None

    def take(self) -> Iterable[Request]:
        """What arrived beside requests to stop."""
        for path, request in self._read():
            if request.ask != "stop":
                yield request
                path.unlink(missing_ok=True)  # not before: heeding it may fail

    def clear(self) -> None:
        """Forget everything."""
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []

    def _read(self) -> list[tuple[Path, Request]]:
        found = []
        for path in self._files():
            try:
                found.append((path, Request.model_validate_json(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError, ValidationError):
                path.unlink(missing_ok=True)  # nobody's request: no version of hfagent writes it so
        return found


class StageMailbox:
    """Of a stage: what is asked of its pipeline is asked of it, too; a request to stop stays with the pipeline."""

    def __init__(self, own: Mailbox, pipeline: Mailbox):
        self._own = own
        self._pipeline = pipeline

    def stop_asked(self) -> str | None:
        """Why the night is to stop."""
        return self._own.stop_asked() or self._pipeline.stop_asked()

    def take(self) -> Iterable[Request]:
        """What arrived beside requests to stop."""
        yield from self._own.take()
        yield from self._pipeline.take()

    def clear(self) -> None:
        """Forget what was asked of the stage alone."""
        self._own.clear()


class NoMailbox:
    """Of a night that nobody can reach."""

    def stop_asked(self) -> str | None:
        """Never."""
        return None

    def take(self) -> Iterable[Request]:
        """Nothing."""
        return ()

    def clear(self) -> None:
        """Nothing to do."""
