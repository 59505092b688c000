"""What the ledger tells of whoever plans, and of what a person asks for meanwhile."""

from typing import Literal

from pydantic import Field

from hfagent.agent.records import Record


class PlannerWoke(Record):
    """One wake of the planner ended."""

    kind: Literal["planner_woke"] = "planner_woke"
    planner: str
    calls: int
    input_tokens: int | None = None
    """Of ledgers that were written before there was `PlannerCalled`."""
    output_tokens: int | None = None
    estimated: bool = False
    cost_micro_usd: int | None = None


class PlannerCalled(Record):
    """The model that plans answered: written before what it asks for is done, so that its price is in the sum."""

    kind: Literal["planner_called"] = "planner_called"
    planner: str
    input_tokens: int
    output_tokens: int
    estimated: bool
    """Tokens are counted by characters, since the endpoint did not say."""
    cost_micro_usd: int | None
    """None where no price is set."""


class PlannerSwitched(Record):
    """Another one plans from here on: the rules while a model is away, and the model once it is back."""

    kind: Literal["planner_switched"] = "planner_switched"
    planner: str
    why: str


class Noted(Record):
    """A remark; it changes nothing by itself, but a planner reads those of a person."""

    kind: Literal["noted"] = "noted"
    text: str = Field(min_length=1)
    by: Literal["planner", "person"] = "planner"


class Paused(Record):
    """No job is launched from here on; one that runs goes on."""

    kind: Literal["paused"] = "paused"
    why: str


class Unpaused(Record):
    """Jobs are launched again."""

    kind: Literal["unpaused"] = "unpaused"


class ApprovalAsked(Record):
    """A training run waits until a person says yes."""

    kind: Literal["approval_asked"] = "approval_asked"
    run: str


class Approved(Record):
    """A person said yes to a training run."""

    kind: Literal["approved"] = "approved"
    run: str


class Vetoed(Record):
    """A person said no to a training run: it is not begun, or not gone on with."""

    kind: Literal["vetoed"] = "vetoed"
    run: str
    why: str


PlannerFact = (
    PlannerWoke | PlannerCalled | PlannerSwitched | Noted | Paused | Unpaused | ApprovalAsked | Approved | Vetoed
)
