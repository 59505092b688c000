"""What Slurm says about a job, in the terms of a runner. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hfagent.agent.runs import OUT_OF_MEMORY, TIMED_OUT
from hfagent.tools.cluster_folder import End
from hfagent.tools.cluster_jobs import Entry

WAITING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
)
FINISHED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "DEADLINE", "OUT_OF_MEMORY"})
MACHINE = frozenset({"NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED", "LAUNCH_FAILED", "RECONFIG_FAIL"})
"""What the job is not to blame for: it is begun again."""
FORMAT = "%A|%T|%r|%j|%k"
"""Of squeue: number, state, reason, name, comment. The comment stands last, for it may hold anything."""
MARK = "hfagent:"
"""How the comments of hfagent's jobs begin; the job's folder follows."""


class Line(NamedTuple):
    """A line of squeue."""

    number: int
    state: str
    reason: str
    name: str
    comment: str


def parse(text: str) -> list[Line]:
    """The lines of squeue in `FORMAT`; those that cannot be read are somebody else's."""
    lines = []
    for line in text.splitlines():
        number, *fields = line.split("|", maxsplit=4)
        if number.isdecimal() and len(fields) == 4:
            lines.append(Line(int(number), *fields))
    return lines


def comment(folder: str) -> str:
    """What sets a job apart from one of the same name in another folder."""
    return MARK + folder


def chosen(lines: Sequence[Line], root: str) -> tuple[dict[str, Line], list[Line]]:
    """The job of each name, and second ones that still wait.

    One that runs counts before one that waits, and that before one that is over. A comment that a site has written over
    says nothing against a job; that of another hfagent does.
    """
    of_name: dict[str, list[Line]] = {}
    for line in lines:
        if not line.comment.startswith(MARK) or line.comment == comment(f"{root}/{line.name}"):
            of_name.setdefault(line.name, []).append(line)
    found = {name: min(jobs, key=_rank) for name, jobs in of_name.items()}
    extra = [
        line
        for name, jobs in of_name.items()
        for line in jobs
        if line != found[name] and line.state in WAITING and _phase(found[name].state) != "over"
    ]
    return found, extra


def entry(line: Line) -> Entry:
    """A job of the queue. A state that is not known counts as running: its folder tells more."""
    phase = _phase(line.state)
    number = str(line.number)
    if phase == "waiting":
        return Entry(number, "waiting", f"{line.state}: {line.reason}")
    if phase == "running":
        return Entry(number, "running", line.state)
    ends = ended(line.state, line.reason)
    return Entry(number, "over", line.state, **ends, known_cause=line.state not in ("COMPLETED", "FAILED"))


def ended(state: str, reason: str = "") -> Mapping[str, End]:
    """How a job counts that is in a terminal state and has not told its end itself, before it had begun and after."""
    why = f" ({reason})" if reason not in ("", "None") else ""
    if state == "TIMEOUT":
        end = End("ERROR", None, TIMED_OUT)
    elif state == "DEADLINE":
        end = End("ERROR", None, f"{TIMED_OUT}: Slurm's deadline passed")
    elif state == "OUT_OF_MEMORY":
        mend = 'ask for more, e.g. slurm_options = "--mem=32G"'
        end = End("ERROR", OUT_OF_MEMORY, f"out of memory: Slurm ended it at its limit; {mend}")
    elif state == "CANCELLED":
        end = End("CANCELED", None, "canceled in Slurm")
    elif state == "FAILED":
        return {
            "unbegun": End("ERROR", 1, f"Slurm's job failed before the script began{why}"),
            "begun": End("ERROR", None, f"lost: its supervisor was killed{why}"),
        }
    elif state == "COMPLETED":
        end = End("ERROR", None, "lost: Slurm calls it completed, and it left no end")
    else:
        end = End("ERROR", None, f"lost: Slurm ended it as {state}{why}")
    return {"unbegun": end, "begun": end}


def _phase(state: str) -> str:
    if state in WAITING:
        return "waiting"
    return "over" if state in FINISHED | MACHINE else "running"


def _rank(line: Line) -> tuple[int, bool, int]:
    phase = _phase(line.state)
    if phase == "over":  # a second one that was cancelled tells nothing of the first
        return 2, line.state == "CANCELLED", -line.number
    return (0 if phase == "running" else 1), False, line.number
