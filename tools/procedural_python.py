"""Short Python tasks drawn by a seed, each a composition of three operations; the splits share no composition.

A task says in English what a function does with a list in three steps. Its hidden tests are the reference
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
Type = Literal["ints", "words", "any", "value"]
"""What an operation takes or gives; `any` is a list of either kind and gives the same kind."""

SEARCH_PERCENT, CONFIRM_PERCENT = 10, 10
"""Share of the compositions; the rest is for training."""
RANDOM_TESTS = 11

WORDS = [
    *("apple", "art", "banana", "bee", "cat", "cherry", "dog", "eel", "elephant", "fig", "fox", "grape", "ink", "ivy"),
    *("kiwi", "lemon", "mango", "night", "oak", "orange", "pea", "plum", "queen", "rat", "sea", "sun", "tea", "tiger"),
]
LETTERS = "aeinr"
NAMES = ("solve", "process", "transform", "compute", "apply_steps", "run")


@dataclass(frozen=True, slots=True)
class Operation:
    """One step on the list `xs`, or the value at the end."""

    name: str
    takes: Type
    gives: Type
    code: str
    """An expression over `xs`, and over `k` where the operation has a parameter."""
    phrases: tuple[str, ...]
    """Ways to say it, each a verb phrase."""
    parameters: tuple[Any, ...] = (None,)
    """Values of `k`, one of which is drawn."""


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt, its reference solution and its hidden tests."""

    composition: str
    """Names of the kind of list and of the operations, in order: what the splits are made of."""
    prompt: str
    entry_point: str
    solution: str
    cases: tuple[tuple[list[Any], Any], ...]
    """Arguments with the expected results; the first is the empty list."""

    @property
    def tests(self) -> str:
        """Source that follows a solution and raises AssertionError if it is wrong."""
        return (
            f"for argument, expected in {list(self.cases)!r}:\n"
            f"    result = {self.entry_point}(list(argument))\n"
            f"    assert type(result) is type(expected) and result == expected, (argument, result, expected)\n"
        )


def _op(name: str, takes: Type, gives: Type, code: str, *phrases: str, k: tuple[Any, ...] = (None,)) -> Operation:
    return Operation(name, takes, gives, code, phrases, k)


OPERATIONS = (
    _op(
        "even", "ints", "ints", "[x for x in xs if x % 2 == 0]", "keep only the even numbers", "remove the odd numbers"
    ),
    _op("odd", "ints", "ints", "[x for x in xs if x % 2 != 0]", "keep only the odd numbers", "remove the even numbers"),
    _op("positive", "ints", "ints", "[x for x in xs if x > 0]", "keep only the positive numbers"),
    _op(
        "above", "ints", "ints", "[x for x in xs if x > {k}]", "keep only the numbers greater than {k}", k=(1, 2, 3, 4)
    ),
    _op("below", "ints", "ints", "[x for x in xs if x < {k}]", "keep only the numbers less than {k}", k=(4, 5, 6, 7)),
    _op("multiples", "ints", "ints", "[x for x in xs if x % {k} == 0]", "keep only the multiples of {k}", k=(3, 4, 5)),
    _op("add", "ints", "ints", "[x + {k} for x in xs]", "add {k} to each number", k=(1, 2, 3, 5, 10)),
    _op("subtract", "ints", "ints", "[x - {k} for x in xs]", "subtract {k} from each number", k=(1, 2, 3, 4)),
    _op("times", "ints", "ints", "[x * {k} for x in xs]", "multiply each number by {k}", k=(2, 3, 4, 5)),
    _op("square", "ints", "ints", "[x * x for x in xs]", "square each number", "replace each number by its square"),
    _op("negate", "ints", "ints", "[-x for x in xs]", "negate each number", "flip the sign of each number"),
    _op("absolute", "ints", "ints", "[abs(x) for x in xs]", "take the absolute value of each number"),
    _op("longer", "words", "words", "[x for x in xs if len(x) > {k}]", "keep only the words longer than {k}", k=(3, 4)),
    _op(
        "shorter", "words", "words", "[x for x in xs if len(x) < {k}]", "keep only the words shorter than {k}", k=(5, 6)
    ),
    _op("with", "words", "words", '[x for x in xs if "{k}" in x]', 'keep only the words with "{k}"', k=(*LETTERS,)),
    _op("without", "words", "words", '[x for x in xs if "{k}" not in x]', 'remove the words with "{k}"', k=(*LETTERS,)),
    _op("upper", "words", "words", "[x.upper() for x in xs]", "convert each word to upper case", "uppercase each word"),
    _op("backwards", "words", "words", "[x[::-1] for x in xs]", "reverse each word", "spell each word backwards"),
    _op("initial", "words", "words", "[x[0] for x in xs]", "take the first letter of each word"),
    _op("double", "words", "words", "[x + x for x in xs]", "repeat each word twice without a space"),
    _op("lengths", "words", "ints", "[len(x) for x in xs]", "replace each word by its length"),
    _op("by_length", "words", "words", "sorted(xs, key=len)", "sort the words by length"),
    _op("sort", "any", "any", "sorted(xs)", "sort the list", "sort the list in ascending order"),
    _op("descending", "any", "any", "sorted(xs, reverse=True)", "sort the list in descending order"),
    _op("reverse", "any", "any", "xs[::-1]", "reverse the list", "reverse the order of the list"),
    _op("unique", "any", "any", "list(dict.fromkeys(xs))", "remove duplicates, keeping the first of each"),
    _op("first", "any", "any", "xs[:{k}]", "keep only the first {k} items", "take the first {k} items", k=(2, 3, 4)),
    _op("last", "any", "any", "xs[-{k}:]", "keep only the last {k} items", "take the last {k} items", k=(2, 3, 4)),
    _op("skip", "any", "any", "xs[{k}:]", "drop the first {k} items", "skip the first {k} items", k=(1, 2)),
    _op("every_other", "any", "any", "xs[::2]", "keep every second item, starting with the first"),
    _op("count", "any", "value", "len(xs)", "return how many items are left", "return the number of items"),
    _op("sum", "ints", "value", "sum(xs)", "return the sum", "return the total of the numbers"),
    _op("largest", "ints", "value", "max(xs, default=0)", "return the largest number, or 0 if there is none"),
    _op("smallest", "ints", "value", "min(xs, default=0)", "return the smallest number, or 0 if there is none"),
    _op("join", "words", "value", '"{k}".join(xs)', 'join the words with "{k}"', k=("-", ",", " ", "_")),
    _op("letters", "words", "value", "sum(len(x) for x in xs)", "return the total length of the words"),
)

