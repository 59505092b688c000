"""Word problems of one to three steps drawn by a seed, each with a worked solution; the splits share no composition.

A problem tells how many things somebody has at first and what then happens to them, and asks for a number that
follows. Which split such an ordered composition belongs to is decided by a hash of its name, so a model that is
trained on `train` has seen no composition of `search` or `confirm`. No answer is a number of its own prompt.
"""

import operator
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice, permutations, product
from typing import Any

from hfagent.agent.train_config import Method
from hfagent.tools.procedural import Split, chat_rows, draw, split_of

LARGEST = 200
"""No number of a problem or its solution is larger: it is about steps, not about long arithmetic."""
ASK = "Show each calculation, then #### and the answer."


@dataclass(frozen=True, slots=True)
class Operation:
    """A part of a problem: what is told, and the calculations that it takes."""

    name: str
    told: tuple[str, ...]
    """Ways to say it; `{k}` and `{m}` are its numbers."""
    steps: tuple[str, ...]
    """Calculations in order: `{v}` is what there is so far, `{r}` the result of the calculation before."""
    k: Sequence[int] = (0,)
    m: Sequence[int] = (0,)


@dataclass(frozen=True, slots=True)
class WordProblem:
    """A prompt with its worked solution."""

    composition: str
    """Names of the operations, in order: what the splits are made of."""
    prompt: str
    solution: str
    """The calculations and the last line, `#### answer`."""
    answer: int


FEW, SOME, MANY = range(2, 6), range(2, 11), range(4, 21)

STARTS = (
    Operation("has", ("{name} has {k} {things}.", "There are {k} {things} on {name}'s table."), (), k=MANY),
    Operation(
        "two_kinds",
        (
            "{name} has {k} red {things} and {m} blue {things}.",
            "{name} finds {k} {things} on one day and {m} on the next.",
        ),
        ("{k} + {m}",),
        k=SOME,
        m=SOME,
    ),
    Operation(
        "adds",
        ("{name} had {k} {things} and found {m} more.", "{name} puts {k} and {m} {things} together."),
        ("{k} + {m}",),
        k=MANY,
        m=SOME,
    ),
    Operation(
        "packs",
        ("{name} buys {k} boxes with {m} {things} each.", "{name} fills {k} bags with {m} {things} each."),
        ("{k} * {m}",),
        k=FEW,
        m=SOME,
    ),
)
CHANGES = (
    Operation("gets", ("{She} gets {k} more.", "A friend brings {k} more."), ("{v} + {k}",), k=SOME),
    Operation("loses", ("{She} loses {k} of them.", "{She} gives {k} of them to a friend."), ("{v} - {k}",), k=SOME),
    Operation("halves", ("{She} gives half of them away.", "{She} sells half of them."), ("{v} / 2",)),
    Operation(
        "doubles",
        ("{She} gets as many again.", "Then {her} number of {things} doubles."),
        ("{v} * 2",),
    ),
    Operation(
        "gives_each",
        ("{She} gives {k} {things} to each of {m} children.",),
        ("{k} * {m}", "{v} - {r}"),
        k=FEW,
        m=FEW,
    ),
    Operation(
        "uses_daily",
        ("{She} uses up {k} of them a day for {m} days.",),
        ("{k} * {m}", "{v} - {r}"),
        k=FEW,
        m=FEW,
    ),
    Operation("gets_packs", ("{She} buys {k} more packs of {m}.",), ("{k} * {m}", "{v} + {r}"), k=FEW, m=FEW),
)
QUESTIONS = (
    Operation("left", ("How many {things} does {name} have now?",), ()),
    Operation(
        "price",
        ("{She} sells all for {k} dollars each. How many dollars is that?",),
        ("{v} * {k}",),
        k=FEW,
    ),
    Operation(
        "shared",
        ("{She} shares them equally among {k} friends. How many {things} does each get?",),
        ("{v} / {k}",),
        k=FEW,
    ),
    Operation("rows", ("{She} puts them into rows of {k}. How many rows are there?",), ("{v} / {k}",), k=range(2, 6)),
    Operation(
        "missing",
        ("{She} wants to have {k} {things}. How many more does {name} need?",),
        ("{k} - {v}",),
        k=range(10, 61),
    ),
    Operation(
        "fewer",
        ("{other} has {k} {things} fewer than {name}. How many does {other} have?",),
        ("{v} - {k}",),
        k=SOME,
    ),
    Operation("more", ("{other} has {k} more than {name}. How many {things} are these?",), ("{v} + {k}",), k=SOME),
    Operation("together", ("{other} has {k} {things}. How many do they have together?",), ("{v} + {k}",), k=MANY),
    Operation(
        "twice",
        ("{other} has twice as many. How many {things} do they have together?",),
        ("{v} * 2", "{v} + {r}"),
    ),
)
PEOPLE = (
    *(("Anna", "she", "her"), ("Ben", "he", "his"), ("Clara", "she", "her"), ("David", "he", "his")),
    *(("Emma", "she", "her"), ("Finn", "he", "his"), ("Grace", "she", "her"), ("Hugo", "he", "his")),
    *(("Iris", "she", "her"), ("Jack", "he", "his"), ("Lena", "she", "her"), ("Max", "he", "his")),
    *(("Nora", "she", "her"), ("Oscar", "he", "his"), ("Ruth", "she", "her"), ("Tom", "he", "his")),
)
UNDOING = {"halves", "doubles"}
"""One after the other they change nothing."""
THINGS = (
    *("apples", "books", "buttons", "cards", "coins", "cookies", "eggs", "flowers", "marbles", "oranges", "pencils"),
    *("shells", "stamps", "stickers", "stones", "tickets", "toys", "cups", "candles", "ribbons"),
)
STEPS = (1, 2, 2, 3, 3)
"""Calculations of a problem: one is what an untrained small model can do at all."""
ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}


