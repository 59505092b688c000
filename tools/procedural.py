"""What problems that are drawn by a seed have in common: splits that share no composition, and draws that extend."""

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Literal, Protocol, TypeVar

Split = Literal["train", "search", "confirm"]

SEARCH_PERCENT, CONFIRM_PERCENT = 15, 15
"""Share of the compositions; the rest is for training."""


class Drawn(Protocol):
    """A problem that was drawn."""

    @property
    def prompt(self) -> str:
        """What is asked."""


T = TypeVar("T", bound=Drawn)


def split_of(composition: str) -> Split:
    """Which split a composition belongs to: by a hash of its name, never by a seed."""
    percent = int.from_bytes(hashlib.sha256(composition.encode()).digest()[:4]) % 100
    if percent < SEARCH_PERCENT:
        return "search"
    return "confirm" if percent < SEARCH_PERCENT + CONFIRM_PERCENT else "train"


def draw(make: Callable[[random.Random], T | None], *, split: Split, seed: int) -> Iterator[T]:
    """Problems without end, each prompt once: a longer draw begins with the shorter one."""
    rng = random.Random(f"{split}:{seed}")  # noqa: S311 - reproducible, not secret
    seen: set[str] = set()
    while True:
        made = make(rng)
        if made is not None and made.prompt not in seen:
            seen.add(made.prompt)
            yield made
