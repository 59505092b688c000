"""Short Python tasks drawn by a seed, each a composition of three operations; the splits share no composition.

A task asks for a function that selects some items, changes each of them and finishes with a value or another list:
"the sum of the squares of the even numbers in x". Its hidden tests are the reference solution's own answers. Which
split an ordered triple of operations belongs to is decided by a hash of its name, never by the seed, so a model that
is trained on `train` has seen no composition of `search` or `confirm`.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

Split = Literal["train", "search", "confirm"]
Argument = Literal["ints", "words", "limit"]
"""What the function takes: a list of integers, a list of words, or the last of the integers from 1."""
Items = Literal["numbers", "words"]

SEARCH_PERCENT, CONFIRM_PERCENT = 15, 15
"""Share of the compositions; the rest is for training."""
RANDOM_TESTS = 11
MIN_ANSWERS = 4
"""Different answers that the tests of one task must have: fewer could be guessed."""

WORDS = [
    *("apple", "art", "banana", "bee", "cat", "cherry", "dog", "eel", "elephant", "fig", "fox", "grape", "ink", "ivy"),
    *("kiwi", "lemon", "mango", "night", "oak", "orange", "pea", "plum", "queen", "rat", "sea", "sun", "tea", "tiger"),
]
LETTERS = ("a", "e", "g", "n", "t")
NAMES = ("solve", "compute", "process", "calculate", "transform", "run")


@dataclass(frozen=True, slots=True)
class Operation:
    """One of the three parts of a task."""

    name: str
    takes: Items
    gives: Items
    code: str
    """An expression over the item `v`, or over the list `y` for the last part; `{k}` is its parameter."""
    phrases: tuple[str, ...]
    """Ways to say it; `{of}` is what the parts before it say."""
    parameters: tuple[Any, ...] = (None,)
    """Values of `k`, one of which is drawn."""


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt, its reference solution and its hidden tests."""

    composition: str
    """Names of the argument and of the operations, in order: what the splits are made of."""
    prompt: str
    entry_point: str
    solution: str
    cases: tuple[tuple[Any, Any], ...]
    """Arguments with the expected results; the first argument is 0 or empty."""

    @property
    def tests(self) -> str:
        """Source that follows a solution and raises AssertionError if it is wrong."""
        return (
            f"for argument, expected in {list(self.cases)!r}:\n"
            f"    result = {self.entry_point}(argument)\n"
            f"    assert type(result) is type(expected) and result == expected, (argument, result, expected)\n"
        )


def _op(name: str, takes: Items, code: str, *phrases: str, gives: Items | None = None, k: tuple[Any, ...] = (None,)) -> Operation:
    return Operation(name, takes, gives or takes, code, phrases, k)


