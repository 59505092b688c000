"""Short Python tasks drawn by a seed, each a composition of three operations; the splits share no composition.

A task asks for a function that selects some items, changes each of them and finishes with a value or another list:
"the sum of the squares of the even numbers in x". Its hidden tests are the reference solution's own answers. Which
split an ordered triple of operations belongs to is decided by a hash of its name, never by the seed, so a model that
is trained on `train` has seen no composition of `search` or `confirm`.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, Literal

from hfagent.agent.records import Method
from hfagent.tools.procedural import Split, draw, split_of

Items = Literal["numbers", "words"]

RANDOM_TESTS = 11
MIN_ANSWERS = 4
"""Different answers that the tests of one task must have: fewer could be guessed."""

WORDS = [
    *("apple", "art", "banana", "bee", "cat", "cherry", "dog", "eel", "elephant", "fig", "fox", "grape", "ink", "ivy"),
    *("kiwi", "lemon", "mango", "night", "oak", "orange", "pea", "plum", "queen", "rat", "sea", "sun", "tea", "tiger"),
]
LETTERS = ("a", "e", "g", "n", "t")


@dataclass(frozen=True, slots=True)
class Operation:
    """One of the three parts of a task."""

    name: str
    takes: Items
    gives: Items
    code: str
    """An expression over the item `x`, or over the list `items` for the last part; `{k}` is its parameter."""
    phrases: tuple[str, ...]
    """Ways to say it; `{of}` is what the parts before it say."""
    parameters: tuple[Any, ...] = (None,)
    """Values of `k`, one of which is drawn."""


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt, its reference solution and its hidden tests."""

    composition: str
    """Names of the source and of the operations, in order: what the splits are made of."""
    prompt: str
    entry_point: str
    solution: str
    cases: tuple[tuple[Any, Any], ...]
    """Arguments with the expected results; the first argument is 0 or empty."""
    operations: tuple[Operation, ...]
    codes: tuple[str, ...]
    """Of the operations, with their parameters."""

    @property
    def signature(self) -> str:
        """The first line of the solution."""
        return self.solution.partition("\n")[0]

    @property
    def prefix(self) -> str:
        """The beginning of a program that asks for the solution."""
        return f'{self.signature}\n    """{self.prompt}"""'

    @property
    def tests(self) -> str:
        """Source that follows a solution and raises AssertionError if it is wrong."""
        return (
            f"for argument, expected in {list(self.cases)!r}:\n"
            f"    result = {self.entry_point}(argument)\n"
            f"    assert type(result) is type(expected) and result == expected, (argument, result, expected)\n"
        )


def _op(
    name: str, takes: Items, code: str, *phrases: str, gives: Items | None = None, k: tuple[Any, ...] = (None,)
) -> Operation:
    return Operation(name, takes, gives or takes, code, phrases, k)


