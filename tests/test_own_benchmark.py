"""A file of one's own problems, from the words of a goal to the job that asks them."""

import json
from pathlib import Path
from typing import Any

import pytest

from hfagent.agent.errors import DatasetError
from hfagent.agent.goal import parse_goal
from hfagent.agent.jobs import problem_args
from hfagent.agent.plan_benchmarks import choose_benchmarks
from hfagent.agent.recipes import load
from hfagent.agent.records import BenchmarkRef, ProblemSet
from hfagent.job_templates.evaluate import parse_args
from hfagent.tools.benchmarks import pinned, problems
from hfagent.tools.judging import Judge
from hfagent.tools.problem import Problem


def sums(number: int) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {place} + {place}?", "answer": str(2 * place)} for place in range(number)]


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def of(path: Path, problem_set: ProblemSet, n: int | None = None) -> BenchmarkRef:
    found, _ = pinned(BenchmarkRef(name=path.name, set=problem_set, path=str(path), n=n), hub=False)
    return found


def passes(problem: Problem, answer: str) -> bool:
    judge = Judge([problem.check], workers=1)
    list(judge.judge([(problem.check, answer)]))
    return judge.judgement(problem.check, answer).passed


def test_each_kind_of_line_is_judged_by_what_it_asks_for(tmp_path: Path) -> None:
    lines = [
        {"prompt": "Write f, which gives 2.", "tests": "assert f(1, k=2) == 2", "entry_point": "f", "id": "two"},
        {"prompt": "How much is it?", "answer": "$1,200.50"},
        {"prompt": "How many?", "answer": 42},
        {"prompt": "Capital of France?", "answer": "Paris"},
        {"prompt": "A primary colour?", "answer": ["red", "yellow", "blue"]},
    ]
    path = write(tmp_path / "mine.jsonl", [{**line, "set": "search"} for line in lines + sums(30)])
    code, money, number, text, several = problems(of(path, "search"))[:5]
    assert code.id == "two"
    assert code.prefix.startswith("def f(a, k):\n")
    assert passes(code, "```python\ndef f(x, k):\n    return k\n```")
    assert passes(code, "    return 2")
    assert not passes(code, "    return 3")
    assert passes(money, "It is 1200.5 dollars.")
    assert passes(number, "#### 42.0")
    assert passes(text, "The answer is: Paris.")
    assert not passes(text, "Rome")
    assert passes(several, "Blue")


