"""What the ledger tells of itself."""

from typing import Literal

from pydantic import Field

from hfagent.agent.records import Record


class LineTorn(Record):
    """The last line was cut off while it was written, e.g. by a power loss; what there was of it is kept elsewhere."""

    kind: Literal["line_torn"] = "line_torn"
    kept: str
    """File beside the ledger."""
    bytes: int = Field(ge=1)


UpkeepFact = LineTorn
