"""Verdicts of the dataset check."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from hfagent.agent.dataset_records import ColumnMapping, DatasetReport, MethodCheck
from hfagent.agent.records import (
    Method,
)
from hfagent.tools.dataset_check import check_rows
from hfagent.tools.dataset_mapping import map_rows

USER = {"role": "user", "content": "hi"}
GOOD = {"role": "assistant", "content": "hello"}
BAD = {"role": "assistant", "content": "go away"}
CHAT = {"prompt": "user", "completion": "assistant"}
PAIRS = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}


def judge(rows: Sequence[dict[str, Any]] | dict[str, Any], **options: Any) -> DatasetReport:
    """The report on rows, or on four rows like the one given."""
    rows = [{**rows, "id": i} for i in range(4)] if isinstance(rows, dict) else rows
    names = dict.fromkeys(name for row in rows for name in row)
    options.setdefault("total_rows", len(rows))
    return check_rows("org/data", rows, columns=dict.fromkeys(names, "?"), **options)


def judge_for(method: Method, rows: Sequence[dict[str, Any]] | dict[str, Any], **options: Any) -> MethodCheck:
    return judge(rows, **options).methods[method]


@pytest.mark.parametrize(
    ("method", "row"),
    [
        ("sft", {"messages": [USER, GOOD]}),
        ("sft", {"messages": [USER, GOOD], "text": "TRL prefers the messages"}),
        ("sft", {"messages": [USER, GOOD], "tools": "[]"}),
        ("sft", {"prompt": "a", "completion": "b"}),
        ("sft", {"prompt": [USER], "completion": [GOOD]}),
        ("sft", {"text": "a"}),
        ("sft", {"conversations": [{"from": "user", "value": "hi"}, {"from": "assistant", "value": "hello"}]}),
        ("dpo", {"prompt": "a", "chosen": "b", "rejected": "c"}),
        ("dpo", {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}),
        ("dpo", {"chosen": [USER, GOOD], "rejected": [USER, BAD]}),
        ("dpo", {"chosen": "q a", "rejected": "q b"}),
        ("kto", {"prompt": "a", "completion": "b", "label": True}),
        ("kto", {"prompt": "a", "chosen": "b", "rejected": "c"}),
        ("grpo", {"prompt": "a", "answer": "b"}),
        ("grpo", {"prompt": [USER]}),
        ("distillation", {"prompt": [USER], "completion": [GOOD]}),
        ("distillation", {"messages": [USER, GOOD], "tools": "[]"}),
    ],
)
def test_ready(method: Method, row: dict[str, Any]) -> None:
    check = judge_for(method, row)
    assert (check.verdict, check.mapping) == ("READY", None)


@pytest.mark.parametrize(
    ("method", "row", "columns", "turns"),
    [
        ("sft", {"instruction": "a", "input": "", "output": "b"}, {"prompt": ("instruction", "input")}, CHAT),
        ("sft", {"instruction": "a", "output": "b", "text": "a b"}, {"completion": ("output",)}, CHAT),
        ("sft", {"question": "a", "answer": "b"}, {"prompt": ("question",), "completion": ("answer",)}, CHAT),
        ("sft", {"problem": "a", "answer": "4", "solution": "2+2=4"}, {"completion": ("solution",)}, CHAT),
        ("sft", {"prompt": "a", "response": "b"}, {"prompt": ("prompt",), "completion": ("response",)}, CHAT),
        ("sft", {"instruction": "a", "context": "c", "response": "b"}, {"prompt": ("instruction", "context")}, CHAT),
        ("sft", {"Question": "a", "Response": "b"}, {"prompt": ("Question",), "completion": ("Response",)}, CHAT),
        ("sft", {"prompt": "a", "completion": [GOOD]}, {"prompt": ("prompt",)}, {"prompt": "user"}),
        ("sft", {"prompt": "a", "chosen": "b", "rejected": "c"}, {"completion": ("chosen",)}, CHAT),
        ("sft", {"chosen": [USER, GOOD], "rejected": [USER, BAD]}, {"messages": ("chosen",)}, {}),
        ("sft", {"conversations": [USER, GOOD]}, {"messages": ("conversations",)}, {}),
        ("sft", {"dialog": [USER, GOOD]}, {"messages": ("dialog",)}, {}),
        ("sft", {"messages": [USER, GOOD], "prompt": "a"}, {"messages": ("messages",)}, {}),
        ("sft", {"messages": [USER, GOOD], "tools": ""}, {"messages": ("messages",)}, {}),
        ("sft", {"prompt": "a", "completion": "b", "text": "c"}, {"completion": ("completion",)}, {}),
        ("sft", {"text": "a", "labels": 1}, {"text": ("text",)}, {}),
        ("sft", {"text": "a", "image": None}, {"text": ("text",)}, {}),
        ("dpo", {"question": "q", "good_response": "a", "bad_response": "b"}, {"chosen": ("good_response",)}, PAIRS),
        ("dpo", {"prompt": "q", "accepted": "a", "refused": "b"}, {"rejected": ("refused",)}, PAIRS),
        ("dpo", {"prompt": "q", "dispreferred": "b", "preferred": "a"}, {"chosen": ("preferred",)}, PAIRS),
        ("dpo", {"prompt": "q", "dis-preferred": "b", "preferred": "a"}, {"rejected": ("dis-preferred",)}, PAIRS),
        (
            "dpo",
            {"prompt": "q", "chosenModel": "m", "chosenBy": "a", "rejectedBy": "b"},
            {"chosen": ("chosenBy",)},
            PAIRS,
        ),
        ("dpo", {"system": "s", "query": "q", "chosen": "a", "rejected": "b"}, {"prompt": ("system", "query")}, PAIRS),
        ("dpo", {"prompt": "q", "chosen": [GOOD], "rejected": [BAD]}, {"prompt": ("prompt",)}, {"prompt": "user"}),
        ("kto", {"prompt": "q", "response": "a", "label": 1}, {"completion": ("response",), "label": ("label",)}, CHAT),
        ("kto", {"prompt": "q", "chosen": "a", "rejected": "b", "label": 7}, {"chosen": ("chosen",)}, {}),
        ("grpo", {"query": "q", "answer": "a"}, {"prompt": ("query",), "answer": ("answer",)}, {"prompt": "user"}),
        ("grpo", {"prompt": "q", "completions": ["a"]}, {"prompt": ("prompt",)}, {}),
    ],
)
def test_mapping_of_columns(
    method: Method, row: dict[str, Any], columns: dict[str, tuple[str, ...]], turns: dict[str, str]
) -> None:
    check = judge_for(method, row)
    assert check.verdict == "NEEDS_MAPPING"
    assert check.mapping is not None
    assert columns.items() <= check.mapping.columns.items()
    assert check.mapping.turns == turns
    assert not check.mapping.drop_rows
    mapped = map_rows([row] * 2, check.mapping)
    assert judge_for(method, mapped).verdict == "READY"


def test_a_prompt_that_the_answers_repeat_is_left_out() -> None:
    row = {"prompt": "hi", "chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": [USER, GOOD]}
    check = judge_for("dpo", row)
    assert check.mapping == ColumnMapping(columns={"chosen": ("chosen",), "rejected": ("rejected",)})


def test_sharegpt_roles_and_keys_are_rewritten() -> None:
    rows = [{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}] * 2
    check = judge_for("sft", rows)
    assert check.mapping == ColumnMapping(
        columns={"messages": ("conversations",)},
        roles={"gpt": "assistant", "human": "user"},
        turn_keys={"from": "role", "value": "content"},
    )
    assert map_rows(rows, check.mapping) == [{"messages": [USER, GOOD]}] * 2


def test_distillation_needs_the_prompt_alone_or_a_chat_under_its_name() -> None:
    found = judge_for("distillation", {"question": "w1", "answer": "w2"}, chat_template=True)
    assert found.mapping == ColumnMapping(columns={"prompt": ("question",)}, turns={"prompt": "user"})
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    found = judge_for("distillation", {"conversations": turns})
    assert found.mapping is not None
    assert map_rows([{"conversations": turns}], found.mapping) == [{"messages": [USER, GOOD]}]
    known = [{"from": "user", "value": "hi"}, {"from": "assistant", "value": "hello"}]
    assert judge_for("distillation", {"conversations": known}).verdict == "NEEDS_MAPPING"
    refused = judge_for("distillation", {"chosen": "a", "rejected": "b"})
    assert (refused.verdict, "needs a prompt, or messages" in refused.reason) == ("INCOMPATIBLE", True)


def test_messages_as_json_text_are_parsed_and_broken_ones_dropped() -> None:
    rows = [{"messages": json.dumps([USER, GOOD])}] * 3 + [{"messages": "[broken"}]
    check = judge_for("sft", rows)
    assert check.mapping == ColumnMapping(columns={"messages": ("messages",)}, parse_json=("messages",), drop_rows=True)
    assert "1 of 4 rows dropped" in check.reason


@pytest.mark.parametrize(
    ("method", "sound", "unsound"),
    [
        ("sft", {"text": "a"}, {"text": None}),
        ("sft", {"messages": [USER, GOOD]}, {"messages": []}),
        ("sft", {"messages": [USER, GOOD]}, {"messages": [USER, {"role": "assistant", "content": None}]}),
        ("sft", {"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": ""}),
        ("dpo", {"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": None, "rejected": "c"}),
        ("kto", {"prompt": "a", "completion": "b", "label": True}, {"prompt": "a", "completion": "b", "label": None}),
        ("grpo", {"prompt": "a"}, {"prompt": None}),
    ],
)
def test_rows_that_cannot_train_are_dropped_by_the_mapping(
    method: Method, sound: dict[str, Any], unsound: dict[str, Any]
) -> None:
    check = judge_for(method, [sound, unsound, sound])
    assert check.verdict == "NEEDS_MAPPING"
    assert check.mapping is not None
    assert map_rows([sound, unsound, sound], check.mapping) == [sound, sound]


def test_a_mapping_made_from_a_part_of_the_rows_drops_what_nobody_has_seen() -> None:
    check = judge_for("sft", {"question": "a", "answer": "b"}, total_rows=None)
    assert check.mapping is not None
    assert check.mapping.drop_rows


@pytest.mark.parametrize(
    ("method", "row", "reason"),
    [
        ("sft", {"id": 1, "label": 2}, "needs messages, prompt and completion, or text; the columns are id (other)"),
        ("sft", {"messages": []}, "needs messages"),
        ("sft", {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}, "content is list"),
        ("dpo", {"messages": [USER, GOOD]}, "needs chosen and rejected"),
        ("dpo", {"prompt": "q", "chosen_score": "a", "rejected_score": "b"}, "needs chosen and rejected"),
        ("dpo", {"chosen": [GOOD], "rejected": [BAD]}, "share no first turn"),
        ("dpo", {"chosen": "x y", "rejected": "z y"}, "share no beginning"),
        ("dpo", {"prompt": "q", "chosen": "a", "rejected": "a"}, "chosen and rejected are the same (4)"),
        ("reward", {"messages": [USER, GOOD]}, "needs chosen and rejected"),
        ("kto", {"prompt": "q", "completion": "a", "label": 3}, "a label of true or false"),
        ("grpo", {"messages": [USER, GOOD]}, "needs a prompt"),
    ],
)
def test_incompatible(method: Method, row: dict[str, Any], reason: str) -> None:
    check = judge_for(method, row)
    assert check.verdict == "INCOMPATIBLE"
    assert reason in check.reason
    assert check.mapping is None


def test_no_rows_are_incompatible_with_everything() -> None:
    report = judge([], total_rows=0)
    assert {check.verdict for check in report.methods.values()} == {"INCOMPATIBLE"}


def test_a_column_of_two_kinds_cannot_be_used() -> None:
    check = judge_for("sft", [{"text": "a"}, {"text": [USER, GOOD]}])
    assert (check.verdict, "text (mixed)" in check.reason) == ("INCOMPATIBLE", True)


def test_equal_pairs_are_dropped() -> None:
    check = judge_for("dpo", [{"prompt": "q", "chosen": "a", "rejected": b} for b in "abc"])
    assert (check.verdict, check.reason) == (
        "NEEDS_MAPPING",
        "1 of 3 rows dropped: chosen and rejected are the same (1)",
    )
    assert check.mapping is not None
    assert check.mapping.drop_rows


@pytest.mark.parametrize(
    ("method", "rows", "warning"),
    [
        ("sft", [{"messages": [USER, GOOD]}, {"messages": [USER, GOOD, USER]}], "not end with an assistant turn in 1"),
        ("sft", {"messages": [USER, GOOD, {"role": "judge", "content": "8"}]}, "unusual roles 'judge'"),
        ("sft", {"prompt": "a", "completion": "b"}, "no separator, no chat template; where the model"),
        ("sft", {"text": "a"}, "split it into prompt and completion"),
        ("dpo", {"chosen": [USER, USER], "rejected": [USER, BAD]}, "chosen has no assistant turn in 4 of 4"),
        ("sft", [{"text": "a"}, {"text": "a"}, {"text": "a"}], "2 of 3 rows are exact repeats"),
        ("kto", {"prompt": "a", "completion": "b", "label": True}, "every label is True"),
        (
            "grpo",
            {"prompt": "a", "answer": "b"},
            "which no dataset brings; it is given answer",
        ),
        ("grpo", {"prompt": [USER, GOOD]}, "prompt ends with an assistant turn in 4"),
    ],
)
def test_warnings(method: Method, rows: list[dict[str, Any]] | dict[str, Any], warning: str) -> None:
    check = judge_for(method, rows)
    assert check.verdict == "READY"
    assert warning in "\n".join(check.warnings)


words: Callable[[str], int] = lambda text: len(text.split())  # noqa: E731 - a tokenizer of one line


def test_lengths_are_reported_and_cut_or_dropped_rows_warned_of() -> None:
    rows = [{"prompt": "w " * prompt, "completion": f"w w{prompt}"} for prompt in (1, 2, 7, 8, 9)]
    report = judge(rows, token_length=words, max_length=8)
    assert report.token_lengths == {"p50": 9, "p95": 11, "max": 11}
    assert report.methods["sft"].verdict == "READY"
    assert report.methods["sft"].warnings[-2:] == (
        "2 of 5 prompts have max_length=8 tokens or more: TRL drops those rows",
        "1 of 5 rows are cut at max_length=8 tokens; the longest has 11",
    )


def test_prompts_that_all_fill_max_length_are_incompatible() -> None:
    rows = [{"prompt": "w " * 8, "completion": "w"}] * 2
    assert judge_for("sft", rows, token_length=words, max_length=9).verdict == "READY"
    check = judge_for("sft", rows, token_length=words, max_length=8)
    assert (check.verdict, "at least 8 tokens" in check.reason) == ("INCOMPATIBLE", True)


def test_the_shared_turns_of_an_implicit_prompt_count_as_the_prompt() -> None:
    rows = [{"chosen": [USER, GOOD], "rejected": [USER, BAD]}]
    check = judge_for("dpo", rows, token_length=words, max_length=1)
    assert check.verdict == "INCOMPATIBLE"


def test_a_model_without_chat_template_gets_texts() -> None:
    check = judge_for("sft", {"question": "a", "answer": "b"}, chat_template=False)
    assert check.mapping == ColumnMapping(columns={"prompt": ("question",), "completion": ("answer",)})
    check = judge_for("sft", {"messages": [USER, GOOD]}, chat_template=False)
    assert (check.verdict, "chat template" in check.reason) == ("INCOMPATIBLE", True)


@pytest.mark.parametrize("role", ["user", "system"])
def test_chats_in_which_nobody_answers_cannot_train(role: str) -> None:
    check = judge_for("sft", {"messages": [{"role": role, "content": "hi"}]})
    assert check.verdict == "INCOMPATIBLE"
    assert check.reason == "none of 4 rows can train: messages has no assistant turn (4)"
    some = judge_for("sft", [{"messages": [USER, GOOD]}, {"messages": [USER]}, {"messages": [USER, GOOD]}])
    assert some.verdict == "NEEDS_MAPPING"
    assert "1 of 3 rows dropped: messages has no assistant turn (1)" in some.reason


def test_of_several_formats_in_one_file_the_one_that_trains_most_rows_is_taken() -> None:
    pairs: list[dict[str, Any]] = [{"prompt": "a", "completion": f"b{i}"} for i in range(30)]
    check = judge_for("sft", [*pairs, *({"messages": [USER]} for _ in range(30))])
    assert check.mapping is not None
    assert set(check.mapping.columns) == {"prompt", "completion"}
    assert "30 of 60 rows dropped: prompt is null (30)" in check.reason
    assert len(map_rows([*pairs, {"messages": [USER]}], check.mapping)) == 30


def test_a_chat_is_not_given_up_for_a_text_that_has_a_few_rows_more() -> None:
    rows = [{"messages": [USER, GOOD] if i else None, "text": "a"} for i in range(30)]
    check = judge_for("sft", rows)
    assert check.mapping is not None
    assert set(check.mapping.columns) == {"messages"}


def test_every_fault_is_counted_where_no_row_can_train() -> None:
    rows = [{"prompt": "a", "completion": answer} for answer in ["", None] * 30]
    check = judge_for("sft", rows)
    assert check.reason == "none of 60 rows can train: completion is empty (30), completion is null (30)"


@pytest.mark.parametrize(("sound", "verdict"), [(1, "INCOMPATIBLE"), (2, "READY"), (7, "READY"), (8, "READY")])
def test_a_handful_of_rows_is_refused_or_warned_of(sound: int, verdict: str) -> None:
    check = judge_for("sft", [{"prompt": "a", "completion": str(i)} for i in range(sound)])
    assert check.verdict == verdict
    assert any(f"only {sound} rows" in warning for warning in check.warnings) is (sound in (2, 7))
    head = judge_for("sft", [{"prompt": "a", "completion": "b"}], total_rows=100)
    assert head.verdict == "READY"


def test_one_row_that_is_left_of_many_is_too_few() -> None:
    check = judge_for("sft", [{"text": "a"}, {"text": None}, {"text": ""}])
    assert check.verdict == "INCOMPATIBLE"
    assert "text is null (1), text is empty (1)" in check.reason


@pytest.mark.parametrize("names", [("prompt", "completion"), ("question", "answer")])
def test_texts_go_through_the_models_chat_template_whatever_their_columns_are_called(names: tuple[str, str]) -> None:
    check = judge_for("sft", dict.fromkeys(names, "a"), chat_template=True)
    assert check.mapping is not None
    assert check.mapping.turns == CHAT
    assert not any("no chat template" in warning for warning in check.warnings)


@pytest.mark.parametrize("names", [("prompt", "completion"), ("question", "answer")])
def test_texts_that_were_templated_before_are_not_templated_twice(names: tuple[str, str]) -> None:
    check = judge_for("sft", dict.fromkeys(names, "<|im_start|>user\nhi<|im_end|>"), chat_template=True)
    assert check.mapping is None or check.mapping.turns == {}
    assert any("marks already" in warning for warning in check.warnings)


def test_the_report_counts_what_it_saw() -> None:
    report = judge([{"text": "a"}, {"text": "a"}], total_rows=10)
    assert (report.dataset, report.rows, report.sampled, report.duplicates) == ("org/data", 10, 2, 1)
    assert report.columns == {"text": "?"}
    assert report.token_lengths is None
