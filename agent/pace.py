"""Whether the clock still goes with the time that passes."""

from hfagent.agent.ports import Clock

JUMP_S = 30.0
"""Less than this misleads nobody: limits on silence are minutes."""


class Pace:
    """Compares the clock with what passed, from one look to the next."""

    def __init__(self, clock: Clock):
        self._clock = clock
        self._seen = (clock.now(), clock.monotonic())

    def jump_s(self) -> float | None:
        """Seconds that the clock went more than time passed since the last look; None where they are few."""
        (then, before), self._seen = self._seen, (self._clock.now(), self._clock.monotonic())
        now, passed = self._seen
        jump = (now - then).total_seconds() - (passed - before)
        return jump if abs(jump) >= JUMP_S else None