OPENINGS = (
    "Write a Python function {name}(xs) for a list of {kind}: {a}, then {b}, then {c}.",
    "Write {name}(xs) in Python. Given a list of {kind}, first {a}, next {b}, finally {c}.",
    "Define {name}(xs) in Python for a list of {kind}: {a}; {b}; {c}.",
    "Python function {name}(xs), xs is a list of {kind}. Steps: 1) {a} 2) {b} 3) {c}",
)
KINDS = {"ints": ("integers", "numbers"), "words": ("words", "strings")}


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
def compositions(split: Split) -> tuple[tuple[str, tuple[Operation, ...]], ...]:
    """All ordered triples of a split, each with the kind of list it starts from."""
    return tuple((kind, triple) for kind, triple in _triples() if _split_of(_name(kind, triple)) == split)


def _triples() -> Iterator[tuple[str, tuple[Operation, ...]]]:
    for kind in KINDS:
        for a in OPERATIONS:
            for b in OPERATIONS:
                for c in OPERATIONS:
                    if len({a, b, c}) == 3 and _fits(kind, (a, b, c)):
                        yield kind, (a, b, c)


def _fits(kind: str, triple: tuple[Operation, ...]) -> bool:
    held: str = kind
    for operation in triple:
        if held == "value" or operation.takes not in ("any", held):
            return False
        held = held if operation.gives == "any" else operation.gives
    return True


def _name(kind: str, triple: tuple[Operation, ...]) -> str:
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
        kind, triple = rng.choice(compositions(split))
        task = _make(kind, triple, rng)
        if task is not None and task.prompt not in seen:
            seen.add(task.prompt)
            yield task


def _make(kind: str, triple: tuple[Operation, ...], rng: random.Random) -> Task | None:
    """A task, or None where a step could be left out, or an answer guessed, without any test noticing."""
    parameters = [rng.choice(operation.parameters) for operation in triple]
    codes = [operation.code.format(k=k) for operation, k in zip(triple, parameters, strict=True)]
    phrases = [rng.choice(o.phrases).format(k=k) for o, k in zip(triple, parameters, strict=True)]
    name = rng.choice(NAMES)
    a, b, c = phrases
    prompt = rng.choice(OPENINGS).format(name=name, kind=rng.choice(KINDS[kind]), a=a, b=b, c=c)
    inputs: list[list[Any]] = [[], *(_input(kind, rng) for _ in range(RANDOM_TESTS))]
    expected = [_apply(codes, xs) for xs in inputs]
    if len({repr(answer) for answer in expected}) < 4:
        return None
    for left_out in range(3):
        rest = codes[:left_out] + codes[left_out + 1 :]
        if (
            triple[left_out].gives in (triple[left_out].takes, "any")
            and [_apply(rest, xs) for xs in inputs] == expected
        ):
            return None
    lines = [f"def {name}(xs):", *(f"    xs = {code}" for code in codes[:-1]), f"    return {codes[-1]}"]
    cases = tuple(zip(inputs, expected, strict=True))
    return Task(_name(kind, triple), prompt, name, "\n".join(lines) + "\n", cases)


def _input(kind: str, rng: random.Random) -> list[Any]:
    size = rng.randint(1, 9)
    return [rng.randint(-9, 12) if kind == "ints" else rng.choice(WORDS) for _ in range(size)]


def _apply(codes: list[str], xs: list[Any]) -> Any:
    held: Any = list(xs)
    for code in codes:
        held = eval(code, {"xs": held})  # noqa: S307 - an expression of the table above
    return held
