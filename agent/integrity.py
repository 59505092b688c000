"""Whether a training was what it should be: no benchmark in its rows, the planned base, weights that moved. Pure."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from hfagent.agent.records import Record

Layer = Literal["dataset_id", "entry_point", "ngram", "ast", "minhash"]


class Hit(Record):
    """One piece of evidence that a benchmark problem is in the training data."""

    row: int | None
    """Index from 0; None is the dataset as a whole, by its name."""
    problem: str
    """The problem's id; for a dataset's name that of the benchmark."""
    layer: Layer
    evidence: str = Field(max_length=200)
    """Of the training data, never of the benchmark."""


class ContaminationReport(Record):
    """What the check of a training dataset against the benchmarks found."""

    dataset: str
    rows: int = Field(ge=1)
    problems: int = Field(ge=1)
    benchmarks: tuple[str, ...]
    """`name/set` each."""
    hits: tuple[Hit, ...]
    """The first ones, at most one for each row, problem and layer."""
    hit_counts: dict[Layer, int]
    """All of them."""
    flagged: tuple[int, ...]
    """Rows to leave out, in order."""
    verdict: Literal["clean", "contaminated", "denied"]
    """Denied datasets hold a benchmark by their name: they are not cleaned."""
    ignored: dict[str, int] = Field(default_factory=dict)
    """Signs too weak to count -> how often."""


def check_trained(*, planned_model: str, result: Mapping[str, Any], base_fingerprint: str | None = None) -> str | None:
    """What is wrong with a trained adapter, or None: only another base model, or no learning, can be told here.

    Args:
        planned_model: the Hub id or folder that the job was given as `--model`.
        result: the training script's RESULT.
        base_fingerprint: of an earlier run of the same plan; None where this is the first.
    """
    for key, what in (("base_model", "the base model"), ("adapter_base_model", "the adapter's base model")):
        name = result.get(key)
        if not isinstance(name, str) or _path(name) != _path(planned_model):
            return f"{what} is {name!r}, and {planned_model!r} was planned"
    fingerprint = result.get("base_fingerprint")
    if not isinstance(fingerprint, str):
        return "the result does not say which weights were trained: 'base_fingerprint' is missing"
    if base_fingerprint is not None and fingerprint != base_fingerprint:
        return f"the base model has other weights than before: fingerprint {fingerprint}, not {base_fingerprint}"
    change = result.get("weight_change")
    if isinstance(change, bool) or not isinstance(change, int | float) or not math.isfinite(change):
        return "the change of the weights is no number: the training diverged, or its result is damaged"
    if change <= 0:
        return "the weights did not change: nothing was learned"
    return None


def _path(name: str) -> str:
    return name.rstrip("/") or name
