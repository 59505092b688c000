"""Judges a sample of a dataset for every training method, by what TRL 1.16 does with such rows."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import Any, get_args

from hfagent.agent.dataset_records import DatasetReport, MethodCheck
from hfagent.agent.records import (
    Method,
)
from hfagent.agent.train_config import SAMPLING
from hfagent.tools.dataset_columns import Candidate, candidates, holds_template_marks
from hfagent.tools.dataset_mapping import TEXT_OR_MESSAGES, flaw, map_row, shared
from hfagent.tools.dataset_table import Table, read_table

Row = Mapping[str, Any]

NEEDS: dict[Method, str] = {
    "sft": "messages, prompt and completion, or text",
    "dpo": "chosen and rejected",
    "kto": "prompt, completion and a label of true or false, or chosen and rejected",
    "grpo": "a prompt",
    "reward": "chosen and rejected",
    "distillation": "a prompt, or messages",
}
CHAT_ROLES = frozenset({"system", "user", "assistant", "tool", "developer"})
"""Roles that chat templates know; for any other the template decides whether it fails or writes the name out."""
FEW_ROWS = 8
"""Fewer rows than one batch of the default size, `TrainConfig.per_device_train_batch_size`, are warned of."""
PREFERENCE = 1.1
"""A less preferred format must have a tenth more sound rows: for a null here and there a chat is not given up."""
_CONTENT = frozenset({*TEXT_OR_MESSAGES, "messages", "text"})


@dataclass(frozen=True)
class _Reading:
    """The rows as one format reads them."""

    found: Candidate
    sound: Sequence[Row]
    flaws: Counter[str]
    """Why a row cannot train -> number of rows."""

    @property
    def faults(self) -> str:
        return ", ".join(f"{problem} ({count})" for problem, count in self.flaws.most_common(3))


@dataclass(frozen=True)
class _Sample:
    table: Table
    whole: bool
    """No row was left unread."""
    duplicates: int
    token_length: Callable[[str], int] | None
    max_length: int | None
    chat_template: bool | None


def check_rows(
    dataset: str,
    rows: Sequence[Row],
    *,
    columns: Mapping[str, str],
    total_rows: int | None,
    token_length: Callable[[str], int] | None = None,
    max_length: int | None = None,
    chat_template: bool | None = None,
) -> DatasetReport:
    """Judge the rows.

    Args:
        dataset: its name, for the report.
        rows: the sample.
        columns: column -> type as `datasets` spells it; `mixed` where values of one column cannot share a type.
        total_rows: rows of the split; None where unknown.
        token_length: tokens of a text, without special tokens. Lengths leave out the chat template's own tokens, so
            they are lower bounds.
        max_length: tokens at which the trainers cut a row.
        chat_template: whether the model's tokenizer has one; None where unknown.
    """
    texts = {json.dumps(row, sort_keys=True, default=str) for row in rows}
    sample = _Sample(
        table=read_table(rows, columns),
        whole=total_rows == len(rows),
        duplicates=len(rows) - len(texts),
        token_length=cache(token_length) if token_length else None,
        max_length=max_length,
        chat_template=chat_template,
    )
    judged = {method: _judge(sample, method) for method in get_args(Method)}
    lengths = next((lengths for check, lengths in judged.values() if lengths and check.verdict != "INCOMPATIBLE"), None)
    return DatasetReport(
        dataset=dataset,
        rows=total_rows,
        columns=dict(columns),
        methods={method: check for method, (check, _) in judged.items()},
        sampled=len(rows),
        duplicates=sample.duplicates,
        token_lengths=_percentiles([total for _, total in lengths]) if lengths else None,
    )


def _judge(sample: _Sample, method: Method) -> tuple[MethodCheck, list[tuple[int, int]]]:
    table = sample.table
    if not table.rows:
        return _incompatible("there are no rows"), []
    reading = _best_reading(table, method, chat_template=sample.chat_template)
    if reading is None:
        held = ", ".join(f"{name} ({kind})" for name, kind in table.kinds.items())
        return _incompatible(f"needs {NEEDS[method]}; the columns are {held}"), []
    lengths = [_lengths(row, sample.token_length) for row in reading.sound] if sample.token_length else []
    if obstacle := _obstacle(sample, method, reading, lengths):
        return _incompatible(obstacle), lengths
    warnings = (
        *_few_rows(sample, reading.sound),
        *_row_warnings(method, reading.sound, chat_template=sample.chat_template),
        *_length_warnings(sample, method, lengths),
        *_repeats(sample),
    )
    return _verdict(sample, reading, warnings), lengths


def _best_reading(table: Table, method: Method, *, chat_template: bool | None) -> _Reading | None:
    """The format in which most rows can train; of about as many the one that the method prefers."""
    best: _Reading | None = None
    for found in candidates(table, method, chat_template=chat_template):
        mapped = [map_row(row, found.mapping) or {} for row in table.rows]
        flaws = [flaw(row) for row in mapped]
        sound = [row for row, problem in zip(mapped, flaws, strict=True) if problem is None]
        if best is None or len(sound) > PREFERENCE * len(best.sound):
            best = _Reading(found, sound, Counter(problem for problem in flaws if problem))
    return best


def _verdict(sample: _Sample, reading: _Reading, warnings: tuple[str, ...]) -> MethodCheck:
    found, dropped = reading.found, reading.flaws.total()
    changes = list(found.changes)
    if dropped:
        changes.append(f"{dropped} of {len(sample.table.rows)} rows dropped: {reading.faults}")
    if not changes:
        read = ", ".join(sources[0] for target, sources in found.mapping.columns.items() if target in _CONTENT)
        return MethodCheck(verdict="READY", reason=f"found {read}", warnings=warnings)
    # Rows that nobody read may be as bad as those that were; one of them would end the training.
    mapping = found.mapping.model_copy(update={"drop_rows": bool(dropped) or not sample.whole})
    return MethodCheck(verdict="NEEDS_MAPPING", reason="; ".join(changes), mapping=mapping, warnings=warnings)


def _incompatible(reason: str) -> MethodCheck:
    return MethodCheck(verdict="INCOMPATIBLE", reason=reason)


def _obstacle(
    sample: _Sample,
    method: Method,
    reading: _Reading,
    lengths: Sequence[tuple[int, int]],
) -> str | None:
    """What keeps all rows from training."""
    sound = reading.sound
    if not sound:
        return f"none of {len(sample.table.rows)} rows can train: {reading.faults}"
    if sample.whole and len(sound) == 1:
        rows = "there is one row" if len(sample.table.rows) == 1 else f"one row can train; dropped: {reading.faults}"
        return f"{rows}: nothing is left to hold out, so no loss could be trusted"
    if sample.chat_template is False and any(isinstance(row.get(name), list) for row in sound for name in _CONTENT):
        return "messages need a chat template, and the model's tokenizer has none"
    limit = sample.max_length
    if limit and method not in SAMPLING and lengths and all(prompt >= limit for prompt, _ in lengths):
        shortest = min(prompt for prompt, _ in lengths)
        return (
            f"every prompt has at least {shortest} tokens and max_length is {limit}: "
            f"TRL drops such rows, and none is left; raise max_length"
        )
    return None


def _lengths(row: Row, token_length: Callable[[str], int]) -> tuple[int, int]:
    """Tokens of the prompt (0 where there is none) and of the longest sequence made from the row."""
    answers = [_text(row[name]) for name in ("completion", "chosen", "rejected") if name in row]
    if "prompt" in row:
        prompt = token_length(_text(row["prompt"]))
        return prompt, prompt + max(map(token_length, answers), default=0)
    if answers:
        return token_length(_text(shared(row["chosen"], row["rejected"]))), max(map(token_length, answers))
    return 0, token_length(_text(row["messages"] if "messages" in row else row["text"]))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "\n".join(turn.get("content") or "" for turn in value)


def _percentiles(lengths: Sequence[int]) -> dict[str, int]:
    ordered = sorted(lengths)
    return {name: ordered[ceil(share * len(ordered)) - 1] for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1))}


def _length_warnings(sample: _Sample, method: Method, lengths: Sequence[tuple[int, int]]) -> Iterator[str]:
    limit = sample.max_length
    if limit is None or method in SAMPLING:
        return
    if method == "reward":
        if long := sum(total > limit for _, total in lengths):
            yield f"{long} of {len(lengths)} pairs have more than max_length={limit} tokens: TRL drops those rows"
        return
    dropped = sum(prompt >= limit for prompt, _ in lengths)
    cut = sum(prompt < limit < total for prompt, total in lengths)
    if dropped:
        yield f"{dropped} of {len(lengths)} prompts have max_length={limit} tokens or more: TRL drops those rows"
    if cut:
        longest = max(total for _, total in lengths)
        yield f"{cut} of {len(lengths)} rows are cut at max_length={limit} tokens; the longest has {longest}"


def _repeats(sample: _Sample) -> Iterator[str]:
    if sample.duplicates:
        yield f"{sample.duplicates} of {len(sample.table.rows)} rows are exact repeats"


def _few_rows(sample: _Sample, rows: Sequence[Row]) -> Iterator[str]:
    if sample.whole and len(rows) < FEW_ROWS:
        yield f"only {len(rows)} rows to train on, less than one batch of {FEW_ROWS}: the model may learn them by heart"


def _row_warnings(method: Method, rows: Sequence[Row], *, chat_template: bool | None) -> Iterator[str]:
    """What TRL accepts without a word and a person would want to know."""
    yield from _chat_warnings(rows)
    first = rows[0]
    if isinstance(first.get("prompt"), str) and len(first.keys() & set(TEXT_OR_MESSAGES)) > 1:
        why = _why_plain(rows, chat_template=chat_template)
        yield f"prompt and answer are joined as they are: no separator, no chat template{why}"
    if "text" in first and "messages" not in first and method == "sft":
        yield (
            "text trains on every token, the prompt's too, and no chat template is applied: "
            "split it into prompt and completion, or into messages, to change that"
        )
    if method == "kto" and "label" in first and len({bool(row["label"]) for row in rows}) == 1:
        yield f"every label is {bool(first['label'])}: there is nothing to tell apart"
    if method == "grpo":
        extra = ", ".join(name for name in first if name != "prompt") or "no other column"
        yield f"needs a reward function, which no dataset brings; it is given {extra}"


def _why_plain(rows: Sequence[Row], *, chat_template: bool | None) -> str:
    """Why texts do not become turns, and what would make them."""
    if any(holds_template_marks(value) for row in rows for value in row.values() if isinstance(value, str)):
        return ", since the texts hold a template's marks already; take them out, and the model's own is applied"
    if chat_template is None:
        return "; where the model to be trained has a template, they become chat messages (see with --model)"
    return ", since the model has none; texts that end in a line break or a space keep the answer apart"


def _chat_warnings(rows: Sequence[Row]) -> Iterator[str]:
    for column in ("messages", "completion", "chosen"):
        chats = [row[column] for row in rows if isinstance(row.get(column), list)]
        # In messages and completions that is a flaw, and the row is dropped.
        silent = sum(all(turn["role"] != "assistant" for turn in chat) for chat in chats)
        open_ended = sum(chat[-1]["role"] != "assistant" for chat in chats) - silent
        if silent:
            yield f"{column} has no assistant turn in {silent} of {len(rows)} rows"
        if open_ended:
            yield f"{column} does not end with an assistant turn in {open_ended} of {len(rows)} rows"
    prompts = [row["prompt"] for row in rows if isinstance(row.get("prompt"), list)]
    if answered := sum(prompt[-1]["role"] == "assistant" for prompt in prompts):
        yield f"prompt ends with an assistant turn in {answered} of {len(rows)} rows"
    lists = [value for row in rows for name in _CONTENT if isinstance(value := row.get(name), list)]
    odd = sorted({turn["role"] for chat in lists for turn in chat} - CHAT_ROLES)
    if odd:
        yield f"unusual roles {', '.join(map(repr, odd))}: the chat template may refuse them or write them out"