def problems(split: Split, n: int, seed: int) -> list[WordProblem]:
    """The first `n` problems of a split and a seed: a longer draw begins with the shorter one."""
    return list(islice(draw(lambda rng: _drawn(split, rng), split=split, seed=seed), n))


def train_rows(n: int, seed: int, method: Method = "sft") -> list[dict[str, Any]]:
    """Rows of the split `train` as TRL wants them for a method, in the form of chat data.

    Raises:
        DatasetError: a method that needs wrong answers, too.
    """
    return chat_rows([(one.prompt, one.solution, str(one.answer)) for one in problems("train", n, seed)], method)


def _drawn(split: Split, rng: random.Random) -> WordProblem | None:
    return _make(rng.choice(compositions(split, rng.choice(STEPS))), rng)


@cache
def compositions(split: Split, steps: int) -> list[tuple[Operation, ...]]:
    """All compositions of a split that take so many calculations."""
    return [
        parts
        for parts in _all_compositions()
        if sum(len(part.steps) for part in parts) == steps and split_of(_name(parts)) == split
    ]


def _all_compositions() -> Iterator[tuple[Operation, ...]]:
    changes: list[tuple[Operation, ...]] = [(), *((change,) for change in CHANGES)]
    changes += [pair for pair in permutations(CHANGES, 2) if {part.name for part in pair} != UNDOING]
    for start, between, question in product(STARTS, changes, QUESTIONS):
        yield (start, *between, question)


def _name(parts: Sequence[Operation]) -> str:
    return ">".join(part.name for part in parts)


def _make(parts: Sequence[Operation], rng: random.Random) -> WordProblem | None:
    """A problem, or None where its numbers do not work out or its answer could be read off the prompt."""
    (name, she, her), (other, *_) = rng.sample(PEOPLE, 2)
    words = {
        "name": name,
        "she": she,
        "She": she.capitalize(),
        "her": her,
        "other": other,
        "things": rng.choice(THINGS),
    }
    told, lines, value = [], [], 0
    for part in parts:
        k, m = rng.choice(part.k), rng.choice(part.m)
        result = k
        for step in part.steps:
            calculation = step.format(v=value, k=k, m=m, r=result)
            found = _result(calculation)
            if found is None:
                return None
            result = found
            lines.append(f"{calculation} = {result}")
        value = result if part.steps or part in STARTS else value
        told.append(rng.choice(part.told).format(k=k, m=m, **words))
    text = " ".join(told)
    if str(value) in re.findall(r"[0-9]+", text):
        return None
    solution = "\n".join([*lines, f"#### {value}"])
    return WordProblem(_name(parts), f"{text}\n{ASK}", solution, value)


def _result(calculation: str) -> int | None:
    """None where it is not whole, below 1 or too large."""
    left, sign, right = calculation.split()
    a, b = int(left), int(right)
    result = ARITHMETIC[sign](a, b)
    whole = sign != "/" or result * b == a
    return result if whole and 0 < result <= LARGEST else None
