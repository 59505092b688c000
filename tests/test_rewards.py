"""Rewards: what they are worth, and that each gives one finite number for a completion or says why not."""

import math
from pathlib import Path
from typing import Any

import pytest

from hfagent.agent.errors import UsageError
from hfagent.tools.procedural_python import tasks, train_rows, wrong_solution
from hfagent.tools.rewards import Reward, check, load, total

ROW = train_rows(1, 0, "grpo")[0]


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def worth(name: str, *texts: str, max_tokens: int | None = None, **columns: Any) -> list[float]:
    """What a reward gives for chat answers to one prompt."""
    [reward] = load(name, max_tokens=max_tokens)
    given = {key: [value] * len(texts) for key, value in columns.items()}
    given |= {"prompts": [ROW["prompt"]] * len(texts), "completions": [chat(text) for text in texts]}
    return reward(**({"completion_ids": [text.split() for text in texts]} | given))


def task_columns() -> dict[str, Any]:
    return {name: ROW[name] for name in ("tests", "entry_point", "prefix")}


def test_hidden_tests_tell_right_from_wrong_answers() -> None:
    [task] = tasks("train", 1, 0)
    wrong = f"```python\n{wrong_solution(task)}```"
    assert worth("tests_pass", ROW["solution"], wrong, "I do not know", "", **task_columns()) == [1.0, 0.0, 0.0, 0.0]


def test_tests_may_be_a_list_of_lines() -> None:
    answers = ["```python\ndef one():\n    return 1\n```", "def one():\n    return 2\n"]
    assert worth("tests_pass", *answers, tests=["assert one() == 1"], entry_point="one") == [1.0, 0.0]


def test_a_text_continues_the_prefix_as_in_an_evaluation() -> None:
    [reward] = load("tests_pass")
    completions = ["    return 1\n", "    return 2\n"]
    columns = {"tests": ["assert one() == 1"] * 2, "entry_point": ["one"] * 2, "prefix": ["def one():"] * 2}
    assert reward(completions=completions, **columns) == [1.0, 0.0]


def test_syntax_wants_the_function_that_was_asked_for() -> None:
    name = ROW["entry_point"]
    whole, cut = f"```python\ndef {name}(x):\n    return x\n```", f"```python\ndef {name}(x:\n```"
    assert worth("syntax", whole, cut, "def other(): pass", "", **task_columns()) == [1.0, 0.0, 0.0, 0.0]


def test_an_empty_continuation_is_no_function() -> None:
    [reward] = load("syntax")
    columns = {"entry_point": ["one"] * 2, "prefix": ['def one():\n    """One."""'] * 2}
    assert reward(completions=["", "    return 1"], **columns) == [0.0, 1.0]


def test_the_last_number_must_be_the_answers() -> None:
    assert worth("number_equal", "so 72", "72 or 73", "no idea", answer="work\n#### 72") == [1.0, 0.0, 0.0]
    with pytest.raises(UsageError, match="needs a number in the column 'answer', not 'no number'"):
        worth("number_equal", "no idea", answer="no number")


def test_a_format_is_a_whole_fenced_block_or_the_rows_pattern() -> None:
    assert worth("format", "```python\nx\n```", "```python\nx", "x") == [1.0, 0.0, 0.0]
    assert worth("format", "<a>1</a>", "1", pattern=r"<a>\d</a>") == [1.0, 0.0]


def test_long_answers_lose_up_to_one() -> None:
    answers = [" ".join("x" * count) for count in (5, 10, 15, 20)]
    assert worth("length", *answers, max_tokens=20) == [0.0, 0.0, -0.5, -1.0]


def test_weights_stand_behind_the_name() -> None:
    found = load("format:0.2, length:-1 ,tests.tiny_rewards:holds_w1:0.5,tests.tiny_rewards:holds_w1", max_tokens=8)
    assert [(one.name, one.weight) for one in found] == [
        ("format", 0.2),
        ("length", -1.0),
        ("tests.tiny_rewards:holds_w1", 0.5),
        ("tests.tiny_rewards:holds_w1", 1.0),
    ]


