"""Arithmetic and algebra drawn by the package reasoning-gym; the splits differ by their seeds and share no question."""

import hashlib
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

from hfagent.agent.errors import PackageMissing
from hfagent.agent.records import BenchmarkRef
from hfagent.agent.train_config import Method
from hfagent.tools.number_answer import as_number
from hfagent.tools.problem import BOXED, NumberCheck, Problem
from hfagent.tools.procedural import Split, chat_rows, split_of

TASKS = ("chain_sum", "simple_equations", "leg_counting", "gcd", "basic_arithmetic", "lcm", "products")
"""In turn. Each has one whole number as its answer and draws 200 questions in less than 0.1 s."""
ENDLESS = 1 << 40


def problems(benchmark: BenchmarkRef, n: int) -> list[Problem]:
    """The first `n` problems of a set and a seed.

    Raises:
        PackageMissing: reasoning-gym is not installed.
    """
    return list(islice(_draw(benchmark.set, benchmark.seed), n))


def train_rows(n: int, seed: int, method: Method = "sft") -> list[dict[str, Any]]:
    """Rows of the split `train` as TRL wants them for a method; the package gives answers without steps.

    Raises:
        PackageMissing: reasoning-gym is not installed.
        DatasetError: a method that needs wrong answers, too.
    """
    drawn = islice(_draw("train", seed), n)
    return chat_rows([(one.prompt, f"\\boxed{{{one.solution}}}", one.solution) for one in drawn], method)


def _draw(split: Split, seed: int) -> Iterator[Problem]:
    try:
        from reasoning_gym import create_dataset
    except ImportError as error:
        raise PackageMissing(
            "the problems of 'reasoning_gym' are drawn by the package reasoning-gym: pip install 'hfagent[math]'"
        ) from error
    sources = {task: iter(create_dataset(task, seed=_seed(f"{split}:{seed}:{task}"), size=ENDLESS)) for task in TASKS}
    seen: set[str] = set()
    for number in count():
        task = TASKS[number % len(TASKS)]
        question, answer = next(
            (row["question"], row["answer"])
            for row in sources[task]
            if row["question"] not in seen and split_of(row["question"]) == split
        )
        seen.add(question)
        value = as_number(answer)
        assert value is not None, (task, answer)
        yield Problem(
            id=f"{split}-{seed}-{number:04d}-{task}",
            prompt=f"{question}\n\n{BOXED}",
            prefix=f"Question: {question}\nAnswer:",
            check=NumberCheck(number=value),
            solution=answer,
            max_new_tokens=512,
        )


def _seed(text: str) -> int:
    """Far from all others: the package draws item i of seed s like item i + 1 of seed s - 1."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
