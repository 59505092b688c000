"""When the report's file is brought up to date: while a job runs, so that no job waits for it, and for a small share of
the time, however long it has become."""

import time
from collections.abc import Callable
from pathlib import Path

from hfagent.agent import report
from hfagent.agent.chain import Head
from hfagent.agent.errors import ReportError
from hfagent.agent.state import State

SHARE = 0.02
"""Of a processor core that the report may take: it grows with the runs, and 1,000 take 0.65 s each time."""


class ReportFile:
    """Follows a project; `follow` after each event, `tick` after each look at the jobs, `close` at the end.

    Args:
        path: of the report.
        warn: told where it cannot be written.
        write: writes it.
        clock: seconds that pass.
        work: seconds that this thread computes.
    """

    def __init__(
        self,
        path: Path,
        warn: Callable[[str], None],
        *,
        write: Callable[[State, Path, Head], None] = report.write,
        clock: Callable[[], float] = time.monotonic,
        work: Callable[[], float] = time.thread_time,
    ) -> None:
        self._path, self._warn, self._write, self._clock, self._work = path, warn, write, clock, work
        self._new: tuple[State, Head] | None = None
        """What the file does not show yet, and how far the ledger goes."""
        self._ticked: State | None = None
        self._due = clock()

    def follow(self, state: State, head: Head) -> None:
        """Take note of an event; what a person is asked about, and the end, are written at once."""
        self._new = state, head
        if not state.confirmed or state.ended is not None:
            self.close()

    def tick(self, state: State) -> None:
        """Write what is new, if a job runs or nothing happens, and the time has come."""
        idle, self._ticked = state is self._ticked, state
        if (state.open_attempts or idle) and self._clock() >= self._due:
            self.close()

    def close(self) -> None:
        """Write what is new."""
        if self._new is None:
            return
        begun, (state, head) = self._work(), self._new
        try:
            self._write(state, self._path, head)
        except ReportError as error:
            self._warn(str(error))
        self._new = None
        self._due = self._clock() + (self._work() - begun) / SHARE
