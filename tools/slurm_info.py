"""What sinfo tells of the cluster."""

import re
from typing import NamedTuple

from hfagent.tools.slurm_commands import ask

FORMAT = "%P|%a|%G|%l"


class Partition(NamedTuple):
    """Nodes of a partition with the same devices."""

    name: str
    default: bool
    up: bool
    gres: str
    limit: str
    """Of a job's time, as Slurm writes it."""


def partitions() -> list[Partition]:
    """All partitions that this user sees.

    Raises:
        BackendAway: Slurm does not answer.
    """
    rows = [line.split("|") for line in ask(["sinfo", "--noheader", f"--format={FORMAT}"]).splitlines()]
    return [
        Partition(row[0].rstrip("*"), row[0].endswith("*"), row[1] == "up", row[2], row[3])
        for row in rows
        if len(row) == 4
    ]


def among(found: list[Partition], wanted: str | None) -> list[Partition]:
    """The rows of the partitions that jobs go to: those named, else the default."""
    if wanted is None:
        return [row for row in found if row.default]
    return [row for row in found if row.name in wanted.split(",")]


def has_gpus(partition: str | None) -> bool:
    """Whether the partition that jobs go to has GPUs.

    Raises:
        BackendAway: Slurm does not answer.
    """
    return any(re.search(r"\bgpu\b", row.gres) for row in among(partitions(), partition))
