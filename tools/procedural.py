"""What problems that are drawn by a seed have in common: splits that share no composition, and draws that extend."""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol, TypeVar

from hfagent.agent.errors import DatasetError
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


def chat_rows(solved: Sequence[tuple[str, str, str]], method: Method) -> list[dict[str, Any]]:
    """Prompts with a solution and its final answer, as rows for a method that learns from right answers.

    Raises:
        DatasetError: a method that needs wrong answers, too.
    """
    turns = [([{"role": "user", "content": prompt}], solution, answer) for prompt, solution, answer in solved]
    if method == "sft":
        return [{"prompt": turn, "completion": [{"role": "assistant", "content": text}]} for turn, text, _ in turns]
    if method == "distillation":
        return [{"prompt": turn} for turn, _, _ in turns]
    if method == "grpo":
        return [{"prompt": turn, "answer": answer, "solution": text} for turn, text, answer in turns]
    raise DatasetError(
        f"there are right answers only, and {method} needs wrong ones: have the model make them, or use sft or grpo"
    )
