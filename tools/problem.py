"""A problem of a benchmark, and the check that its answers are judged by."""

import hashlib
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field

from hfagent.agent.records import ProblemSet, Record

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
"""What models for mathematics are mostly asked with."""


class CodeCheck(Record):
    """The answer is a Python function that passes tests."""

    kind: Literal["code"] = "code"
    prefix: str
    """The beginning of the program. Ends without a line break: a model writes it together with the indentation, as one
    token, and is lost after a line break of its own."""
    entry_point: str
    """Name of the function that the tests call."""
    tests: str
    """Source that follows the answer and raises if it is wrong."""


class NumberCheck(Record):
    """The number that the answer ends with."""

    kind: Literal["number"] = "number"
    number: Decimal


class TextCheck(Record):
    """The text that the answer ends with, up to case, quotes and punctuation around it."""

    kind: Literal["text"] = "text"
    answers: tuple[str, ...] = Field(min_length=1)
    """Any of them is right."""


class LatexCheck(Record):
    r"""The expression in the last `\boxed{...}`, up to the ways to write it."""

    kind: Literal["latex"] = "latex"
    expression: str


class Instruction(Record):
    """One rule of IFEval's kind that an answer must keep."""

    id: str
    """E.g. `punctuation:no_comma`."""
    arguments: dict[str, Any]


class InstructionsCheck(Record):
    """All of the instructions are followed."""

    kind: Literal["instructions"] = "instructions"
    instructions: tuple[Instruction, ...] = Field(min_length=1)
    prompt: str
    """Some instructions ask for it to be repeated."""


Check = Annotated[
    CodeCheck | NumberCheck | TextCheck | LatexCheck | InstructionsCheck,
    Field(discriminator="kind"),
]


class Problem(Record):
    """One problem of a benchmark."""

    id: str
    """Stable: the same problem has the same id in every evaluation."""
    prompt: str
    """The user's message of a chat."""
    prefix: str
    """What a model without a chat template continues."""
    check: Check
    solution: str = Field(exclude=True)
    """A right answer in full: for code the whole program, the prefix included. For the contamination check alone, so
    it is never written out."""
    max_new_tokens: int
    """Enough for any reasonable answer; an evaluation may set less."""


def code_problem(
    name: str, *, prompt: str, prefix: str, entry_point: str, tests: str, solution: str, max_new_tokens: int
) -> Problem:
    """A problem whose answer is a function: what a model without a chat template continues begins the program."""
    check = CodeCheck(prefix=prefix, entry_point=entry_point, tests=tests)
    return Problem(id=name, prompt=prompt, prefix=prefix, check=check, solution=solution, max_new_tokens=max_new_tokens)


def half_of(text: str) -> ProblemSet:
    """The set of a problem where the same rows serve for both: by a hash of its text, so an equal one goes with it."""
    return "search" if hashlib.sha256(" ".join(text.split()).encode()).digest()[0] % 2 else "confirm"


def problems_hash(chosen: Sequence[Problem]) -> str:
    """Hash over everything in the problems, their order included."""
    text = "\n".join(problem.model_dump_json() for problem in chosen)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
