"""What the columns of a sample hold: texts, lists of messages, or something else."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["text", "messages", "json", "bool", "other", "mixed", "empty"]
"""What a column holds; json: lists of messages as JSON text; mixed: Arrow refuses it; empty: nulls and empty lists."""
CONTENT: tuple[Kind, ...] = ("text", "messages", "json")
"""What a model can read or write."""
ROLE_KEYS = ("role", "from", "speaker")
CONTENT_KEYS = ("content", "value", "text")


@dataclass(frozen=True)
class Table:
    """A sample of rows and what its columns hold."""

    rows: Sequence[Mapping[str, Any]]
    kinds: Mapping[str, Kind]

    def find(self, names: Sequence[str], *kinds: Kind) -> str | None:
        """The first column, in the order of `names`, that holds one of the kinds; case and punctuation are ignored."""
        columns = {re.sub(r"\W+", "_", column).lower(): column for column in reversed(list(self.kinds))}
        return next((columns[name] for name in names if self.kinds.get(columns.get(name, "")) in kinds), None)

    def content(self, names: Sequence[str]) -> str | None:
        """Like `find`, for what a model can read or write."""
        return self.find(names, *CONTENT)

    def values(self, column: str) -> Iterator[Any]:
        """What is neither null nor empty, JSON parsed."""
        for row in self.rows:
            if value := row.get(column):
                yield (json_list(value) or value) if self.kinds[column] == "json" else value

    def turns(self, column: str) -> Iterator[Mapping[str, Any]]:
        """All turns of a column of messages."""
        for value in self.values(column):
            if isinstance(value, list):
                yield from (turn for turn in value if isinstance(turn, Mapping))


def read_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Table:
    """Look at every value once; a column whose type is spelled `mixed` cannot become an Arrow table."""
    kinds = {name: _column_kind([row.get(name) for row in rows]) for name in columns}
    arrow_refuses = {name for name, kind in kinds.items() if kind == "other" and columns[name] == "mixed"}
    return Table(rows, {name: "mixed" if name in arrow_refuses else kind for name, kind in kinds.items()})


def turn_key(turn: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    """The key that carries the value; a null one, with which Arrow fills absent keys, only as a last resort."""
    present = [key for key in keys if key in turn]
    return next((key for key in present if turn[key] is not None), present[0] if present else None)


def _column_kind(values: Sequence[Any]) -> Kind:
    kinds = Counter(kind for value in values if (kind := _kind(value)) is not None)
    if set(kinds) == {"text", "json"}:
        return "json" if kinds["json"] >= kinds["text"] else "text"
    if len(kinds) > 1:
        return "mixed"
    return next(iter(kinds), "empty")


def _kind(value: Any) -> Kind | None:
    if value is None or value == []:
        return None
    if isinstance(value, str):
        return "json" if _is_chat(json_list(value)) else "text"
    if isinstance(value, bool):
        return "bool"
    return "messages" if _is_chat(value) else "other"


def _is_chat(value: Any) -> bool:
    if not isinstance(value, list) or not value or not isinstance(value[0], Mapping):
        return False
    return turn_key(value[0], ROLE_KEYS) is not None and turn_key(value[0], (*CONTENT_KEYS, "tool_calls")) is not None


def json_list(value: Any) -> Any:
    """A JSON text of a list as that list; any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
