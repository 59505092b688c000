"""Which rows of a dataset stand for all: at even distances, of a split on the Hub from several of its places."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

PLACES = 8
"""Of a split on the Hub, the first and the last included; each takes a few requests."""
SPREAD_S = 20.0
"""In which all places are read; then each gives what is wanted of it, and what is left of it stays unread."""

Row = dict[str, Any]


class Places(NamedTuple):
    """Rows of a split that was read in several places."""

    rows: list[Row]
    total: int | None
    """Rows of the split, where it was read to its end."""
    first_only: bool
    """It has one place, and time was over before its end: what comes after the first rows is unknown."""


def places(total: int, limit: int) -> list[int]:
    """At most `limit` indices of so many rows, at even distances."""
    count = min(total, limit)
    return [index * total // count for index in range(count)]


def picked(rows: Iterable[Row], limit: int) -> tuple[list[Row], int]:
    """Rows at even distances and how many there are. One pass, at most 2 x `limit` rows in memory."""
    kept: list[Row] = []
    total, step = 0, 1
    for row in rows:
        if total % step == 0:
            kept.append(row)
        total += 1
        if len(kept) > 2 * limit:
            kept, step = kept[::2], 2 * step
    return [kept[place] for place in places(len(kept), limit)], total


def spread_out(
    stream: Any, limit: int, *, seconds: float = SPREAD_S, clock: Callable[[], float] = time.monotonic
) -> Places:
    """About `limit` rows of several files of a split, or of several row groups where it has few Parquet files.

    Args:
        stream: the split as a `datasets.IterableDataset`.
        limit: rows that are wanted.
        seconds: in which all is read; a place has its share of what the places before it left.
        clock: seconds that pass.
    """
    parts, whole = _parts(stream)
    rows: list[Row] = []
    total, over = 0, clock() + seconds
    for left, part in zip(range(len(parts), 0, -1), parts, strict=True):
        now = clock()
        wanted = -(-limit // len(parts))
        timed = _Timed(part, least=wanted, until=now + (over - now) / left, clock=clock)
        found, count = picked(timed, wanted)
        rows += found
        total += count
        whole = whole and timed.ended
    rows = [rows[place] for place in places(len(rows), limit)]
    return Places(rows, total if whole else None, first_only=len(parts) == 1 and not whole)


def _parts(stream: Any) -> tuple[list[Any], bool]:
    """The places as streams, in order, and whether they are all that there is."""
    if stream.num_shards < PLACES:
        stream = stream.reshard()  # asks each Parquet file for its row groups
    shards = stream.num_shards
    if shards <= PLACES:
        return [stream.shard(shards, index) for index in range(shards)], True
    parts = [stream.shard(shards, index * (shards - 1) // (PLACES - 1)) for index in range(PLACES)]
    last = parts[-1].reshard()
    parts[-1] = last.shard(last.num_shards, last.num_shards - 1)
    return parts, False


class _Timed:
    """Rows until their end or a time, so many at least."""

    def __init__(self, rows: Iterable[Row], *, least: int, until: float, clock: Callable[[], float]):
        self._rows = rows
        self._least = least
        self._until = until
        self._clock = clock
        self.ended = False

    def __iter__(self) -> Iterator[Row]:
        for count, row in enumerate(self._rows, start=1):
            yield row
            if count >= self._least and self._clock() > self._until:
                return
        self.ended = True
