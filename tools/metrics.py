"""Reads the metrics of a run from Trackio's local store, straight from its SQLite file.

Importing trackio takes 0.6 s and a poll with its own functions 26 ms for a run of 10,000 rows; a look at the newest
rows of the file takes 1 ms, and its layout is checked against the real trackio in the tests.
"""

import json
import math
import os
import shlex
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hfagent.agent.records import MetricPoint

STEP = "train/global_step"
"""The optimizer step in a row; Trackio's own `step` counts rows, and an evaluation is a row of its own."""
LOCK_WAIT_S = 2.0


class TrackioTracker:
    """Implements `Tracker` over the files in one folder."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` is what the jobs get as TRACKIO_DIR; None means Trackio's own choice."""
        self._folder = folder

    def points(self, project: str, run: str, *, after_step: int = -1) -> Sequence[MetricPoint]:
        """Rows after a step, one point a step; of two rows of a step the later value of a metric counts.

        Empty also while the store cannot be read: whether the job lives is for its stage and log to tell.
        """
        path = (self._folder or default_folder()) / database_name(project)
        if not path.is_file():
            return []
        rows: list[dict[str, Any]] = []
        try:
            with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=LOCK_WAIT_S)) as store:
                for row in _newest_first(store, run):
                    step = row.get(STEP)
                    if isinstance(step, int) and step <= after_step:
                        break
                    rows.append(row)
        except sqlite3.DatabaseError:
            return []
        return merged(rows[::-1], after_step)

    def url(self, project: str, run: str) -> str:
        """The command that shows the project with all its runs."""
        place = f"TRACKIO_DIR={shlex.quote(str(self._folder))} " if self._folder else ""
        return f"{place}trackio show --project {shlex.quote(project)}"


def default_folder() -> Path:
    """Where Trackio stores without being told: `$TRACKIO_DIR`, else `trackio` in the home of Hugging Face."""
    if folder := os.environ.get("TRACKIO_DIR"):
        return Path(folder)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(os.environ.get("HF_HOME") or cache / "huggingface").expanduser() / "trackio"


def database_name(project: str) -> str:
    """The file of a project: letters, digits, `-` and `_` of its name, as trackio.utils.canonical_project_name."""
    return ("".join(c for c in project if c.isalnum() or c in "-_") or "default") + ".db"


def merged(rows: Sequence[Mapping[str, Any]], after_step: int) -> list[MetricPoint]:
    """Trackio's rows, oldest first, one point for each step after `after_step`; of a metric the later value counts."""
    by_step: dict[int, dict[str, float | None]] = {}
    for row in rows:
        step = row.get(STEP)
        if isinstance(step, int) and step > after_step:
            values = {name: value for name, value in row.items() if name != STEP}
            by_step[step] = by_step.get(step, {}) | _numbers(values)
    return [MetricPoint(step=step, values=by_step[step]) for step in sorted(by_step)]


def _newest_first(store: sqlite3.Connection, run: str) -> Iterator[dict[str, Any]]:
    newest = store.execute("SELECT run_id FROM metrics WHERE run_name = ? ORDER BY id DESC LIMIT 1", (run,)).fetchone()
    if newest is None:
        return
    # The index on (run_id, step) gives this order, so that a poll reads only the rows that are new to it.
    rows = store.execute("SELECT metrics FROM metrics WHERE run_id = ? ORDER BY step DESC, id DESC", newest)
    for (text,) in rows:
        yield json.loads(text)


def _numbers(row: dict[str, Any]) -> dict[str, float | None]:
    """The scalars; NaN and infinity, which Trackio spells as text, become None."""
    values: dict[str, float | None] = {}
    for name, value in row.items():
        if value in ("NaN", "Infinity", "-Infinity"):
            values[name] = None
        elif isinstance(value, int | float) and not isinstance(value, bool):
            values[name] = float(value) if math.isfinite(value) else None
    return values
