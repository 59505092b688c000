"""What was found out about a dataset, and how its rows are rewritten."""

from typing import Literal

from pydantic import Field

from hfagent.agent.records import Method, Record

FIRST_ONLY = "the first ones only: the split has one file that cannot be read from its middle"
"""Where a sample may not stand for all rows."""


class ColumnMapping(Record):
    """How rows are rewritten for a method; executed by the train template, never only printed."""

    columns: dict[str, tuple[str, ...]]
    """Target column -> source columns, whose texts are joined by a blank line where there are several."""
    parse_json: tuple[str, ...] = ()
    """Source columns that hold JSON text and are parsed first."""
    roles: dict[str, str] = Field(default_factory=dict)
    """Chat roles renamed, e.g. human -> user."""
    turn_keys: dict[str, str] = Field(default_factory=dict)
    """Keys of a chat turn renamed, e.g. from -> role, value -> content."""
    turns: dict[str, str] = Field(default_factory=dict)
    """Target column -> chat role: its text becomes one message, so that the chat template is applied to it."""
    drop_rows: bool = False
    """Rows that cannot train (a null, an empty text, an empty list of messages, broken JSON) are left out."""


class MethodCheck(Record):
    """Whether a dataset can train with one method."""

    verdict: Literal["READY", "NEEDS_MAPPING", "INCOMPATIBLE"]
    reason: str
    mapping: ColumnMapping | None = None
    """What makes it trainable; None when READY as it is or INCOMPATIBLE."""
    warnings: tuple[str, ...] = ()


class DatasetReport(Record):
    """What the dataset check found. The form of `hfagent check --json`."""

    dataset: str
    rows: int | None
    columns: dict[str, str]
    """Column -> type, as `datasets` spells it."""
    methods: dict[Method, MethodCheck]
    sampled: int | None = None
    """Rows that were read."""
    first_only: bool = False
    """They are the first rows of a split on the Hub: what comes after them may be of another kind."""
    duplicates: int | None = None
    """Exact repeats among the rows read."""
    token_lengths: dict[str, int] | None = None
    """p50, p95 and max over the rows read; None without a tokenizer."""
