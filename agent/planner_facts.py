"""What the ledger tells of whoever plans."""

from typing import Literal

from pydantic import Field

from hfagent.agent.records import Record


class PlannerWoke(Record):
    """One wake of the planner ended."""

    kind: Literal["planner_woke"] = "planner_woke"
    planner: str
    calls: int
    input_tokens: int | None
    output_tokens: int | None
    estimated: bool = False
    """Tokens are counted by characters, since the endpoint did not say."""
    cost_micro_usd: int | None = None
    """None where no price is set."""


class PlannerSwitched(Record):
    """Another one plans from here on: the rules while a model is away, and the model once it is back."""

    kind: Literal["planner_switched"] = "planner_switched"
    planner: str
    why: str


class Noted(Record):
    """A planner's or a person's remark; it changes nothing."""

    kind: Literal["noted"] = "noted"
    text: str = Field(min_length=1)
