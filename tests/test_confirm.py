from io import StringIO

import pytest
from world import make_plan

from hfagent.agent.confirm import ask, editable
from hfagent.agent.goal_numbers import MAX_LENGTH
from hfagent.agent.records import Plan


def answer(text: str, *, context: int | None = None) -> tuple[Plan | bool, str]:
    out = StringIO()
    return ask(make_plan(), StringIO(text), out, context=context), out.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False), ("what\n", False), ("no\n", False)],
)
def test_only_a_clear_yes_starts(text: str, expected: bool) -> None:
    assert answer(text)[0] is expected


def test_anything_else_asks_again() -> None:
    said, shown = answer("Yes please\nyse\ny\n")
    assert said is True
    assert shown.count("submit?") == 3
    assert "'yse' is no answer" in shown


def test_edit_changes_the_plan_and_a_bad_line_changes_nothing() -> None:
    edited, shown = answer("edit\nlearning_rate=5e-4\nlora_r=-1\ncoffee=1\nlora_r\nmax_rows=\n\n")
    assert isinstance(edited, Plan)
    assert edited.train == make_plan().train.model_copy(update={"learning_rate": 5e-4, "max_rows": None})
    assert "lora_r='-1'" in shown
    assert "'coffee=1' changes nothing" in shown
    assert "'lora_r' changes nothing" in shown


def test_edit_shows_what_there_is_and_what_becomes_of_it() -> None:
    train = make_plan().train
    _, shown = answer("edit\nlora_r=64\n\n")
    before, _, after = shown.partition("edit> ")
    assert all(
        f"  {name}={'' if getattr(train, name) is None else getattr(train, name)}\n" in before
        for name in editable("sft")
    )
    assert f"lora_r: {train.lora_r} -> 64" in after


@pytest.mark.parametrize(("length", "context", "taken"), [
    (512, 512, True), (513, 512, False), (MAX_LENGTH, None, True), (MAX_LENGTH + 1, None, False),
    (MAX_LENGTH + 1, 2 * MAX_LENGTH, True),
])  # fmt: skip
def test_rows_are_not_longer_than_the_model_can_read(length: int, context: int | None, taken: bool) -> None:
    edited, shown = answer(f"edit\nmax_length={length}\n\n", context=context)
    assert isinstance(edited, Plan)
    assert (edited.train.max_length == length) is taken
    assert (f"at most {context or MAX_LENGTH} tokens" in shown) is not taken


def test_a_method_is_not_offered_what_it_does_not_have() -> None:
    assert "beta" in editable("dpo")
    assert "beta" not in editable("sft")
    assert "num_generations" in editable("grpo")
