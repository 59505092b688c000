"""Which problems a night searches and confirms on. Pure."""

import re
from collections.abc import Sequence
from typing import Any

from hfagent.agent.errors import PlanRejected
from hfagent.agent.recipes import Choices
from hfagent.agent.records import BenchmarkRef

QUICK_PROBLEMS = 40
OWN = ".jsonl"
"""A benchmark of one's own is such a file."""


def choose_benchmarks(
    wanted: str | None, base: Choices, available: Sequence[str], *, seed: int, quick: bool
) -> tuple[BenchmarkRef, BenchmarkRef]:
    """The search set and the confirm set.

    Args:
        wanted: benchmark of the confirm set, or a file that has problems for both.
        base: what the recipe takes.
        available: names of the benchmarks that can be evaluated here.
        seed: of procedural ones.
        quick: only some problems.

    Raises:
        PlanRejected: one of them cannot be evaluated here.
    """
    changes: dict[str, Any] = {"seed": seed} | ({"n": QUICK_PROBLEMS} if quick else {})
    if wanted is not None and wanted.lower().endswith(OWN):
        own = BenchmarkRef(name=re.split(r"[/\\]", wanted)[-1], set="search", path=wanted).model_copy(update=changes)
        return own, own.model_copy(update={"set": "confirm"})
    search, confirm = base.search, base.confirm
    if wanted not in (None, confirm.name):
        confirm = BenchmarkRef(name=str(wanted), set="confirm")
    for benchmark in (search, confirm):
        if benchmark.name not in available:
            raise PlanRejected(
                f"the benchmark {benchmark.name!r} is not available here; there are {', '.join(available)}, "
                f"and problems of your own, a file that ends with {OWN}"
            )
    return search.model_copy(update=changes), confirm.model_copy(update=changes)
