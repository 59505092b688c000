"""The lines of a ledger: whole, in order, and each with the hash of the line before. Pure.

A change in the middle shows at the line after it. The end of the chain is held by nothing in it: who cuts lines off it,
or writes a whole chain anew, is found by an earlier hash alone, which a report tells (`Head`).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from pydantic import ValidationError

from hfagent.agent.errors import LedgerDamaged
from hfagent.agent.events import Event, from_dict

HASH_CHARS = 32


def link(line: bytes) -> str:
    """What the next line holds of this one, which is without its newline; that of no bytes begins a ledger."""
    return sha256(line).hexdigest()[:HASH_CHARS]


BEGIN = link(b"")


class Head(NamedTuple):
    """How far a ledger went at some time."""

    lines: int
    hash: str
    """Of the last of them."""


@dataclass(frozen=True)
class Chain:
    """A ledger that was read."""

    events: list[Event]
    hashes: tuple[str, ...]
    """Of each line."""
    size: int
    """Bytes of the whole lines."""
    torn: bytes
    """What follows them: a line that was never whole."""
    unlinked: int
    """First lines without a hash, by a version that wrote none: only their order is checked."""

    @property
    def head(self) -> str:
        """Hash of the last line."""
        return self.hashes[-1] if self.hashes else BEGIN

    def strays_from(self, earlier: Head) -> str | None:
        """Why this ledger is not the one that once went so far, or that one gone on with; None where it is."""
        have = len(self.hashes)
        if have < earlier.lines:
            return f"it had {earlier.lines} lines and has {have}: lines were cut off its end"
        if earlier.lines > 0 and self.hashes[earlier.lines - 1] != earlier.hash:
            return f"its line {earlier.lines} is another one than it was: it was written anew"
        return None


def parse(path: str, data: bytes) -> Chain:
    """Read the lines.

    Args:
        path: for messages.
        data: the file.

    Raises:
        LedgerDamaged: a line before the last is not what was written.
    """
    lines, size = _whole(data)
    events: list[Event] = []
    head, unlinked = BEGIN, 0
    hashes: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            told = json.loads(line)
            prev = told.pop("prev", None)
            event = from_dict(told)
        except (ValueError, AttributeError, TypeError) as error:
            why = f"it is no event that this version of hfagent knows: {_short(error)}"
            raise LedgerDamaged(path, number, why) from error
        if event.seq != number:
            raise LedgerDamaged(path, number, _misplaced(lines, number, event.seq))
        if prev is None and unlinked == number - 1:
            unlinked = number
        elif prev is None:
            raise LedgerDamaged(path, number, "it was not written by hfagent: it lacks the hash of the line before")
        elif prev != head:
            why = f"line {number} holds another hash of it: it was altered, or lines after it were taken out"
            raise LedgerDamaged(path, max(1, number - 1), why)
        head = link(line)
        hashes.append(head)
        events.append(event)
    return Chain(events=events, hashes=tuple(hashes), size=size, torn=data[size:], unlinked=unlinked)


def _whole(data: bytes) -> tuple[list[bytes], int]:
    """The whole lines and their size.

    A power loss may leave a last line with its newline and, in place of a page that never reached the disk, zeros,
    which no JSON holds.
    """
    size = data.rfind(b"\n") + 1
    lines = data[:size].split(b"\n")[:-1]
    if lines and b"\0" in lines[-1]:
        size -= len(lines.pop()) + 1
    return lines, size


def _misplaced(lines: list[bytes], number: int, seq: int) -> str:
    if seq < number:
        return f"it has the number {seq} once more: a line was repeated"
    if any(line.startswith(b'{"seq":%d,' % number) for line in lines[number:]):
        return f"it has the number {seq}, and line {number} comes later: lines were reordered"
    return f"it has the number {seq}: what was written as {number} is missing"


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(_problems(error))
    return str(error)


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors()[:3]:
        yield f"{'.'.join(map(str, problem['loc'])) or 'line'}: {problem['msg']}"
