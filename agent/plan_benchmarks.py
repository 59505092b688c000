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
    changes = _changes(seed=seed, quick=quick)
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


def choose_guards(
    wanted: Sequence[str],
    base: Choices,
    judging: Sequence[BenchmarkRef],
    available: Sequence[str],
    *,
    seed: int,
    quick: bool,
) -> tuple[BenchmarkRef, ...]:
    """What must not be lost: the benchmarks that a person names, else the recipe's that are to be had here.

    Args:
        wanted: names.
        base: what the recipe takes.
        judging: the search set and the confirm set.
        available: names of the benchmarks that can be evaluated here.
        seed: of procedural ones.
        quick: only some problems.

    Raises:
        PlanRejected: a guard cannot be evaluated here, or is what the night is judged by.
    """
    recipes = {guard.name: guard for guard in base.guards}
    for name in wanted:
        if name not in available:
            raise PlanRejected(f"the guard {name!r} is not available here; there are {', '.join(available)}")
        if name in (benchmark.name for benchmark in judging):
            raise PlanRejected(f"the guard {name!r} is what the night is judged by: name another benchmark")
    names = wanted or [name for name in recipes if name in available]
    chosen = [recipes.get(name, BenchmarkRef(name=name, set="confirm")) for name in dict.fromkeys(names)]
    return tuple(
        guard.model_copy(update=_changes(seed=seed, quick=quick))
        for guard in chosen
        if guard.name not in (benchmark.name for benchmark in judging)
    )


def _changes(*, seed: int, quick: bool) -> dict[str, Any]:
    return {"seed": seed} | ({"n": QUICK_PROBLEMS} if quick else {})
