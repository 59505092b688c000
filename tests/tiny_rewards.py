"""Rewards of a person, as `--reward-funcs` finds them by a dotted path."""

from collections.abc import Sequence
from typing import Any


def holds_w1(completions: Sequence[Any], **columns: Any) -> list[float]:
    return [float("w1" in completion[0]["content"].split()) for completion in completions]


def no_number(completions: Sequence[Any], **columns: Any) -> list[float]:
    return [float("nan")] * len(completions)


def raising(completions: Sequence[Any], **columns: Any) -> list[float]:
    raise KeyError("gone")


def short(completions: Sequence[Any], **columns: Any) -> list[float]:
    return []


def fails_late(completions: Sequence[Any], **columns: Any) -> list[float]:
    if any(completion[0]["content"] for completion in completions):
        raise KeyError("gone")
    return [0.0] * len(completions)
