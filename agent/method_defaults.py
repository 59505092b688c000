"""Hyperparameters that suit a method, from `recipes/methods.toml`: where a goal and a recipe are silent."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from hfagent.agent.records import Generation, Method, ModelRef
from hfagent.agent.space import learning_rate_prior


def defaults(method: Method, parameters: int | None, *, embedded: bool) -> dict[str, Any]:
    """Changes of `TrainConfig` for a method; none for SFT, whose numbers are the recipes' own.

    Args:
        method: what trains.
        parameters: number of weights; None takes the smallest micro-batch.
        embedded: the embedded model on the embedded task, for which they were measured.
    """
    if method == "sft":
        return {}
    if embedded:
        return {"method": method, **_table()["embedded"][method]}
    found = dict(_table()[method])
    fitting = [size for size in found.pop("sizes") if parameters is not None and parameters <= size.get("up_to", 0)]
    size = dict((fitting or [_table()[method]["sizes"][-1]])[0])
    size.pop("up_to", None)
    rate = learning_rate_prior(method, ModelRef(id="", parameters=parameters))
    return {"method": method, "learning_rate": rate, **found, **size}


def generation(*, embedded: bool) -> Generation:
    """How many prompts and samples make a dataset."""
    return Generation.model_validate(_table()["embedded"]["generation"] if embedded else _table()["generation"])


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((files("hfagent.agent") / "recipes" / "methods.toml").read_text(encoding="utf-8"))
