"""Read a goal: what a sentence says about method, area, model, dataset, benchmark, size and limits. Pure, by pattern.

Nothing is guessed: a field is None where the sentence is silent, and a sentence that says two things is refused.
"""

import re
from collections.abc import Iterable
from itertools import pairwise

from hfagent.agent.errors import GoalUnclear, UsageError
from hfagent.agent.goal_export import read_export
from hfagent.agent.goal_names import Role, half_model, names
from hfagent.agent.goal_numbers import GoalNumbers, one, read_numbers
from hfagent.agent.goal_words import (
    AREA_WORDS,
    BENCHMARKS,
    DATASET_AREAS,
    FLAVORS,
    METHOD_WORDS,
    OTHER_BENCHMARKS,
    PLAIN_BENCHMARK_WORDS,
    UNKNOWN_METHODS,
    denied,
)
from hfagent.agent.records import Export, Method, Record, TaskArea

EXAMPLE = "improve code solving with SFT"


class GoalHints(Record):
    """What a sentence says; None or empty where it is silent."""

    stages: tuple[Method, ...] = ()
    """Training methods, in the order in which they are to run."""
    excluded: tuple[Method, ...] = ()
    """Training methods that must not run."""
    task_area: TaskArea | None = None
    model: str | None = None
    """`org/name`, a path, or `embedded:<name>`."""
    teacher: str | None = None
    """Of a distillation; as a model is written."""
    dataset: str | None = None
    """`org/name`, a path, or `embedded:<name>`."""
    benchmark: str | None = None
    flavor: str | None = None
    """Hardware, as the sentence spells it."""
    numbers: GoalNumbers = GoalNumbers()
    export: Export | None = None
    """What becomes of the model at the end."""


def parse_goal(text: str) -> GoalHints:
    """Read the sentence.

    Args:
        text: one sentence or several lines; names may stand in quotes, or be links to the Hub.

    Returns:
        The area may be None where a dataset, a benchmark or a number of rows is named.

    Raises:
        UsageError: it is empty, says two things at once, names an unknown method or half a model, asks for a limit
            that cannot be kept, or does not tell what to work on.
    """
    if not text.strip():
        raise UsageError(f"the goal is empty: say what to improve, e.g. {EXAMPLE!r}")
    export, text = read_export(text)
    spans = list(names(text))
    rest = _blanked(text, ((name.start, name.end) for name in spans))
    wanted = [name for name in spans if not denied(text, name.start)]
    rest, excluded = _without_denied(rest)

    def named(role: Role) -> list[str]:
        return [name.name for name in wanted if name.role == role]

    model, dataset = one("model", named("model")), one("dataset", named("dataset"))
    benchmark = one("benchmark", _benchmarks(rest, named("benchmark")))
    if model is None and (half := half_model(text)):
        raise UsageError(f"{half!r} is not a complete model name: give its size or id, e.g. 'Qwen/Qwen3-0.6B'")
    hints = GoalHints(
        stages=_stages(rest),
        excluded=excluded,
        task_area=_area(rest, benchmark=benchmark, dataset=dataset),
        model=model,
        teacher=one("teacher", named("teacher")),
        dataset=dataset,
        benchmark=benchmark,
        flavor=one("flavor", _flavors(rest)),
        numbers=read_numbers(rest),
        export=export,
    )
    if hints.task_area is None and dataset is None and benchmark is None and hints.numbers.max_rows is None:
        raise GoalUnclear(
            f"the goal {text.strip()[:80]!r} does not say what to improve: the areas are {', '.join(AREA_WORDS)}; "
            f"name one of them or a dataset, e.g. {EXAMPLE!r}"
        )
    return hints


def _blanked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    for start, end in spans:
        text = text[:start] + " " * (end - start) + text[end:]
    return text


def _without_denied(rest: str) -> tuple[str, tuple[Method, ...]]:
    """The sentence without what it does not want, and the methods among that."""
    words = [*METHOD_WORDS.values(), UNKNOWN_METHODS, *AREA_WORDS.values(), *(b.pattern for b in BENCHMARKS)]
    excluded: list[Method] = []
    for match in re.finditer(rf"(?<![\w/-])(?:{'|'.join(words)})(?![\w/-])", rest, re.IGNORECASE):
        if denied(rest, match.start()):  # with the ones before it blanked: "do not use DPO or GRPO"
            rest = _blanked(rest, [match.span()])
            excluded += [m for m, word in METHOD_WORDS.items() if re.fullmatch(word, match[0], re.IGNORECASE)]
    return rest, tuple(dict.fromkeys(excluded))


def _stages(rest: str) -> tuple[Method, ...]:
    if match := re.search(rf"\b(?:{UNKNOWN_METHODS})\b", rest, re.IGNORECASE):
        raise UsageError(f"the method {match[0]!r} is not known: the methods are {', '.join(METHOD_WORDS)}")
    found = {m: re.search(rf"\b(?:{words})\b", rest, re.IGNORECASE) for m, words in METHOD_WORDS.items()}
    spans = sorted((match.span(), method) for method, match in found.items() if match)
    order = tuple(method for _, method in spans)
    links = [rest[before[1] : after[0]].lower() for (before, _), (after, _) in pairwise(spans)]
    if len(order) == 2 and re.fullmatch(r"\s+after\s+", links[0]):
        return order[::-1]
    if not all(re.search(r"\bthen\b|\bfollowed by\b|->|→|\bafterwards\b|\bfinally\b", link) for link in links):
        raise UsageError(f"the goal names several methods: {', '.join(order)}; keep one of them")
    return order


def _benchmarks(rest: str, ids: list[str]) -> list[str]:
    """Those in the tables wherever they stand, others where the word benchmark follows."""
    found = [b.name for b in BENCHMARKS if re.search(rf"(?<![\w/])(?:{b.pattern})(?![\w/+])", rest, re.IGNORECASE)]
    others = re.findall(rf"(?<![\w/-])(?:{OTHER_BENCHMARKS})(?![\w/-])", rest, re.IGNORECASE)
    called = re.findall(
        r"\b(?:with|on|by|using|against|via|use|run|the)\s+[\"'`*]*([\w+-]+)[\"'`*]* benchmarks?\b", rest, re.IGNORECASE
    )
    called += re.findall(r"\b([\w-]*[\d_][\w-]*)[\"'`*]* benchmark\b", rest)
    plain = rf"{PLAIN_BENCHMARK_WORDS}|{'|'.join(AREA_WORDS.values())}"
    for name in (*ids, *others, *called):
        known = [b.name for b in BENCHMARKS if re.fullmatch(b.pattern, name, re.IGNORECASE)]
        found += known or ([] if re.fullmatch(plain, name, re.IGNORECASE) else [name])
    return found


def _flavors(rest: str) -> list[str]:
    found = re.finditer(rf"(?<![\w/-])(?:{FLAVORS})(?![\w/-])", rest, re.IGNORECASE)
    return [match[0] for match in found if not denied(rest, match.start())]


def _area(rest: str, *, benchmark: str | None, dataset: str | None) -> TaskArea | None:
    """By the words of the sentence; where they are silent by its benchmark, then by the dataset's id."""
    areas = [a for a, words in AREA_WORDS.items() if re.search(rf"(?<![\w-])(?:{words})(?![\w-])", rest, re.IGNORECASE)]
    if not areas:
        areas = [b.area for b in BENCHMARKS if b.name == benchmark]
    if not areas and dataset is not None:
        areas = [a for a, parts in DATASET_AREAS.items() if re.search(parts, dataset, re.IGNORECASE)]
        areas = areas if len(areas) == 1 else []
    return one("task area", areas)
