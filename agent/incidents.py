"""Which facts the decision log tells beside verdicts and decisions. Pure."""

from hfagent.agent.backend_facts import BackendFound, BackendLost, StrayFound, SubmitRetried
from hfagent.agent.events import (
    Crashed,
    EpochOpened,
    Flagged,
    LookTaken,
    NoiseMeasured,
    Proposed,
    Refused,
    Resumed,
    SearchEnded,
)
from hfagent.agent.planner_facts import ApprovalAsked, Approved, Noted, Paused, PlannerSwitched, Unpaused, Vetoed
from hfagent.agent.upkeep_facts import ClockJumped, LimitNear, LineTorn, OrphanFound

INCIDENTS = (
    Refused, Resumed, Crashed, Proposed, SearchEnded, Flagged, EpochOpened, NoiseMeasured, LookTaken,
    PlannerSwitched, Noted, Paused, Unpaused, ApprovalAsked, Approved, Vetoed,
    BackendLost, BackendFound, SubmitRetried, StrayFound, LineTorn, ClockJumped, LimitNear, OrphanFound,
)  # fmt: skip
