"""The fact about an ability that must not be lost. Pure."""

from typing import Literal

from hfagent.agent.record import Record
from hfagent.agent.verdict import Verdict


class GuardCompared(Record):
    """The kept run against the base model on an ability that must not be lost."""

    kind: Literal["guard_compared"] = "guard_compared"
    guard: str
    candidate: str
    verdict: Verdict
