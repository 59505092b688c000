"""What a night tells, apart from times and from what a kill adds: to be held against an undisturbed night."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfagent.agent.events import (
    Claimed,
    Compared,
    Decided,
    JobEnded,
    JobIntended,
    LookTaken,
    NoiseMeasured,
    PlanMade,
    ProjectEnded,
    Scored,
    SearchEnded,
)
from hfagent.agent.folding import fold
from hfagent.agent.ledger import read

TOLD = (
    PlanMade, JobIntended, JobEnded, Scored, Compared, Decided, LookTaken, NoiseMeasured, SearchEnded, Claimed,
    ProjectEnded,
)  # fmt: skip
"""Facts that a kill may not change; the others tell of the process, or come when it happens to look."""
OF_TIME = {"timeout_s", "finished_at", "running_s"}


def facts(path: Path) -> list[dict[str, Any]]:
    """What a night found, without times."""
    return [_timeless(event.fact.model_dump(mode="json")) for event in read(path) if isinstance(event.fact, TOLD)]


def lost(path: Path) -> list[str]:
    """Keys of the attempts that were lost."""
    state = fold(read(path))
    assert state is not None
    return [attempt.job.key for run in state.runs.values() for attempt in run.attempts if attempt.lost]


def without_lost(path: Path) -> list[dict[str, Any]]:
    """The same, as if the attempts that were lost had never been, and each job were a first attempt."""
    gone = set(lost(path))
    kept = [fact for fact in facts(path) if _key(fact) not in gone]
    found: list[dict[str, Any]] = json.loads(re.sub(r"-a[2-9]\b", "-a1", json.dumps(kept)))
    for fact in found:
        if fact["kind"] == "job_intended":
            fact["job"]["args"] = [re.sub(r"-a1$", "", arg) for arg in fact["job"]["args"]]
    return found


def _key(fact: Mapping[str, Any]) -> str | None:
    key = fact.get("key") or fact.get("job", {}).get("key")
    return None if key is None else str(key)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(item) for name, item in value.items() if name not in OF_TIME}
    return value
