from io import StringIO

import pytest
from test_night import make_plan

from hfagent.agent.confirm import ask
from hfagent.agent.records import Plan


def answer(text: str) -> tuple[Plan | bool, str]:
    out = StringIO()
    return ask(make_plan(), StringIO(text), out), out.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False), ("what\n", False)],
)
def test_only_a_clear_yes_starts(text: str, expected: bool) -> None:
    assert answer(text)[0] is expected


def test_edit_changes_the_plan_and_a_bad_line_changes_nothing() -> None:
    edited, shown = answer("edit\nlearning_rate=5e-4\nlora_r=-1\ncoffee=1\nmax_rows=\n\n")
    assert isinstance(edited, Plan)
    assert edited.train == make_plan().train.model_copy(update={"learning_rate": 5e-4, "max_rows": None})
    assert "lora_r='-1'" in shown
    assert "unknown name 'coffee'" in shown
