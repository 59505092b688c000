"""What a plan uses where the goal is silent: one data file for each task area, `recipes/<area>.toml`."""

import tomllib
from difflib import get_close_matches
from importlib.resources import files
from typing import Literal, get_args

from hfagent.agent.errors import UsageError
from hfagent.agent.records import BenchmarkRef, DatasetRef, EvalConfig, ModelRef, Record, TaskArea, TrainConfig


class Choices(Record):
    """A complete set of choices for one task area."""

    model: ModelRef
    dataset: DatasetRef
    search: BenchmarkRef
    """Judges runs, as often as needed; shares no problem with `confirm`."""
    confirm: BenchmarkRef
    """Carries the claim; looked at once."""
    guards: tuple[BenchmarkRef, ...] = ()
    """Abilities that must not be lost."""
    train: TrainConfig
    evaluation: EvalConfig
    why: dict[Literal["model", "dataset", "search", "confirm", "guards"], str]
    """Reason for each choice, for the person who reads the plan."""


class Embedded(Choices):
    """Choices that need no network and no account."""

    notice: str
    """Says in plain words what a result of these choices is worth."""


class Recipe(Choices):
    """The choices for one task area."""

    area: TaskArea
    embedded: Embedded | None = None
    """What stands in offline; None where nothing does."""


def load(area: str) -> Recipe:
    """The recipe of a task area.

    Raises:
        UsageError: no such area.
    """
    known = get_args(TaskArea)
    if area not in known:
        guess = get_close_matches(area, known, n=1)
        hint = f"did you mean {guess[0]!r}? " if guess else ""
        raise UsageError(f"there is no recipe for {area!r}: {hint}the areas are {', '.join(known)}")
    text = (files("hfagent.agent") / "recipes" / f"{area}.toml").read_text(encoding="utf-8")
    return Recipe.model_validate(tomllib.loads(text))
