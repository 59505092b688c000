"""A person's own benchmark: one JSON object a line, problems to be judged by tests or by an answer."""

import ast
import hashlib
import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, StrictFloat, StrictInt, StrictStr, ValidationError, model_validator

from hfagent.agent.errors import DatasetError
from hfagent.agent.records import BenchmarkRef, ProblemSet, Record
from hfagent.agent.verdict import detectable_gain
from hfagent.tools.answer_text import plain
from hfagent.tools.number_answer import as_number
from hfagent.tools.problem import Check, NumberCheck, Problem, TextCheck, code_problem, half_of

MIN_PROBLEMS = 30
"""Of a set: with fewer a gain of 20 points would be missed one time in five."""
FEW_PROBLEMS = 100
MAX_NEW_TOKENS = 512
SHOWN_ERRORS = 5

Text = Annotated[StrictStr, Field(min_length=1)]
Answer = StrictInt | StrictFloat | Text


class Line(Record):
    """One problem as it stands in the file."""

    prompt: Text
    tests: Text | None = None
    """Source that calls `entry_point` and raises where the function is wrong."""
    entry_point: Text | None = None
    answer: Answer | Annotated[tuple[Answer, ...], Field(min_length=1)] | None = None
    """A number, a text, or several of which any is right."""
    id: Text | None = None
    set: ProblemSet | None = None
    solution: str = ""
    """For the check that no training row holds it."""

    @model_validator(mode="after")
    def _complete(self) -> "Line":
        if (self.tests is None) == (self.answer is None):
            raise ValueError("it needs either 'tests' with 'entry_point', or 'answer'")
        if (self.tests is None) != (self.entry_point is None):
            raise ValueError("'tests' and 'entry_point' belong together")
        if self.tests is not None:
            self.signature()
        empty = [answer for answer in self._answers if not plain(str(answer))]
        if empty:
            raise ValueError(f"the answer {empty[0]!r} is empty but for spaces and quotes: nothing can be compared")
        return self

    @property
    def _answers(self) -> tuple[Answer, ...]:
        given = self.answer if isinstance(self.answer, tuple) else (self.answer,)
        return tuple(answer for answer in given if answer is not None)

    def signature(self) -> str:
        """The first line of the function that the tests call, its arguments named by letters."""
        try:
            tree = ast.parse(self.tests or "")
        except SyntaxError as error:
            raise ValueError(f"its tests are no Python: {error.msg}, line {error.lineno} of them") from error
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == self.entry_point:
                names = [chr(ord("a") + place) for place in range(len(node.args))]
                names += [keyword.arg for keyword in node.keywords if keyword.arg]
                return f"def {self.entry_point}({', '.join(names)}):"
        raise ValueError(f"its tests never call {self.entry_point!r}")

    def problem(self, name: str) -> Problem:
        """With the check by which its answers are judged."""
        if self.tests is not None and self.entry_point is not None:
            quoted = self.prompt.replace("\\", "\\\\").replace('"""', "'''")
            return code_problem(
                name,
                prompt=self.prompt,
                prefix=f'{self.signature()}\n    """{quoted}\n    """',
                entry_point=self.entry_point,
                tests=self.tests,
                solution=self.solution,
                max_new_tokens=MAX_NEW_TOKENS,
            )
        return Problem(
            id=name,
            prompt=self.prompt,
            prefix=f"Question: {self.prompt}\nAnswer:",
            check=self._answer_check(),
            solution=self.solution,
            max_new_tokens=MAX_NEW_TOKENS,
        )

    def _answer_check(self) -> Check:
        answers = self._answers
        if len(answers) == 1 and (number := as_number(str(answers[0]))) is not None:
            return NumberCheck(number=number)
        return TextCheck(answers=tuple(map(str, answers)))


def pinned(benchmark: BenchmarkRef) -> tuple[BenchmarkRef, str | None]:
    """With the file's absolute path and the hash of its content, and what is to be known of so few problems.

    Raises:
        DatasetError: there is no such file, a line of it cannot be used, or a set has too few problems.
    """
    path = Path(str(benchmark.path)).expanduser().resolve()
    content = _content(path)
    count = len(_of_set(_read(path, content), benchmark.set))
    detectable = 100 * detectable_gain(max(count, 1))
    if count < MIN_PROBLEMS:
        raise DatasetError(
            f"{path.name!r} has {count} problems in its set {benchmark.set!r}, and at least {MIN_PROBLEMS} are needed: "
            f"with so few only a gain of {detectable:.0f} points or more would be noticed"
        )
    n = min(count, benchmark.n or count)
    found = benchmark.model_copy(update={"path": str(path), "revision": _hash(content), "n": n})
    if n >= FEW_PROBLEMS:
        return found, None
    note = (
        f"{path.name}: {n} problems in the set {benchmark.set!r}, which will mostly miss a gain below "
        f"{100 * detectable_gain(n):.0f} points"
    )
    return found, note


def problems(benchmark: BenchmarkRef) -> list[Problem]:
    """All problems of the set, in the file's order.

    Raises:
        DatasetError: the file cannot be read, or is not the one that was pinned.
    """
    path = Path(str(benchmark.path))
    content = _content(path)
    if benchmark.revision not in (None, _hash(content)):
        raise DatasetError(
            f"the benchmark {path.name!r} was changed since the plan was made: its scores could not be compared with "
            "the earlier ones; put the old file back, or begin a new project"
        )
    return _of_set(_read(path, content), benchmark.set)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read the benchmark {str(path)!r}: {error.strerror or error}") from error


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _of_set(found: list[tuple[ProblemSet, Problem]], wanted: ProblemSet) -> list[Problem]:
    return [problem for belongs, problem in found if belongs == wanted]


def _read(path: Path, content: bytes) -> list[tuple[ProblemSet, Problem]]:
    """Each problem with its set. All lines or none."""
    found: list[tuple[ProblemSet, Problem]] = []
    places: dict[str, int] = {}
    """Id or prompt -> the line that has it."""
    errors: list[str] = []
    for number, text in enumerate(content.splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = Line.model_validate(json.loads(text))
        except (ValueError, RecursionError) as error:
            errors.append(f"line {number}: {_said(error)}")
            continue
        digest = hashlib.sha256(json.dumps([line.prompt, line.tests]).encode()).hexdigest()[:12]
        name = line.id or digest
        for what, key in (("id", name), ("prompt", " ".join(line.prompt.split()))):
            if (earlier := places.setdefault(f"{what} {key}", number)) != number:
                errors.append(f"line {number}: it has the {what} of line {earlier}")
                break
        else:
            found.append((line.set or half_of(line.prompt), line.problem(name)))
    if errors:
        more = f"; and {len(errors) - SHOWN_ERRORS} more" if len(errors) > SHOWN_ERRORS else ""
        raise DatasetError(f"the benchmark {str(path)!r} cannot be used: {'; '.join(errors[:SHOWN_ERRORS])}{more}")
    return found


def _said(error: Exception) -> str:
    """A validation's first finding, by the field."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:1])
        return f"{where}: {first['msg']}" if where else first["msg"].removeprefix("Value error, ")
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON: {error.msg}"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return f"it cannot be read: {error}"
