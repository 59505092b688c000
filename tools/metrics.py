"""Reads the metrics of a run from Trackio's local store, straight from its SQLite file.

Importing trackio takes 0.6 s and a poll with its own functions 26 ms for a run of 10,000 rows; a look at the newest
rows of the file takes 1 ms, and its layout is checked against the real trackio in the tests.
"""

import json
import os
import shlex
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hfagent.agent.errors import JobError
from hfagent.agent.ports import JobRunner
from hfagent.agent.records import MetricPoint
from hfagent.tools.metrics_log import STEP, key_of, logged, merged

LOCK_WAIT_S = 2.0
LATE_S = 60.0
"""How long the store may lag behind what a job has printed: Trackio needs a second. Later it is taken for dead."""


class TrackioTracker:
    """Implements `Tracker` over the files in one folder."""

    def __init__(self, folder: Path | None = None, *, runner: JobRunner | None = None) -> None:
        """Make one.

        Args:
            folder: what the jobs get as TRACKIO_DIR; None means Trackio's own choice.
            runner: whose logs are read where the store does not get what a job logs.
        """
        self._folder = folder
        self._runner = runner
        self._news: dict[tuple[str, str], tuple[int, float]] = {}
        """Of a run the newest step in the store, and when it was first seen there."""

    def points(self, project: str, run: str, *, after_step: int = -1) -> Sequence[MetricPoint]:
        """Rows after a step, one point a step; of two rows of a step the later value of a metric counts.

        The log's progress lines stand in for rows that will not come any more, since the store is gone or broken.
        """
        rows = self._stored(project, run, after_step)
        if self._runner is not None:
            rows = [*self._missing(self._runner, project, run, rows), *rows]
        return merged(rows, after_step)

    def _missing(self, runner: JobRunner, project: str, run: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What the job has printed and the store will not get any more."""
        now, stored = time.monotonic(), {row.get(STEP) for row in rows}
        newest = max((step for step in stored if isinstance(step, int)), default=-1)
        known, since = self._news.get((project, run), (-1, now))
        if newest > known:
            known, since = newest, now
        self._news[project, run] = known, since
        try:
            job = runner.find(key_of(project, run))
        except JobError:
            return []
        if job is None or not (job.ended or now - since >= LATE_S):
            return []
        found = logged(runner, job)
        if found and not job.ended:
            stored.add(found[-1][STEP])  # which may be on its way into the store
        return [row for row in found if row[STEP] not in stored]

    def _stored(self, project: str, run: str, after_step: int) -> list[dict[str, Any]]:
        """What the store has, oldest first; nothing while it cannot be read."""
        path = (self._folder or default_folder()) / database_name(project)
        rows: list[dict[str, Any]] = []
        try:
            if not path.is_file():
                return []
            with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=LOCK_WAIT_S)) as store:
                for row in _newest_first(store, run):
                    step = row.get(STEP)
                    if isinstance(step, int) and step <= after_step:
                        break
                    rows.append(row)
        except (sqlite3.DatabaseError, OSError, ValueError, AttributeError):
            return []
        return rows[::-1]

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


def _newest_first(store: sqlite3.Connection, run: str) -> Iterator[dict[str, Any]]:
    newest = store.execute("SELECT run_id FROM metrics WHERE run_name = ? ORDER BY id DESC LIMIT 1", (run,)).fetchone()
    if newest is None:
        return
    # The index on (run_id, step) gives this order, so that a poll reads only the rows that are new to it.
    rows = store.execute("SELECT metrics FROM metrics WHERE run_id = ? ORDER BY step DESC, id DESC", newest)
    for (text,) in rows:
        yield json.loads(text)
