"""Read a goal: what a sentence says about method, area, model, dataset, benchmark and size. Pure, by pattern.

Nothing is guessed: a field is None where the sentence is silent, and a sentence that says two things is refused.
"""

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import TypeVar

from hfagent.agent.errors import UsageError
from hfagent.agent.goal_names import Role, half_model, names
from hfagent.agent.goal_words import AREA_WORDS, BENCHMARKS, DATASET_AREAS, METHOD_WORDS, UNKNOWN_METHODS
from hfagent.agent.records import Method, Record, TaskArea

EXAMPLE = "improve code solving with SFT"

T = TypeVar("T", bound=str | float)


class GoalHints(Record):
    """What a sentence says; None or empty where it is silent."""

    stages: tuple[Method, ...] = ()
    """Training methods, in the order in which they are to run."""
    task_area: TaskArea | None = None
    model: str | None = None
    """`org/name`, a path, or `embedded:<name>`."""
    dataset: str | None = None
    """`org/name`, a path, or `embedded:<name>`."""
    benchmark: str | None = None
    max_rows: int | None = None
    num_train_epochs: float | None = None
    learning_rate: float | None = None


def parse_goal(text: str) -> GoalHints:
    """Read the sentence.

    Args:
        text: one sentence or several lines; names may stand in quotes, or be links to the Hub.

    Returns:
        The area may be None where a dataset, a benchmark or a number of rows is named.

    Raises:
        UsageError: it is empty, says two things at once, names an unknown method or half a model, or does not tell
            what to work on.
    """
    if not text.strip():
        raise UsageError(f"the goal is empty: say what to improve, e.g. {EXAMPLE!r}")
    found = list(names(text))
    rest = text
    for name in found:
        rest = rest[: name.start] + " " * (name.end - name.start) + rest[name.end :]

    def named(role: Role) -> list[str]:
        return [name.name for name in found if name.role == role]

    model, dataset = _one("model", named("model")), _one("dataset", named("dataset"))
    benchmark = _one("benchmark", _benchmarks(rest, named("benchmark")))
    if model is None and (half := half_model(text)):
        raise UsageError(f"{half!r} is not a complete model name: give its size or id, e.g. 'Qwen/Qwen3-0.6B'")
    max_rows = _rows(rest)
    hints = GoalHints(
        stages=_stages(rest),
        task_area=_area(rest, benchmark=benchmark, dataset=dataset),
        model=model,
        dataset=dataset,
        benchmark=benchmark,
        max_rows=max_rows,
        num_train_epochs=_epochs(rest),
        learning_rate=_number("learning rate", rf"\b(?:learning[- ]rate|lr)(?: of| to)?\s*[:=]?\s*({_NUMBER})", rest),
    )
    if hints.task_area is None and dataset is None and benchmark is None and max_rows is None:
        raise UsageError(
            f"the goal {text.strip()[:80]!r} does not say what to improve: the areas are {', '.join(AREA_WORDS)}; "
            f"name one of them or a dataset, e.g. {EXAMPLE!r}"
        )
    return hints


def _stages(rest: str) -> tuple[Method, ...]:
    if match := re.search(rf"\b(?:{UNKNOWN_METHODS})\b", rest, re.IGNORECASE):
        raise UsageError(f"the method {match[0]!r} is not known: the methods are {', '.join(METHOD_WORDS)}")
    found = {m: re.search(rf"\b(?:{words})\b", rest, re.IGNORECASE) for m, words in METHOD_WORDS.items()}
    spans = sorted((match.span(), method) for method, match in found.items() if match)
    order = tuple(method for _, method in spans)
    links = [rest[one[1] : two[0]].lower() for (one, _), (two, _) in pairwise(spans)]
    if len(order) == 2 and re.fullmatch(r"\s+after\s+", links[0]):
        return order[::-1]
    if not all(re.search(r"\bthen\b|\bfollowed by\b|->|→|\bafterwards\b|\bfinally\b", link) for link in links):
        raise UsageError(
            f"the goal names several methods: {', '.join(order)}; keep one, or write 'first {order[0].upper()}, then "
            f"{order[1].upper()}' to run one after the other"
        )
    return order


def _benchmarks(rest: str, ids: list[str]) -> list[str]:
    """Known ones wherever they stand, unknown ones where the word benchmark follows."""
    found = [b.name for b in BENCHMARKS if re.search(rf"(?<![\w/])(?:{b.pattern})(?![\w/+])", rest, re.IGNORECASE)]
    for name in (*ids, *re.findall(r"\b([\w-]*[\d_][\w-]*)[\"'`*]* benchmark\b", rest)):
        known = [b.name for b in BENCHMARKS if re.fullmatch(b.pattern, name, re.IGNORECASE)]
        found += known or [name]
    return found


def _area(rest: str, *, benchmark: str | None, dataset: str | None) -> TaskArea | None:
    """By the words of the sentence; where they are silent by its benchmark, then by the dataset's id."""
    areas = [a for a, words in AREA_WORDS.items() if re.search(rf"(?<![\w-])(?:{words})(?![\w-])", rest, re.IGNORECASE)]
    if not areas:
        areas = [b.area for b in BENCHMARKS if b.name == benchmark]
    if not areas and dataset is not None:
        areas = [a for a, parts in DATASET_AREAS.items() if re.search(parts, dataset, re.IGNORECASE)]
        areas = areas if len(areas) == 1 else []
    return _one("task area", areas)


_NUMBER = r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?"


def _rows(rest: str) -> int | None:
    pattern = r"\b(\d[\d,_]*(?:\.\d+)?)\s?(k?)\s+(?:\w+\s)?(?:examples?|rows?|samples?)\b(?! (?:per|for each|a) )"
    found = re.findall(pattern, rest, re.IGNORECASE)
    rows = _positive("number of rows", [float(re.sub("[,_]", "", n)) * (1000 if k else 1) for n, k in found])
    return None if rows is None else max(1, round(rows))


def _epochs(rest: str) -> float | None:
    rest = re.sub(r"\b(?:one|an|a single)(?=[- ]epoch)", "1", rest, flags=re.IGNORECASE)
    return _number("number of epochs", rf"({_NUMBER})[- ]epochs?\b", rest)


def _number(what: str, pattern: str, rest: str) -> float | None:
    return _positive(what, [float(n.replace(",", "")) for n in re.findall(pattern, rest, re.IGNORECASE)])


def _positive(what: str, values: Iterable[float]) -> float | None:
    value = _one(what, values)
    if value is not None and value <= 0:
        raise UsageError(f"a {what} of {value:g} trains nothing: it must be above 0")
    return value


def _one(what: str, values: Iterable[T]) -> T | None:
    """The only value; None without any."""
    distinct = list(dict.fromkeys(values))
    if len(distinct) > 1:
        listed = ", ".join(v if isinstance(v, str) else f"{v:g}" for v in distinct)
        raise UsageError(f"the goal names more than one {what}: {listed}; keep one of them")
    return distinct[0] if distinct else None
