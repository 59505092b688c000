"""Notices a wake that goes in circles. Pure."""

import json
from collections import Counter
from collections.abc import Sequence

from hfagent.agent.proposals import Move

MAX_SAME = 3
"""Identical calls, while nothing changes."""
MAX_IDLE = 6
"""Turns in a row that change nothing."""


class Guard:
    """Watches the turns of one wake."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        """Why the wake must end; None while it may go on."""
        self._seen: Counter[str] = Counter()
        self._idle = 0

    def see(self, calls: Sequence[Move], *, changed: bool) -> None:
        """Note a turn.

        Args:
            calls: what was called in it.
            changed: whether the project is another one after it.
        """
        if changed:
            self._seen.clear()
            self._idle = 0
            return
        self._idle += 1
        if self._idle >= MAX_IDLE:
            self.trouble = f"{self._idle} turns in a row changed nothing"
        for call in calls:
            key = json.dumps([call.tool, call.args], sort_keys=True, default=str)
            self._seen[key] += 1
            if self._seen[key] >= MAX_SAME:
                self.trouble = f"{call.tool} was called {self._seen[key]} times with the same arguments"
