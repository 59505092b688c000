"""What the ledger tells of itself, and of the machine that writes it."""

from typing import Literal

from pydantic import Field

from hfagent.agent.records import Record


class LineTorn(Record):
    """The last line was cut off while it was written, e.g. by a power loss; what there was of it is kept elsewhere."""

    kind: Literal["line_torn"] = "line_torn"
    kept: str
    """File beside the ledger."""
    bytes: int = Field(ge=1)


class ClockJumped(Record):
    """The machine's clock was set, or the machine slept: times before and after are not of one clock."""

    kind: Literal["clock_jumped"] = "clock_jumped"
    seconds: float
    """Forward; negative is back."""


UpkeepFact = LineTorn | ClockJumped
