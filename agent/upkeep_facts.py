"""What the ledger tells of itself, and of the machine that writes it."""

from typing import Literal

from pydantic import Field

from hfagent.agent.records import JobSpec, Record


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


class LimitNear(Record):
    """Most of what the project may take is used; told once a limit."""

    kind: Literal["limit_near"] = "limit_near"
    limit: Literal["budget", "time", "GPU hours", "planner tokens"]
    share: float = Field(ge=0)
    """Used of it; of the budget and the GPU hours also what is held."""


class OrphanFound(Record):
    """A job of this project runs that its ledger knows nothing of, e.g. of an older copy put back. It is ended."""

    kind: Literal["orphan_found"] = "orphan_found"
    key: str
    job_id: str
    url: str
    job: JobSpec | None = None
    """As far as it can be told, for what it may cost; None in older ledgers, which counted no cost of it."""


class Allotted(Record):
    """A stage that has ended is taken up again for an export, which may use what all stages left of their limits."""

    kind: Literal["allotted"] = "allotted"
    budget_micro_usd: int | None = Field(ge=0)
    """In all, with what the stage has cost before; None means no cap."""
    max_gpu_hours: float | None = Field(ge=0)


UpkeepFact = LineTorn | ClockJumped | LimitNear | OrphanFound | Allotted