def test_rewards_add_up_by_their_weights() -> None:
    found = load("format:0.2,tests.tiny_rewards:holds_w1:0.5")
    completions = [chat("```\nw1\n```"), chat("w1"), chat("w2")]
    assert total(found, completions=completions) == pytest.approx([0.7, 0.5, 0.0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("accuracy", "there is no reward 'accuracy': there are tests_pass, syntax"),
        ("tests_pass:high", "the weight 'high' of the reward 'tests_pass' is no number"),
        ("format:nan", "is not finite"),
        ("no.such.module:f", "cannot be imported: No module named 'no'"),
        ("math:no_such_function", "cannot be imported"),
        ("math:pi", "is no plain function"),
        (":f", "the reward ':f' cannot be imported: ValueError"),
        (".x:f", "the reward '.x:f' cannot be imported: TypeError"),
        ("length", "give --max-completion-length"),
        (" , ", "names no reward"),
    ],
)
def test_what_is_no_reward_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load(text)


@pytest.mark.parametrize(
    ("source", "said"),
    [("def f(:\n", "SyntaxError: invalid"), ("exit(3)\n", "SystemExit: 3"), ("1 / 0\n", "ZeroDivisionError")],
)
def test_a_module_that_cannot_be_imported_is_told_in_a_line(
    tmp_path: Path, source: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_reward.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match=f"the reward 'broken_reward:f' cannot be imported: {said}.*$"):
        load("broken_reward:f")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0], "gave 1 numbers for 2 completions"),
        ([1.0, None], "gave None for completion 1: it must be a finite number"),
        ([math.inf, 1.0], "gave inf for completion 0"),
        (["1", 1.0], "gave '1' for completion 0"),
        ([True, 1], None),
    ],
)
def test_exactly_one_finite_number_for_each_completion(values: list[Any], said: str | None) -> None:
    reward = Reward("mine", 1.0, lambda **given: values)
    if said is None:
        assert reward(completions=["a", "b"]) == [1.0, 1.0]
    else:
        with pytest.raises(UsageError, match=f"the reward 'mine' {said}"):
            reward(completions=["a", "b"])


def test_a_reward_is_tried_on_an_empty_answer_before_anything_long() -> None:
    check(load("tests_pass,syntax,format,length", max_tokens=8), [ROW])
    with pytest.raises(UsageError, match="the reward 'number_equal' needs the columns answer; the rows have 'prompt'"):
        check(load("number_equal"), [ROW])
    with pytest.raises(UsageError, match="raising' failed: KeyError: 'gone'"):
        check(load("tests.tiny_rewards:raising"), [ROW])


@pytest.mark.parametrize(
    ("reward", "values", "said"),
    [
        ("number_equal", {"answer": "four"}, "the first since answer is 'four', not a number"),
        ("number_equal", {"answer": None}, "the first since answer is None, not"),
        ("tests_pass", {"entry_point": None}, "entry_point is None, not the name of a function"),
        ("tests_pass", {"tests": []}, "tests is \\[\\], not a text"),
        ("format", {"pattern": None}, "pattern is None, not a regular expression"),
        ("format", {"pattern": "("}, "pattern is '\\('"),
    ],
)
def test_every_row_is_looked_at_before_anything_long(reward: str, values: dict[str, Any], said: str) -> None:
    sound = {**ROW, "answer": "4", "pattern": "x"}
    with pytest.raises(UsageError, match=f"the reward '{reward}' cannot judge answers to 2 of 4 rows.*{said}"):
        check(load(reward), [sound, {**sound, **values}, sound, {**sound, **values}])


def test_wrong_solutions_fail_and_differ_from_the_right_ones() -> None:
    drawn = tasks("train", 60, 3)
    wrong = [wrong_solution(task) for task in drawn]
    columns = {name: [getattr(task, name) for task in drawn] for name in ("tests", "entry_point", "prefix")}
    [reward] = load("tests_pass")
    assert reward(completions=[chat(f"```python\n{text}```") for text in wrong], **columns) == [0.0] * 60
    assert wrong == [wrong_solution(task) for task in drawn]
