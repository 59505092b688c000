"""Reads rows from local files: JSON lines, JSON, CSV and Parquet, alone or in a folder."""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hfagent.agent.errors import DatasetError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Word in a file's path -> split, as `datasets` reads folders."""
CSV_FIELD_LIMIT = 2**31 - 1
"""The csv module refuses fields over 128 KiB by default; long reasoning traces are longer."""

Rows = Iterator[dict[str, Any]]


def read_file(path: Path) -> Rows:
    """The rows of one file, in order.

    Raises:
        DatasetError: another format, a broken line, not UTF-8, no permission; the text names the file and the line.
    """
    readers: dict[str, Callable[[Path], Rows]] = {".json": _json, ".csv": _csv, ".parquet": _parquet}
    if path.suffix.lower() not in SUFFIXES:
        raise DatasetError(f"cannot read {str(path)!r}: the known formats are {', '.join(SUFFIXES)}")
    try:
        yield from readers.get(path.suffix.lower(), _jsonl)(path)
    except UnicodeDecodeError as error:
        raise DatasetError(f"{str(path)!r} is not UTF-8 text ({error.reason}); convert it") from error
    except OSError as error:
        raise DatasetError(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def split_files(folder: Path, split: str) -> list[Path]:
    """The folder's data files of one split; all of them are `train` where no path names a split.

    Raises:
        DatasetError: no data files, or none of this split.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not _hidden(path.relative_to(folder))
    )
    if not files:
        raise DatasetError(f"no data files in {str(folder)!r}: looked for {', '.join(SUFFIXES)}")
    named = {path: _split_of(path.relative_to(folder)) for path in files}
    splits: dict[str, list[Path]] = {}
    for path, name in named.items():
        if name or not any(named.values()):
            splits.setdefault(name or "train", []).append(path)
    own = [path for path in files if re.match(rf"{re.escape(split)}(-\d+.*)?$", path.stem)]
    if not (found := splits.get(split) or own):
        raise unknown_split(str(folder), split, sorted(splits))
    return found


def unknown_split(dataset: str, split: str, splits: Sequence[str]) -> DatasetError:
    """The error of a split that is not there."""
    return DatasetError(f"{dataset!r} has no split {split!r}; it has {', '.join(map(repr, splits)) or 'none'}")


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts) or path.name == "dataset_infos.json"


def _split_of(path: Path) -> str | None:
    """The file's name decides, then the folders from the inside out."""
    for part in (path.stem, *reversed(path.parent.parts)):
        for word in re.split(r"[^A-Za-z]+", part.lower()):
            if word in SPLITS:
                return SPLITS[word]
    return None


def _jsonl(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _row(_parse(line, f"{str(path)!r}, line {number}"), f"{str(path)!r}, line {number}")


def _json(path: Path) -> Rows:
    text = path.read_text(encoding="utf-8-sig")
    if not text.strip():
        return
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise DatasetError(f"{str(path)!r}, line {error.lineno} is not JSON: {_json_problem(error)}") from error
        yield from _jsonl(path)  # JSON lines by another name
        return
    if isinstance(data, Mapping):
        lists = [value for value in data.values() if isinstance(value, list)]
        # {"data": [row, ...]}: one list is the rows; any other object is one row.
        data = lists[0] if len(data) == len(lists) == 1 else [data]
    if not isinstance(data, list):
        raise DatasetError(f"{str(path)!r} holds {type(data).__name__}; a dataset is a list of objects")
    yield from (_row(value, f"{str(path)!r}, item {number}") for number, value in enumerate(data, start=1))


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{where} is not JSON: {_json_problem(error)}; mend or remove it") from error


def _json_problem(error: json.JSONDecodeError) -> str:
    # Some of Python's messages end in "at", since it adds the place itself.
    return f"{error.msg.removesuffix(' at')} at column {error.colno}"


def _row(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DatasetError(f"{where} holds {type(value).__name__}, not an object of columns")
    return value


def _csv(path: Path) -> Rows:
    """All values are texts, since a column of numbers is as likely an answer; only true and false become booleans."""
    csv.field_size_limit(CSV_FIELD_LIMIT)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        rows = []
        try:
            for row in reader:
                if None in row or None in row.values():
                    where = f"{str(path)!r}, line {reader.line_num}"
                    raise DatasetError(f"{where} does not have the {len(reader.fieldnames or ())} fields of the header")
                rows.append(row)
        except csv.Error as error:
            raise DatasetError(f"{str(path)!r}, line {reader.line_num} is not CSV: {error}") from error
    flags = {"true": True, "false": False}
    boolean = {name for name in reader.fieldnames or () if rows and all(row[name].lower() in flags for row in rows)}
    yield from (
        {name: flags[value.lower()] if name in boolean else value for name, value in row.items()} for row in rows
    )


def _parquet(path: Path) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise DatasetError(f"{str(path)!r} is not Parquet: {error}") from error


def write_text(target: Path, text: str) -> None:
    """Write a file of a derived dataset: whole, or not at all.

    Raises:
        DatasetError: it cannot be written.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DatasetError(
            f"cannot write {str(target)!r}: {error.strerror}; free the disk or choose another folder with --state-dir"
        ) from error
