"""Short Python tasks drawn by a seed, each a composition of three operations; the splits share no composition.

A task says in English what a function does with its argument in three steps. Its hidden tests are the reference
solution's own answers. Which split an ordered triple of operations belongs to is decided by a hash of its name,
never by the seed, so a model that is trained on `train` has seen no composition of `search` or `confirm`.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

Split = Literal["train", "search", "confirm"]
Type = Literal["number", "text", "ints", "words", "list"]
"""What an operation takes or gives; `list` takes either kind of list and gives the same kind."""

SEARCH_PERCENT, CONFIRM_PERCENT = 10, 10
"""Share of the compositions; the rest is for training."""
RANDOM_TESTS = 11
MIN_ANSWERS = 4
"""Different answers that the tests of one task must have."""

WORDS = [
    *("apple", "art", "banana", "bee", "cat", "cherry", "dog", "eel", "elephant", "fig", "fox", "grape", "ink", "ivy"),
    *("kiwi", "lemon", "mango", "night", "oak", "orange", "pea", "plum", "queen", "rat", "sea", "sun", "tea", "tiger"),
]
LETTERS = ("a", "e", "i", "n", "r")
NAMES = ("solve", "process", "transform", "compute", "apply", "run")
KINDS: dict[Type, tuple[str, ...]] = {
    "number": ("an integer", "a whole number"),
    "text": ("a string", "a text"),
    "ints": ("a list of integers", "a list of numbers"),
    "words": ("a list of words", "a list of strings"),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One step on `x`."""

    name: str
    takes: Type
    gives: Type
    code: str
    """An expression over `x`, with `{k}` where the operation has a parameter."""
    phrases: tuple[str, ...]
    """Ways to say it, each a verb phrase."""
    parameters: tuple[Any, ...] = (None,)
    """Values of `k`, one of which is drawn."""


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt, its reference solution and its hidden tests."""

    composition: str
    """Names of the first type and of the operations, in order: what the splits are made of."""
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


def _op(name: str, takes: Type, gives: Type, code: str, *phrases: str, k: tuple[Any, ...] = (None,)) -> Operation:
    return Operation(name, takes, gives, code, phrases, k)


OPERATIONS = (
    # numbers
    _op("plus", "number", "number", "x + {k}", "add {k}", k=(1, 2, 3, 5, 7, 10)),
    _op("minus", "number", "number", "x - {k}", "subtract {k}", k=(1, 2, 3, 4, 6)),
    _op("times", "number", "number", "x * {k}", "multiply by {k}", k=(2, 3, 4, 5)),
    _op("squared", "number", "number", "x * x", "square it", "take the square"),
    _op("minus_sign", "number", "number", "-x", "negate it", "flip its sign"),
    _op("absolute", "number", "number", "abs(x)", "take the absolute value"),
    _op("remainder", "number", "number", "x % {k}", "take the remainder of division by {k}", k=(3, 5, 7, 10)),
    _op("digits", "number", "text", "str(x)", "convert it to a string"),
    # texts
    _op("upper", "text", "text", "x.upper()", "convert to upper case", "make it uppercase"),
    _op("backwards", "text", "text", "x[::-1]", "reverse the string", "reverse the text"),
    _op("head", "text", "text", "x[:{k}]", "keep the first {k} characters", k=(2, 3, 4)),
    _op("tail", "text", "text", "x[-{k}:]", "keep the last {k} characters", k=(2, 3, 4)),
    _op("append", "text", "text", 'x + "{k}"', 'append "{k}"', 'add "{k}" at the end', k=("!", "?", "s", "-x")),
    _op("prepend", "text", "text", '"{k}" + x', 'put "{k}" in front', k=("#", "un", "re-", "_")),
    _op("twice", "text", "text", "x * 2", "repeat it twice"),
    _op("replace", "text", "text", 'x.replace("{k}", "o")', 'replace each "{k}" with "o"', k=LETTERS),
    _op("size", "text", "number", "len(x)", "take the length"),
    _op("occurrences", "text", "number", 'x.count("{k}")', 'count how often "{k}" occurs', k=LETTERS),
    _op("split", "text", "words", "x.split()", "split it into words"),
    # lists of numbers
    _op("even", "ints", "ints", "[v for v in x if v % 2 == 0]", "keep only the even numbers", "remove the odd numbers"),
    _op("odd", "ints", "ints", "[v for v in x if v % 2 != 0]", "keep only the odd numbers", "remove the even numbers"),
    _op("above", "ints", "ints", "[v for v in x if v > {k}]", "keep only the numbers above {k}", k=(0, 1, 2, 3)),
    _op("below", "ints", "ints", "[v for v in x if v < {k}]", "keep only the numbers below {k}", k=(4, 5, 6, 7)),
    _op("add_each", "ints", "ints", "[v + {k} for v in x]", "add {k} to each number", k=(1, 2, 3, 5, 10)),
    _op("times_each", "ints", "ints", "[v * {k} for v in x]", "multiply each number by {k}", k=(2, 3, 4, 5)),
    _op("square_each", "ints", "ints", "[v * v for v in x]", "square each number"),
    _op("sum", "ints", "number", "sum(x)", "take the sum", "add up the numbers"),
    _op("largest", "ints", "number", "max(x, default=0)", "take the largest number, or 0 if there is none"),
    # lists of words
    _op("longer", "words", "words", "[v for v in x if len(v) > {k}]", "keep only the words longer than {k}", k=(3, 4)),
    _op("with", "words", "words", '[v for v in x if "{k}" in v]', 'keep only the words with "{k}"', k=LETTERS),
    _op("upper_each", "words", "words", "[v.upper() for v in x]", "convert each word to upper case"),
    _op("reverse_each", "words", "words", "[v[::-1] for v in x]", "reverse each word"),
    _op("length_each", "words", "ints", "[len(v) for v in x]", "replace each word by its length"),
    _op("by_length", "words", "words", "sorted(x, key=len)", "sort the words by length"),
    _op("join", "words", "text", '"{k}".join(x)', 'join the words with "{k}"', k=("-", ",", " ", "_")),
    # lists of either kind
    _op("sort", "list", "list", "sorted(x)", "sort the list", "sort it in ascending order"),
    _op("descending", "list", "list", "sorted(x, reverse=True)", "sort it in descending order"),
    _op("reverse", "list", "list", "x[::-1]", "reverse the list", "reverse its order"),
    _op("unique", "list", "list", "list(dict.fromkeys(x))", "remove duplicates, keeping the first of each"),
    _op("first", "list", "list", "x[:{k}]", "keep only the first {k} items", "take the first {k} items", k=(2, 3, 4)),
    _op("skip", "list", "list", "x[{k}:]", "drop the first {k} items", "skip the first {k} items", k=(1, 2)),
    _op("count", "list", "number", "len(x)", "count the items", "take the number of items"),
)

OPENINGS = (
    "Write a Python function {name}(x) for {kind} x: {a}, then {b}, then {c}. Return the result.",
    "Write {name}(x) in Python. Given {kind} x, first {a}, next {b}, and finally {c}.",
    "Define {name}(x) in Python, where x is {kind}: {a}; {b}; {c}.",
    "Python function {name}(x), x is {kind}. Steps: 1) {a} 2) {b} 3) {c}",
)


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
def compositions(split: Split) -> dict[Type, list[tuple[Operation, ...]]]:
    """All ordered triples of a split, by the type that they start from."""
    return {kind: [triple for triple in _triples(kind) if _split_of(_name(kind, triple)) == split] for kind in KINDS}


def _triples(kind: Type) -> Iterator[tuple[Operation, ...]]:
    for a in OPERATIONS:
        for b in OPERATIONS:
            for c in OPERATIONS:
                if len({a, b, c}) == 3 and _fits(kind, (a, b, c)):
                    yield a, b, c


def _fits(kind: Type, triple: tuple[Operation, ...]) -> bool:
    held = kind
    for operation in triple:
        if operation.takes != held and not (operation.takes == "list" and held in ("ints", "words")):
            return False
        held = held if operation.gives == "list" else operation.gives
    return True


def _name(kind: Type, triple: tuple[Operation, ...]) -> str:
    return f"{kind}:{'>'.join(operation.name for operation in triple)}"


def _split_of(composition: str) -> Split:
    percent = int.from_bytes(hashlib.sha256(composition.encode()).digest()[:4]) % 100
    if percent < SEARCH_PERCENT:
        return "search"
    return "confirm" if percent < SEARCH_PERCENT + CONFIRM_PERCENT else "train"


def _draw(split: Split, seed: int) -> Iterator[Task]:
    rng = random.Random(f"{split}:{seed}")  # noqa: S311 - reproducible, not secret
    seen: set[str] = set()
    while True:
        kind = rng.choice(list(KINDS))
        task = _make(kind, rng.choice(compositions(split)[kind]), rng)
        if task is not None and task.prompt not in seen:
            seen.add(task.prompt)
            yield task


def _make(kind: Type, triple: tuple[Operation, ...], rng: random.Random) -> Task | None:
    """A task, or None where a step could be left out, or the answer guessed, without any test noticing."""
    parameters = [rng.choice(operation.parameters) for operation in triple]
    codes = [operation.code.format(k=k) for operation, k in zip(triple, parameters, strict=True)]
    a, b, c = (rng.choice(o.phrases).format(k=k) for o, k in zip(triple, parameters, strict=True))
    name = rng.choice(NAMES)
    prompt = rng.choice(OPENINGS).format(name=name, kind=rng.choice(KINDS[kind]), a=a, b=b, c=c)
    inputs = [_EMPTY[kind], *(_argument(kind, rng) for _ in range(RANDOM_TESTS))]
    expected = [_apply(codes, x) for x in inputs]
    if len({repr(answer) for answer in expected}) < MIN_ANSWERS:
        return None
    for left_out, operation in enumerate(triple):
        rest = codes[:left_out] + codes[left_out + 1 :]
        if operation.takes == operation.gives and [_apply(rest, x) for x in inputs] == expected:
            return None
    lines = [f"def {name}(x):", *(f"    x = {code}" for code in codes[:-1]), f"    return {codes[-1]}"]
    cases = tuple(zip(inputs, expected, strict=True))
    return Task(_name(kind, triple), prompt, name, "\n".join(lines) + "\n", cases)


_EMPTY: dict[Type, Any] = {"number": 0, "text": "", "ints": [], "words": []}


def _argument(kind: Type, rng: random.Random) -> Any:
    if kind == "number":
        return rng.randint(-20, 60)
    if kind == "text":
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 3)))
    if kind == "ints":
        return [rng.randint(-9, 12) for _ in range(rng.randint(1, 9))]
    return rng.choices(WORDS, k=rng.randint(1, 9))


def _apply(codes: list[str], argument: Any) -> Any:
    held = argument
    for code in codes:
        held = eval(code, {"x": held})  # noqa: S307 - an expression of the table above
    return held
