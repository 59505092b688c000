import re
from decimal import Decimal

import pytest

from hfagent.agent.records import BenchmarkRef
from hfagent.tools import benchmarks
from hfagent.tools.contamination import check
from hfagent.tools.judging import Judge
from hfagent.tools.number_answer import final_number
from hfagent.tools.procedural import Split
from hfagent.tools.procedural_math import compositions, problems, train_rows

SPLITS: tuple[Split, ...] = ("train", "search", "confirm")


def test_the_splits_share_neither_composition_nor_prompt() -> None:
    drawn = {split: [one for seed in range(3) for one in problems(split, 300, seed)] for split in SPLITS}
    for one, other in (("train", "search"), ("train", "confirm"), ("search", "confirm")):
        assert not {p.composition for p in drawn[one]} & {p.composition for p in drawn[other]}
        assert not {p.prompt for p in drawn[one]} & {p.prompt for p in drawn[other]}
    assert min(sum(len(compositions(split, steps)) for steps in (1, 2, 3)) for split in SPLITS) > 30
    assert all(compositions(split, steps) for split in SPLITS for steps in (1, 2, 3))


@pytest.mark.parametrize("split", SPLITS)
def test_a_seed_fixes_the_problems_and_another_draws_others(split: Split) -> None:
    assert problems(split, 50, 1) == problems(split, 50, 1)
    assert problems(split, 20, 1) == problems(split, 50, 1)[:20]
    assert not {one.prompt for one in problems(split, 50, 1)} & {one.prompt for one in problems(split, 50, 2)}


@pytest.mark.parametrize("split", SPLITS)
def test_solutions_calculate_right_and_answers_cannot_be_read_off(split: Split) -> None:
    for one in problems(split, 200, 3):
        *lines, last = one.solution.splitlines()
        assert 1 <= len(lines) <= 3
        for line in lines:
            left, _, right = line.partition(" = ")
            assert eval(left) == int(right) > 0
        assert last == f"#### {one.answer}"
        assert lines[-1].endswith(f"= {one.answer}")
        assert final_number(one.solution) == one.answer
        assert str(one.answer) not in re.findall(r"\d+", one.prompt)


def test_training_rows_are_chats_that_are_clean_of_both_sets() -> None:
    rows = train_rows(400, 5)
    [first, *_] = problems("train", 1, 5)
    assert rows[0]["prompt"] == [{"role": "user", "content": first.prompt}]
    assert rows[0]["completion"] == [{"role": "assistant", "content": first.solution}]
    refs = [BenchmarkRef(name="procedural_math", set=s, n=100, seed=5) for s in ("search", "confirm")]
    held = [problem for ref in refs for problem in benchmarks.problems(ref)]
    assert check(rows, held, dataset_id="rows", benchmarks=refs).verdict == "clean"
    planted = {"text": f"{held[3].prompt}\n{held[3].solution}"}
    assert check([*rows, planted], held, dataset_id="rows", benchmarks=refs).flagged == (400,)


def test_rows_for_rewards_hold_the_answer() -> None:
    for row, one in zip(train_rows(40, 2, "grpo"), problems("train", 40, 2), strict=True):
        assert (final_number(row["solution"]), row["answer"]) == (one.answer, str(one.answer))


def test_as_a_benchmark_its_own_solutions_pass_and_others_do_not() -> None:
    chosen = benchmarks.problems(BenchmarkRef(name="procedural_math", set="confirm", n=20))
    judge = Judge([problem.check for problem in chosen], workers=1)
    right = [(problem.check, problem.solution) for problem in chosen]
    wrong = [(problem.check, f"#### {Decimal(final_number(problem.solution) or 0) + 1}") for problem in chosen]
    list(judge.judge(right + wrong))
    assert [judge.judgement(*pair).passed for pair in right + wrong] == [True] * 20 + [False] * 20
