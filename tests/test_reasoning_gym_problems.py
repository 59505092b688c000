import pytest

from hfagent.agent.records import BenchmarkRef, ProblemSet
from hfagent.tools import benchmarks
from hfagent.tools.judging import Judge
from hfagent.tools.problem import Problem
from hfagent.tools.reasoning_gym_problems import TASKS, train_rows

pytest.importorskip("reasoning_gym")


def drawn(problem_set: ProblemSet, seed: int = 0, n: int = 70) -> list[Problem]:
    return benchmarks.problems(BenchmarkRef(name="reasoning_gym", set=problem_set, n=n, seed=seed))


def prompts(problem_set: ProblemSet, *seeds: int) -> set[str]:
    return {problem.prompt for seed in seeds for problem in drawn(problem_set, seed)}


def test_sets_share_no_question_and_a_seed_fixes_them() -> None:
    assert not prompts("search", 0, 1) & prompts("confirm", 0, 1)
    trained = {row["prompt"][0]["content"] for seed in (0, 1) for row in train_rows(200, seed)}
    assert not trained & (prompts("search", 0, 1) | prompts("confirm", 0, 1))
    assert drawn("search", n=20) == drawn("search")[:20]
    assert not prompts("search", 0) & prompts("search", 1)


def test_all_tasks_come_in_turn_and_their_answers_are_right() -> None:
    chosen = drawn("confirm")
    assert {problem.id.rpartition("-")[2] for problem in chosen} == set(TASKS)
    judge = Judge([problem.check for problem in chosen], workers=1)
    pairs = [(problem.check, f"\\boxed{{{problem.solution}}}") for problem in chosen]
    pairs += [(problem.check, f"\\boxed{{{problem.solution}1}}") for problem in chosen]
    list(judge.judge(pairs))
    assert [judge.judgement(*pair).passed for pair in pairs] == [True] * 70 + [False] * 70
