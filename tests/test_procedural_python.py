import pytest

from hfagent.tools.procedural_python import compositions, tasks, train_rows

SPLITS = ("train", "search", "confirm")


def test_the_splits_share_no_composition() -> None:
    drawn = {split: {task.composition for seed in range(3) for task in tasks(split, 300, seed)} for split in SPLITS}
    assert not drawn["train"] & drawn["search"]
    assert not drawn["train"] & drawn["confirm"]
    assert not drawn["search"] & drawn["confirm"]
    possible = {split: sum(len(triples) for triples in compositions(split).values()) for split in SPLITS}
    assert min(possible.values()) > 50


@pytest.mark.parametrize("split", SPLITS)
def test_a_seed_fixes_the_tasks_and_another_draws_others(split: str) -> None:
    assert tasks(split, 50, 1) == tasks(split, 50, 1)
    assert tasks(split, 20, 1) == tasks(split, 50, 1)[:20]
    assert {task.prompt for task in tasks(split, 50, 1)} != {task.prompt for task in tasks(split, 50, 2)}


@pytest.mark.parametrize("split", SPLITS)
def test_every_solution_passes_its_tests_and_an_empty_one_does_not(split: str) -> None:
    for task in tasks(split, 100, 3):
        scope: dict[str, object] = {}
        exec(task.solution + "\n" + task.tests, scope)
        with pytest.raises(AssertionError):
            exec(f"def {task.entry_point}(*_):\n    return None\n" + task.tests, {})


def test_prompts_do_not_repeat_within_a_draw() -> None:
    prompts = [task.prompt for task in tasks("train", 300, 0)]
    assert len(set(prompts)) == len(prompts)


def test_training_rows_are_chats_with_the_solution_in_a_block() -> None:
    [row] = train_rows(1, 5)
    [task] = tasks("train", 1, 5)
    assert row["prompt"] == [{"role": "user", "content": task.prompt}]
    assert train_rows(1, 5, "distillation") == [{"prompt": row["prompt"]}]
    assert row["completion"] == [{"role": "assistant", "content": f"```python\n{task.solution}```"}]
