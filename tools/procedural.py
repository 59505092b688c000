"""What problems that are drawn by a seed have in common: splits that share no composition, and draws that extend."""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol, TypeVar

from hfagent.agent.train_config import Method

Split = Literal["train", "search", "confirm"]

SEARCH_PERCENT, CONFIRM_PERCENT = 15, 15
"""Share of the compositions; the rest is for training."""


class Drawn(Protocol):
    """A problem that was drawn."""

    @property
    def prompt(self) -> str:
        """What is asked."""


T = TypeVar("T", bound=Drawn)


def chat_row(
    method: Method, prompt: str, number: int, *, right: str, wrong: Callable[[], str], hidden: Mapping[str, Any]
) -> dict[str, Any]:
    """A training row as TRL wants it for a method, in the form of chat data.

    Args:
        method: what trains on it.
        prompt: the user's message.
        number: of the row; for KTO every second one is a bad example.
        right: a right answer.
        wrong: makes one that looks like it.
        hidden: columns that a reward judges by.
    """
    row: dict[str, Any] = {"prompt": [{"role": "user", "content": prompt}]}
    match method:
        case "sft":
            return {**row, "completion": _turn(right)}
        case "kto":
            good = number % 2 == 0
            return {**row, "completion": _turn(right if good else wrong()), "label": good}
        case "dpo" | "reward":
            return {**row, "chosen": _turn(right), "rejected": _turn(wrong())}
        case "grpo":
            return {**row, **hidden, "solution": right}


def _turn(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


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
