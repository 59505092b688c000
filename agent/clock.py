"""Wall-clock time, and what passes whatever it is set to."""

import time
from datetime import UTC, datetime


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The current time, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that passed, those of a sleeping machine left out."""
        return time.monotonic()