SELECT = (
    _op("even", "numbers", "v % 2 == 0", "the even numbers"),
    _op("odd", "numbers", "v % 2 != 0", "the odd numbers"),
    _op("positive", "numbers", "v > 0", "the positive numbers"),
    _op("negative", "numbers", "v < 0", "the negative numbers"),
    _op("above", "numbers", "v > {k}", "the numbers greater than {k}", "the numbers above {k}", k=(2, 3, 4, 5)),
    _op("below", "numbers", "v < {k}", "the numbers less than {k}", "the numbers below {k}", k=(5, 6, 7, 8)),
    _op("multiple", "numbers", "v % {k} == 0", "the multiples of {k}", "the numbers divisible by {k}", k=(3, 4, 5)),
    _op("longer", "words", "len(v) > {k}", "the words longer than {k} letters", k=(3, 4)),
    _op("shorter", "words", "len(v) < {k}", "the words shorter than {k} letters", k=(4, 5, 6)),
    _op("starts", "words", 'v.startswith("{k}")', 'the words that start with "{k}"', k=("b", "c", "e", "f", "t")),
    _op("ends", "words", 'v.endswith("{k}")', 'the words that end with "{k}"', k=("a", "e", "g", "n", "t")),
    _op("contains", "words", '"{k}" in v', 'the words that contain "{k}"', k=LETTERS),
    _op("lacks", "words", '"{k}" not in v', 'the words without the letter "{k}"', k=LETTERS),
)
CHANGE = (
    _op("square", "numbers", "v * v", "the squares of {of}"),
    _op("double", "numbers", "v * 2", "the doubles of {of}", "twice each of {of}"),
    _op("times", "numbers", "v * {k}", "{of}, each multiplied by {k}", k=(3, 4, 5, 10)),
    _op("plus", "numbers", "v + {k}", "{of}, each increased by {k}", "{of}, plus {k} each", k=(1, 2, 3, 10)),
    _op("minus", "numbers", "v - {k}", "{of}, each decreased by {k}", "{of}, minus {k} each", k=(1, 2, 3, 10)),
    _op("negated", "numbers", "-v", "the negatives of {of}"),
    _op("absolute", "numbers", "abs(v)", "the absolute values of {of}"),
    _op("remainder", "numbers", "v % {k}", "the remainders of {of} divided by {k}", k=(3, 4, 5, 7)),
    _op("upper", "words", "v.upper()", "{of} in upper case", "{of}, uppercased"),
    _op("backwards", "words", "v[::-1]", "{of}, each reversed", "{of}, each spelled backwards"),
    _op("initial", "words", "v[0]", "the first letters of {of}"),
    _op("final", "words", "v[-1]", "the last letters of {of}"),
    _op("repeated", "words", "v * 2", "{of}, each repeated twice"),
    _op("tailed", "words", 'v + "{k}"', '{of}, each followed by "{k}"', k=("!", "?", "s")),
    _op("headless", "words", "v[1:]", "{of}, each without its first letter"),
    _op("length", "words", "len(v)", "the lengths of {of}", gives="numbers"),
)
FINISH = (
    _op("sum", "numbers", "sum(y)", "the sum of {of}", "the total of {of}"),
    _op("largest", "numbers", "max(y, default=0)", "the largest of {of}, or 0 if there is none"),
    _op("smallest", "numbers", "min(y, default=0)", "the smallest of {of}, or 0 if there is none"),
    _op("join", "words", '"{k}".join(y)', 'a string with {of}, joined by "{k}"', k=("-", ",", " ", "_")),
    _op("letters", "words", "sum(len(v) for v in y)", "the total length of {of}"),
    _op("by_length", "words", "sorted(y, key=len)", "a list of {of}, sorted by length"),
)
FINISH_ANY = (
    ("sorted", "sorted(y)", ("a sorted list of {of}", "a list of {of}, sorted in ascending order"), (None,)),
    ("descending", "sorted(y, reverse=True)", ("a list of {of}, sorted in descending order",), (None,)),
    ("reverse", "y[::-1]", ("a list of {of}, in reverse order",), (None,)),
    ("unique", "list(dict.fromkeys(y))", ("a list of {of}, without duplicates",), (None,)),
    ("first", "y[:{k}]", ("a list of the first {k} of {of}",), (2, 3)),
    ("last", "y[-{k}:]", ("a list of the last {k} of {of}",), (2, 3)),
    ("distinct", "len(set(y))", ("the number of distinct values among {of}",), (None,)),
)

OPENINGS = (
    "Write a Python function {name}(x) that takes {argument} and returns {what}.",
    "Write a Python function {name}(x) for {argument}. It returns {what}.",
    "Write a Python function {name}(x) that returns {what}. x is {argument}.",
)
ARGUMENTS: dict[Argument, tuple[str, str, str, Items]] = {
    "ints": ("a list of integers", "{of} in x", "x", "numbers"),
    "words": ("a list of words", "{of} in x", "x", "words"),
    "limit": ("an integer", "{of} from 1 to x", "range(1, x + 1)", "numbers"),
}
"""The prompt's words for the argument and for the items in it, the code for the items, their type."""


def tasks(split: Split, n: int, seed: int) -> list[Task]:
    """The first `n` tasks of a split and a seed: a longer draw begins with the shorter one."""
    drawn = _draw(split, seed)
    return [next(drawn) for _ in range(n)]


