"""Rewrites rows by a `ColumnMapping`, and says what keeps a rewritten row from training."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hfagent.agent.dataset_records import ColumnMapping

TEXT_OR_MESSAGES = ("prompt", "completion", "chosen", "rejected")
"""Columns that TRL takes as a text or as a list of messages."""
TAUGHT = ("messages", "completion")
"""Columns whose messages the model learns to write: without an assistant turn it would learn to write questions."""


def map_row(row: Mapping[str, Any], mapping: ColumnMapping) -> dict[str, Any] | None:
    """The row with the target columns only, or None where `drop_rows` leaves it out.

    Several source texts are joined by a blank line, nulls and empty texts skipped. JSON that does not parse stays a
    text. The source row is not changed.
    """
    mapped = {target: _target(row, target, sources, mapping) for target, sources in mapping.columns.items()}
    if mapping.drop_rows and flaw(mapped) is not None:
        return None
    return mapped


def map_rows(rows: Iterable[Mapping[str, Any]], mapping: ColumnMapping) -> list[dict[str, Any]]:
    """All rows rewritten, without the dropped ones."""
    return [mapped for row in rows if (mapped := map_row(row, mapping)) is not None]


def flaw(row: Mapping[str, Any]) -> str | None:
    """Why TRL 1.16 would stop on this row, or learn nothing or a wrong thing from it; None for a sound row.

    Looks only at the columns that a trainer reads: messages, text, prompt, completion, chosen, rejected and label.
    """
    for column, value in row.items():
        if column == "label" and "completion" not in row:
            continue  # a ground truth for GRPO's rewards, not a verdict for KTO
        if problem := _column_flaw(column, value):
            return problem
    return _kinds_flaw(row) or _prefix_flaw(row) or _pair_flaw(row)


def shared(chosen: Sequence[Any], rejected: Sequence[Any]) -> Sequence[Any]:
    """The prompt that TRL finds in two texts or lists of messages: what they share, but never all of it."""
    limit = min(len(chosen), len(rejected)) - 1
    return chosen[: next((i for i in range(limit) if chosen[i] != rejected[i]), limit)]


def _target(row: Mapping[str, Any], target: str, sources: tuple[str, ...], mapping: ColumnMapping) -> Any:
    values = [_parsed(row.get(source)) if source in mapping.parse_json else row.get(source) for source in sources]
    value = values[0] if len(values) == 1 else "\n\n".join(text for text in map(_text, values) if text.strip())
    if isinstance(value, list | tuple):
        return [_turn(item, mapping) if isinstance(item, Mapping) else item for item in value]
    if isinstance(value, str) and value.strip() and target in mapping.turns:
        return [{"role": mapping.turns[target], "content": value}]
    return value


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _turn(turn: Mapping[str, Any], mapping: ColumnMapping) -> dict[str, Any]:
    # Arrow gives each turn the keys of all turns: a null key is an absent one, and some chat templates test presence.
    renamed = {mapping.turn_keys.get(key, key): value for key, value in turn.items() if value is not None}
    if isinstance(role := renamed.get("role"), str):
        renamed["role"] = mapping.roles.get(role, role)
    return renamed


def _column_flaw(column: str, value: Any) -> str | None:
    if column == "label":
        # TRL's KTO trainer adds labels up: a text or a null is a TypeError, a 2 a wrong balance of the two losses.
        return None if value in (0, 1) else f"label is {value!r}, not true or false"
    if column not in (*TEXT_OR_MESSAGES, "messages", "text"):
        return None
    if value is None:
        return f"{column} is null"
    if isinstance(value, str):
        if column == "messages":
            return "messages is a text, not a list of messages"
        return None if value.strip() else f"{column} is empty"
    if not isinstance(value, list) or column == "text":
        return f"{column} is {type(value).__name__}, not a text{'' if column == 'text' else ' or a list of messages'}"
    if not value:
        return f"{column} is an empty list"
    single = next((problem for turn in value if (problem := _turn_flaw(column, turn))), None)
    return single or _turns_flaw(column, value)


def _turns_flaw(column: str, turns: list[Any]) -> str | None:
    """What is missing from turns that are sound one by one."""
    if column in TAUGHT and all(turn["role"] != "assistant" for turn in turns):
        return f"{column} has no assistant turn"
    if column == "prompt" and not any((turn["content"] or "").strip() or turn.get("tool_calls") for turn in turns):
        return "prompt is empty"
    return None


def _turn_flaw(column: str, turn: Any) -> str | None:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        return f"{column} has a turn without a role"
    content = turn.get("content")
    if turn.get("tool_calls") and content in (None, ""):
        return None
    if content is None:
        return f"{column} has a turn whose content is null"
    if not isinstance(content, str):
        return f"{column} has a turn whose content is {type(content).__name__}, not a text"
    if turn["role"] == "assistant" and not content.strip():
        return f"{column} has an empty assistant turn"
    return None


def _kinds_flaw(row: Mapping[str, Any]) -> str | None:
    kinds = {column: isinstance(row[column], list) for column in TEXT_OR_MESSAGES if column in row}
    if len(set(kinds.values())) < 2:
        return None
    named = " and ".join(f"{column} is {'a list of messages' if many else 'a text'}" for column, many in kinds.items())
    return f"types do not agree: {named}"


def _prefix_flaw(row: Mapping[str, Any]) -> str | None:
    """TRL takes what chosen and rejected share as the prompt, were it nothing: there must be one."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if "prompt" in row or not isinstance(chosen, str | list) or not isinstance(rejected, str | list):
        return None
    found = shared(chosen, rejected)
    if found.strip() if isinstance(found, str) else found:
        return None
    what = "no beginning" if isinstance(chosen, str) else "no first turn"
    return f"chosen and rejected share {what}, and there is no prompt"


def _pair_flaw(row: Mapping[str, Any]) -> str | None:
    if "chosen" in row and row["chosen"] == row.get("rejected"):
        return "chosen and rejected are the same"
    return None