SELECT = (
    _op("even", "numbers", "x % 2 == 0", "the even numbers"),
    _op("odd", "numbers", "x % 2 != 0", "the odd numbers"),
    _op("positive", "numbers", "x > 0", "the positive numbers"),
    _op("negative", "numbers", "x < 0", "the negative numbers"),
    _op("large", "numbers", "x > {k}", "the numbers greater than {k}", "the numbers above {k}", k=(2, 3, 4, 5)),
    _op("small", "numbers", "x < {k}", "the numbers less than {k}", "the numbers below {k}", k=(5, 6, 7, 8)),
    _op("divisible", "numbers", "x % {k} == 0", "the numbers divisible by {k}", "the multiples of {k}", k=(3, 4, 5)),
    _op("long", "words", "len(x) > {k}", "the words longer than {k} letters", k=(3, 4)),
    _op("short", "words", "len(x) < {k}", "the words shorter than {k} letters", k=(4, 5, 6)),
    _op("starting", "words", 'x.startswith("{k}")', 'the words that start with "{k}"', k=("b", "c", "e", "f", "t")),
    _op("ending", "words", 'x.endswith("{k}")', 'the words that end with "{k}"', k=LETTERS),
    _op("containing", "words", '"{k}" in x', 'the words that contain "{k}"', k=LETTERS),
    _op("lacking", "words", '"{k}" not in x', 'the words without the letter "{k}"', k=LETTERS),
)
CHANGE = (
    _op("squared", "numbers", "x * x", "the squares of {of}"),
    _op("cubed", "numbers", "x ** 3", "the cubes of {of}"),
    _op("doubled", "numbers", "x * 2", "the doubles of {of}", "{of}, doubled"),
    _op("multiplied", "numbers", "x * {k}", "{of}, each multiplied by {k}", k=(3, 4, 5, 10)),
    _op("increased", "numbers", "x + {k}", "{of}, each increased by {k}", "{of}, plus {k} each", k=(1, 2, 3, 10)),
    _op("decreased", "numbers", "x - {k}", "{of}, each decreased by {k}", "{of}, minus {k} each", k=(1, 2, 3, 10)),
    _op("negated", "numbers", "-x", "the negatives of {of}"),
    _op("absolute", "numbers", "abs(x)", "the absolute values of {of}"),
    _op("uppercase", "words", "x.upper()", "{of} in upper case", "{of}, uppercased"),
    _op("backwards", "words", "x[::-1]", "{of}, each reversed", "{of}, each spelled backwards"),
    _op("first_letters", "words", "x[0]", "the first letters of {of}"),
    _op("last_letters", "words", "x[-1]", "the last letters of {of}"),
    _op("repeated", "words", "x * 2", "{of}, each repeated twice"),
    _op("extended", "words", 'x + "{k}"', '{of}, each followed by "{k}"', k=("!", "?", "s")),
    _op("lengths", "words", "len(x)", "the lengths of {of}", gives="numbers"),
)
FINISH = (
    _op("sum", "numbers", "sum(items)", "the sum of {of}"),
    _op("max", "numbers", "max(items, default=0)", "the largest of {of}, or 0 if there is none"),
    _op("join", "words", '"{k}".join(items)', 'a string with {of}, joined by "{k}"', k=("-", ",", " ", "_")),
    _op("by_length", "words", "sorted(items, key=len)", "a list of {of}, sorted by length"),
    *(
        _op(name, kind, code, *phrases, k=k)
        for kind in ("numbers", "words")
        for name, code, phrases, k in (
            ("sorted", "sorted(items)", ("a sorted list of {of}", "a list of {of} in sorted order"), (None,)),
            ("descending", "sorted(items, reverse=True)", ("a list of {of}, sorted in descending order",), (None,)),
            ("reversed", "items[::-1]", ("a list of {of} in reverse order",), (None,)),
            ("unique", "list(dict.fromkeys(items))", ("a list of {of} without duplicates",), (None,)),
            ("first", "items[:{k}]", ("a list of the first {k} of {of}",), (2, 3)),
            ("last", "items[-{k}:]", ("a list of the last {k} of {of}",), (2, 3)),
            ("distinct", "len(set(items))", ("the number of different values among {of}",), (None,)),
        )
    ),
)

OPENINGS = (
    "Write a Python function {name}({argument}) that returns {what}.",
    "Define a Python function {name}({argument}) to return {what}.",
    "Write {name}({argument}) in Python. It returns {what}.",
)


@dataclass(frozen=True, slots=True)
class Source:
    """What a function takes, and the items in it."""

    argument: str
    where: str
    """Follows the words for the selected items."""
    code: str
    items: Items
    empty: Any


SOURCES = {
    "ints": Source("numbers", " in numbers", "numbers", "numbers", []),
    "words": Source("words", " in words", "words", "words", []),
    "limit": Source("n", " from 1 to n", "range(1, n + 1)", "numbers", 0),
}
SOURCE_DRAW = ("ints", "ints", "words", "words", "limit")
VALUES = ("sum", "max", "join", "distinct")
"""Last parts that give one value: half of all tasks, because those are what an untrained small model can do at all."""


def tasks(split: Split, n: int, seed: int) -> list[Task]:
    """The first `n` tasks of a split and a seed: a longer draw begins with the shorter one."""
    return list(islice(draw(lambda rng: _drawn(split, rng), split=split, seed=seed), n))


def train_rows(n: int, seed: int, method: Method = "sft") -> list[dict[str, Any]]:
    """Rows of the split `train` as TRL wants them for a method, in the form of chat data."""
    return [_row(task, method, number) for number, task in enumerate(tasks("train", n, seed))]


def _row(task: Task, method: Method, number: int) -> dict[str, Any]:
    prompt = {"prompt": [{"role": "user", "content": task.prompt}]}
    match method:
        case "sft":
            return {**prompt, "completion": _answer_turn(task.solution)}
        case "kto":
            right = number % 2 == 0
            answer = task.solution if right else wrong_solution(task)
            return {**prompt, "completion": _answer_turn(answer), "label": right}
        case "dpo" | "reward":
            rejected = _answer_turn(wrong_solution(task))
            return {**prompt, "chosen": _answer_turn(task.solution), "rejected": rejected}
        case "distillation":
            return dict(prompt)
        case "grpo":
            hidden = {"tests": task.tests, "entry_point": task.entry_point, "prefix": task.prefix}
            return {**prompt, **hidden, "solution": fenced(task.solution)}