def train_rows(n: int, seed: int) -> list[dict[str, Any]]:
    """Rows of the split `train` in the prompt-completion form of chat data."""
    return [
        {
            "prompt": [{"role": "user", "content": task.prompt}],
            "completion": [{"role": "assistant", "content": f"```python\n{task.solution}```"}],
        }
        for task in tasks("train", n, seed)
    ]


@cache
def compositions(split: Split) -> dict[Argument, list[tuple[Operation, ...]]]:
    """All ordered triples of a split, by the argument that they start from."""
    return {
        argument: [triple for triple in _triples(argument) if _split_of(_name(argument, triple)) == split]
        for argument in ARGUMENTS
    }


def _triples(argument: Argument) -> Iterator[tuple[Operation, ...]]:
    everywhere = [
        Operation(name, items, items, code, phrases, parameters)
        for name, code, phrases, parameters in FINISH_ANY
        for items in ("numbers", "words")
    ]
    for select in SELECT:
        for change in CHANGE:
            for finish in (*FINISH, *everywhere):
                if select.takes == ARGUMENTS[argument][3] == change.takes and change.gives == finish.takes:
                    yield select, change, finish


def _name(argument: Argument, triple: tuple[Operation, ...]) -> str:
    return f"{argument}:{'>'.join(operation.name for operation in triple)}"


def _split_of(composition: str) -> Split:
    percent = int.from_bytes(hashlib.sha256(composition.encode()).digest()[:4]) % 100
    if percent < SEARCH_PERCENT:
        return "search"
    return "confirm" if percent < SEARCH_PERCENT + CONFIRM_PERCENT else "train"


def _draw(split: Split, seed: int) -> Iterator[Task]:
    rng = random.Random(f"{split}:{seed}")  # noqa: S311 - reproducible, not secret
    seen: set[str] = set()
    while True:
        argument = rng.choice(list(ARGUMENTS))
        task = _make(argument, rng.choice(compositions(split)[argument]), rng)
        if task is not None and task.prompt not in seen:
            seen.add(task.prompt)
            yield task


def _make(argument: Argument, triple: tuple[Operation, ...], rng: random.Random) -> Task | None:
    """A task, or None where a part could be left out, or the answer guessed, without any test noticing."""
    words, where, items, _ = ARGUMENTS[argument]
    codes, what = [], ""
    for operation in triple:
        k = rng.choice(operation.parameters)
        codes.append(operation.code.format(k=k))
        what = rng.choice(operation.phrases).format(k=k, of=what)
        if len(codes) == 1:
            what = where.format(of=what)
    select, change, finish = codes
    inputs = [_EMPTY[argument], *(_input(argument, rng) for _ in range(RANDOM_TESTS))]
    expected = [_answer(f"[{change} for v in {items} if {select}]", finish, x) for x in inputs]
    if len({repr(answer) for answer in expected}) < MIN_ANSWERS:
        return None
    weaker = [(f"[{change} for v in {items}]", finish)]
    if triple[1].takes == triple[1].gives:
        weaker.append((f"[v for v in {items} if {select}]", finish))
    weaker.append((f"[{change} for v in {items} if {select}]", "y"))
    if any([_answer(listed, end, x) for x in inputs] == expected for listed, end in weaker):
        return None
    name = rng.choice(NAMES)
    prompt = rng.choice(OPENINGS).format(name=name, argument=words, what=what)
    solution = f"def {name}(x):\n    y = [{change} for v in {items} if {select}]\n    return {finish}\n"
    return Task(_name(argument, triple), prompt, name, solution, tuple(zip(inputs, expected, strict=True)))


_EMPTY: dict[Argument, Any] = {"ints": [], "words": [], "limit": 0}


def _input(argument: Argument, rng: random.Random) -> Any:
    if argument == "limit":
        return rng.randint(1, 30)
    size = rng.randint(1, 9)
    return rng.choices(WORDS, k=size) if argument == "words" else [rng.randint(-9, 12) for _ in range(size)]


def _answer(listed: str, finish: str, argument: Any) -> Any:
    items = eval(listed, {"x": argument})  # noqa: S307 - an expression of the tables above
    return eval(finish, {"y": items})  # noqa: S307
