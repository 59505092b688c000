"""A dataset with its columns renamed, written beside the recipe that made it; the source stays as it is."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from hfagent.agent.errors import DatasetError
from hfagent.agent.records import DatasetRef, Record
from hfagent.tools.dataset_files import write_text
from hfagent.tools.dataset_read import load_rows


class Derived(Record):
    """What was written."""

    path: str
    recipe: str
    """File that says from what and how."""
    rows: int
    before: tuple[str, ...]
    """Columns of the source."""
    after: tuple[str, ...]


def rename_columns(source: DatasetRef, columns: Mapping[str, str], folder: Path) -> Derived:
    """Write the rows with other column names; all other columns are kept, but for one whose name is taken over.

    Args:
        source: the data, all of whose rows are read.
        columns: name in the source -> new name.
        folder: where the derived dataset goes.

    Raises:
        DatasetError: the source has no such column, two get one name, or a file cannot be read or written.
    """
    data = load_rows(source, limit=None)
    missing = [name for name in columns if name not in data.columns]
    if missing:
        raise DatasetError(f"{source.id!r} has no column {missing[0]!r}; its columns are {', '.join(data.columns)}")
    kept = [name for name in data.columns if name not in columns and name not in columns.values()]
    replaced = [name for name in data.columns if name in columns.values() and name not in columns]
    if len(set(columns.values())) < len(columns):
        raise DatasetError(f"two columns would get the same name: {', '.join(columns.values())}")
    lines = [
        _line({**{name: row.get(name) for name in kept}, **{new: row.get(old) for old, new in columns.items()}})
        for row in data.rows
    ]
    text = "\n".join(lines) + "\n"
    name = f"{Path(source.id).stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    target, recipe = folder.resolve() / f"{name}.jsonl", folder.resolve() / f"{name}.recipe.json"
    told = {
        "source": source.model_dump(),
        "rename_columns": dict(columns),
        "replaced_columns": replaced,
        "rows": len(lines),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    write_text(target, text)
    write_text(recipe, json.dumps(told, indent=2) + "\n")
    return Derived(
        path=str(target),
        recipe=str(recipe),
        rows=len(lines),
        before=tuple(data.columns),
        after=(*kept, *columns.values()),
    )


def _line(row: dict[str, object]) -> str:
    try:
        return json.dumps(row)
    except TypeError as error:
        raise DatasetError(f"a row holds what JSON lines cannot: {error}; drop that column first") from error