def fenced(program: str) -> str:
    """A program as a chat answer."""
    return f"```python\n{program}```"


def _answer_turn(program: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": fenced(program)}]


def wrong_solution(task: Task) -> str:
    """A program that looks like the solution and fails a test: one operation is another one."""
    source = SOURCES[task.composition.partition(":")[0]]
    rng = random.Random(task.prompt)  # noqa: S311 - reproducible, not secret
    exchanges = [
        (place, other)
        for place, (own, table) in enumerate(zip(task.operations, (SELECT, CHANGE, FINISH), strict=True))
        for other in table
        if (other.takes, other.gives) == (own.takes, own.gives) and other is not own
    ]
    for place, other in rng.sample(exchanges, len(exchanges)):
        codes = list(task.codes)
        codes[place] = other.code.format(k=rng.choice(other.parameters))
        listed = f"[{codes[1]} for x in {source.code} if {codes[0]}]"
        if any(_answer(source, listed, codes[2], argument) != expected for argument, expected in task.cases):
            return f"{task.signature}\n    return {codes[2].replace('items', listed)}\n"
    raise AssertionError(f"all exchanges in {task.composition!r} give the same answers")


@cache
def compositions(split: Split) -> dict[str, list[tuple[Operation, ...]]]:
    """All ordered triples of a split, by the source that they start from."""
    return {
        source: [triple for triple in _triples(source) if split_of(_name(source, triple)) == split]
        for source in SOURCES
    }


def _triples(source: str) -> Iterator[tuple[Operation, ...]]:
    for select in SELECT:
        for change in CHANGE:
            for finish in FINISH:
                if select.takes == SOURCES[source].items == change.takes and change.gives == finish.takes:
                    yield select, change, finish


def _name(source: str, triple: tuple[Operation, ...]) -> str:
    return f"{source}:{'>'.join(operation.name for operation in triple)}"


def _drawn(split: Split, rng: random.Random) -> Task | None:
    source = rng.choice(SOURCE_DRAW)
    wanted = rng.choice((True, False))
    triples = [triple for triple in compositions(split)[source] if (triple[2].name in VALUES) == wanted]
    return _make(source, rng.choice(triples), rng)


def _make(name: str, triple: tuple[Operation, ...], rng: random.Random) -> Task | None:
    """A task, or None where a part could be left out, or the answer guessed, without any test noticing."""
    source = SOURCES[name]
    parameters = [rng.choice(operation.parameters) for operation in triple]
    codes = tuple(o.code.format(k=k) for o, k in zip(triple, parameters, strict=True))
    select, change, finish = codes
    listed = f"[{change} for x in {source.code} if {select}]"
    inputs = [source.empty, *(_input(name, rng) for _ in range(RANDOM_TESTS))]
    expected = [_answer(source, listed, finish, value) for value in inputs]
    if len({repr(answer) for answer in expected}) < MIN_ANSWERS:
        return None
    shorter = [(f"[{change} for x in {source.code}]", finish), (listed, "items")]
    if triple[1].takes == triple[1].gives:
        shorter.append((f"[x for x in {source.code} if {select}]", finish))
    if any([_answer(source, *code, value) for value in inputs] == expected for code in shorter):
        return None
    what = ""
    for operation, k in zip(triple, parameters, strict=True):
        what = rng.choice(operation.phrases).format(k=k, of=what) + (source.where if not what else "")
    entry_point = "_".join(operation.name for operation in reversed(triple))
    prompt = rng.choice(OPENINGS).format(name=entry_point, argument=source.argument, what=what)
    solution = f"def {entry_point}({source.argument}):\n    return {finish.replace('items', listed)}\n"
    cases = tuple(zip(inputs, expected, strict=True))
    return Task(_name(name, triple), prompt, entry_point, solution, cases, triple, codes)


def _input(source: str, rng: random.Random) -> Any:
    if source == "limit":
        return rng.randint(1, 30)
    size = rng.randint(1, 9)
    return rng.choices(WORDS, k=size) if source == "words" else [rng.randint(-9, 12) for _ in range(size)]


def _answer(source: Source, listed: str, finish: str, value: Any) -> Any:
    items = eval(listed, {source.argument: value})  # noqa: S307 - an expression of the tables above
    return eval(finish, {"items": items})  # noqa: S307