def test_sets_are_halves_by_content_that_share_no_problem(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", ["", *sums(120)])
    search, confirm = ({problem.id: problem for problem in problems(of(path, s))} for s in ("search", "confirm"))
    assert not search.keys() & confirm.keys()
    assert len(search) + len(confirm) == 120
    assert min(len(search), len(confirm)) > 40
    turned = write(tmp_path / "turned.jsonl", sums(120)[::-1])
    assert {problem.id for problem in problems(of(turned, "search"))} == search.keys()
    assert [problem.id for problem in problems(of(path, "search", n=5))] == list(search)[:5]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{not json", "line 2: it is no JSON"),
        ("[1]", "line 2: Input should be an object|line 2: Input should be a valid dictionary"),
        ({"prompt": "x"}, "line 2: it needs either 'tests' with 'entry_point', or 'answer'"),
        ({"prompt": "x", "answer": "1", "tests": "f()", "entry_point": "f"}, "line 2: it needs either"),
        ({"prompt": "x", "tests": "assert f()"}, "line 2: 'tests' and 'entry_point' belong together"),
        ({"prompt": "x", "tests": "assert f(", "entry_point": "f"}, "line 2: its tests are no Python"),
        ({"prompt": "x", "tests": "assert g()", "entry_point": "f"}, "line 2: its tests never call 'f'"),
        ({"prompt": "", "answer": "1"}, "line 2: prompt: String should have at least 1 character"),
        ({"prompt": "x", "answer": ""}, "line 2: answer: "),
        ({"prompt": "x", "answer": True}, "line 2: answer: "),
        ({"prompt": "x", "answer": ["yes", "' '"]}, "line 2: the answer .* is empty but for spaces and quotes"),
        ({"prompt": "x", "answer": "1", "set": "train"}, "line 2: set: "),
        ({"prompt": "x", "answer": "1", "answr": "2"}, "line 2: answr: "),
        ({"prompt": "What is 0  + 0?", "answer": "1"}, "line 2: it has the prompt of line 1"),
        ({"prompt": "x", "answer": "1", "id": "one"}, "line 3: it has the id of line 2"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_nothing_is_read(tmp_path: Path, line: Any, says: str) -> None:
    further = [{"prompt": "y", "answer": "1", "id": "one"}] if "id of" in says else []
    path = write(tmp_path / "mine.jsonl", [sums(1)[0], line, *further, *sums(200)[1:]])
    with pytest.raises(DatasetError, match=says):
        of(path, "search")


def test_too_few_problems_are_refused_and_few_are_warned_of(tmp_path: Path) -> None:
    few = write(tmp_path / "few.jsonl", [{**line, "set": "confirm"} for line in sums(29)])
    with pytest.raises(DatasetError, match=r"has 29 problems in its set 'confirm', and at least 30.* 21 points"):
        of(few, "confirm")
    with pytest.raises(DatasetError, match="has 0 problems in its set 'search'"):
        of(few, "search")
    some = write(tmp_path / "some.jsonl", [{**line, "set": "confirm"} for line in sums(50)])
    _, note = pinned(BenchmarkRef(name="some.jsonl", set="confirm", path=str(some)), hub=False)
    assert note == "some.jsonl: 50 problems in the set 'confirm', which will mostly miss a gain below 16 points"
    many = write(tmp_path / "many.jsonl", [{**line, "set": "confirm"} for line in sums(100)])
    assert pinned(BenchmarkRef(name="many.jsonl", set="confirm", path=str(many)), hub=False)[1] is None
    with pytest.raises(DatasetError, match=r"cannot read the benchmark '.*none\.jsonl': No such file"):
        of(tmp_path / "none.jsonl", "search")


@pytest.mark.parametrize(
    ("goal", "path"),
    [
        ("improve code with SFT, benchmark ./evals/mine.jsonl", "./evals/mine.jsonl"),
        ("improve math on gold/rows.jsonl, evaluated on 'gold/mine.jsonl'", "gold/mine.jsonl"),
        ("improve code and measure the model by mine.jsonl", "mine.jsonl"),
        ("train on rows.jsonl with mine.jsonl as the benchmark", "mine.jsonl"),
        ("improve code on the mine.jsonl benchmark", "mine.jsonl"),
        ("improve code on mine.jsonl", None),
        ("train on test.jsonl to improve code", None),
    ],
)
def test_words_say_that_a_file_is_what_to_be_judged_by(goal: str, path: str | None) -> None:
    assert parse_goal(goal).benchmark == path


def test_the_file_goes_to_the_job_with_its_hash_and_no_other_will_do(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", sums(120))
    wanted = choose_benchmarks(str(path), load("code"), (), seed=3, quick=True)
    search, confirm = (pinned(benchmark, hub=False)[0] for benchmark in wanted)
    assert (search.set, confirm.set, search.n) == ("search", "confirm", 40)
    assert search.path == str(path)
    args = parse_args(["--model", "m", "--output-dir", "o", *problem_args(search)])
    job = BenchmarkRef(
        name=args.benchmark, set=args.set, n=args.n, path=args.benchmark_file, revision=args.benchmark_revision
    )
    assert problems(job) == problems(search)
    write(path, sums(121))
    with pytest.raises(DatasetError, match="was changed since the plan was made"):
        problems(job)


def test_the_example_in_the_docs_can_be_used_as_it_is() -> None:
    path = Path(__file__).parent.parent / "docs" / "example-benchmark.jsonl"
    sets: tuple[ProblemSet, ProblemSet] = ("search", "confirm")
    counts = [of(path, problem_set).n or 0 for problem_set in sets]
    assert min(counts) >= 30
    kinds = {problem.check.kind for problem in problems(of(path, "search")) + problems(of(path, "confirm"))}
    assert kinds == {"code", "number", "text"}
