"""Rows rewritten by a mapping."""

import json
from typing import Any

import pytest

from hfagent.agent.dataset_records import ColumnMapping
from hfagent.tools.dataset_mapping import flaw, map_row, map_rows

USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "hello"}


def test_only_target_columns_remain_and_the_source_row_is_untouched() -> None:
    row = {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}], "id": 7}
    before = json.dumps(row)
    mapping = ColumnMapping(
        columns={"messages": ("conversations",)},
        roles={"human": "user", "gpt": "assistant"},
        turn_keys={"from": "role", "value": "content"},
    )
    assert map_row(row, mapping) == {"messages": [USER, ASSISTANT]}
    assert json.dumps(row) == before


@pytest.mark.parametrize(("extra", "prompt"), [("3, 4", "Add.\n\n3, 4"), ("", "Add."), (None, "Add.")])
def test_several_sources_are_joined_by_a_blank_line_and_empty_ones_skipped(extra: str | None, prompt: str) -> None:
    mapping = ColumnMapping(columns={"prompt": ("instruction", "input")})
    assert map_row({"instruction": "Add.", "input": extra}, mapping) == {"prompt": prompt}


def test_texts_become_turns_and_lists_stay() -> None:
    mapping = ColumnMapping(
        columns={"prompt": ("prompt",), "chosen": ("chosen",)}, turns={"prompt": "user", "chosen": "assistant"}
    )
    assert map_row({"prompt": "hi", "chosen": [ASSISTANT]}, mapping) == {"prompt": [USER], "chosen": [ASSISTANT]}


def test_json_text_is_parsed_and_broken_json_is_dropped() -> None:
    rows = [{"messages": json.dumps([USER, ASSISTANT])}, {"messages": "[{broken"}]
    mapping = ColumnMapping(columns={"messages": ("messages",)}, parse_json=("messages",), drop_rows=True)
    assert map_rows(rows, mapping) == [{"messages": [USER, ASSISTANT]}]


def test_keys_that_arrow_filled_with_nulls_are_gone() -> None:
    turn = {"role": "user", "content": "hi", "tool_calls": None, "from": None}
    mapping = ColumnMapping(columns={"messages": ("messages",)}, turn_keys={"from": "role"})
    assert map_row({"messages": [turn]}, mapping) == {"messages": [USER]}


def test_rows_are_dropped_only_on_demand() -> None:
    rows: list[dict[str, Any]] = [{"text": "a"}, {"text": None}, {"text": " "}, {}]
    keep = ColumnMapping(columns={"text": ("text",)})
    assert len(map_rows(rows, keep)) == 4
    assert map_rows(rows, keep.model_copy(update={"drop_rows": True})) == [{"text": "a"}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ASSISTANT]},
        {"messages": [{"role": "system", "content": ""}, USER, ASSISTANT]},
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}]},
        {"prompt": "a", "completion": "b", "label": 0},
        {"prompt": [USER], "label": "a ground truth for a reward"},
        {"chosen": [USER, ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "no"}]},
        {"chosen": "Q: a\nA: b", "rejected": "Q: a\nA: c"},
        {"prompt": "Q", "chosen": "Paris", "rejected": "London"},
        {"text": "a", "irrelevant": None},
    ],
)
def test_sound_rows(row: dict[str, Any]) -> None:
    assert flaw(row) is None


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"messages": []}, "empty list"),
        ({"messages": None}, "null"),
        ({"messages": "hi"}, "not a list of messages"),
        ({"messages": [{"content": "hi"}]}, "without a role"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "content is null"),
        ({"messages": [USER, {"role": "assistant", "content": ""}]}, "empty assistant turn"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}, "content is list"),
        ({"messages": [USER, USER]}, "messages has no assistant turn"),
        ({"prompt": [USER], "completion": [USER]}, "completion has no assistant turn"),
        ({"text": ["a"]}, "text is list"),
        ({"prompt": 3, "completion": "b"}, "prompt is int"),
        ({"prompt": "a", "completion": [ASSISTANT]}, "types do not agree"),
        ({"prompt": "a", "completion": "b", "label": None}, "label is None"),
        ({"prompt": "a", "completion": "b", "label": 2}, "label is 2"),
        ({"chosen": [ASSISTANT], "rejected": [ASSISTANT]}, "share no first turn"),
        ({"chosen": [USER, ASSISTANT], "rejected": [ASSISTANT, USER]}, "share no first turn"),
        ({"chosen": "Paris", "rejected": "London"}, "share no beginning, and there is no prompt"),
        ({"chosen": " Paris", "rejected": " London"}, "share no beginning"),
        ({"chosen": "a", "rejected": "a b"}, "share no beginning"),
    ],
)
def test_flaws(row: dict[str, Any], text: str) -> None:
    assert text in (flaw(row) or "")
