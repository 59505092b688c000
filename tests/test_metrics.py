import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hfagent.agent.records import MetricPoint
from hfagent.tools import metrics
from hfagent.tools.metrics import TrackioTracker, database_name, default_folder

PROJECTS = ["night-1", "my.model", "a b/c", "Über_größe", "...", "x" * 40]

WRITE = """
import json, sys, trackio
from trackio.utils import TRACKIO_DIR
from trackio.sqlite_storage import SQLiteStorage
names = {project: SQLiteStorage.get_project_db_filename(project) for project in json.loads(sys.argv[1])}
print(json.dumps({"folder": str(TRACKIO_DIR), "names": names}), flush=True)
trackio.init(project="p", name="twice", auto_log_cpu=False)
trackio.log({"train/loss": 5.0, "train/global_step": 1})
trackio.finish()
trackio.init(project="p", name="twice", auto_log_cpu=False)
trackio.log({"train/loss": 2.0, "train/global_step": 1})
trackio.finish()
trackio.init(project="p", name="live", auto_log_cpu=False)
inf = float("inf")
trackio.log({"train/loss": 1.0, "train/grad_norm": inf, "train/note": "text", "train/global_step": 4})
trackio.log({"eval/loss": 0.5, "train/global_step": 4})
trackio.log({"train/loss": float("nan"), "train/global_step": 8})
trackio.log({"other": 1.0})
sys.stdin.read()
trackio.finish()
"""


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What trackio says of itself, and a store that a live process is still writing to."""
    home = tmp_path_factory.mktemp("home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRACKIO", "HF_", "XDG"))}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, json.dumps(PROJECTS)],
        env={**environment, "HOME": str(home)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        folder = Path(said["folder"])
        deadline = time.monotonic() + 30
        while len(TrackioTracker(folder).points("p", "live")) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        yield {"home": home, "folder": folder, "names": said["names"]}
        assert process.poll() is None


def test_files_are_where_trackio_puts_them(writer: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert {project: database_name(project) for project in PROJECTS} == writer["names"]
    for name in ("TRACKIO_DIR", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(writer["home"]))
    assert default_folder() == writer["folder"]


def test_rows_of_a_step_are_one_point_while_the_writer_lives(writer: dict[str, Any]) -> None:
    assert TrackioTracker(writer["folder"]).points("p", "live") == [
        MetricPoint(step=4, values={"train/loss": 1.0, "train/grad_norm": None, "eval/loss": 0.5}),
        MetricPoint(step=8, values={"train/loss": None}),
    ]


def test_of_two_runs_with_one_name_the_newer_counts(writer: dict[str, Any]) -> None:
    tracker = TrackioTracker(writer["folder"])
    assert tracker.points("p", "twice") == [MetricPoint(step=1, values={"train/loss": 2.0})]


def test_a_file_that_is_no_store_gives_no_points(tmp_path: Path) -> None:
    (tmp_path / "p.db").write_bytes(b"not a database, not a database" * 100)
    (tmp_path / "q.db").touch()
    assert [*TrackioTracker(tmp_path).points("p", "r"), *TrackioTracker(tmp_path).points("q", "r")] == []


@pytest.mark.parametrize("row", ['{"train/global_st', "[1, 2]", b"\xff\xfe"])
def test_a_row_that_cannot_be_read_gives_no_points_and_ends_nothing(tmp_path: Path, row: str | bytes) -> None:
    """Tracker: a row in its store is no row."""
    with closing(sqlite3.connect(tmp_path / "p.db", isolation_level=None)) as store:
        store.execute("CREATE TABLE metrics (id INTEGER PRIMARY KEY, run_id, run_name, step, metrics)")
        store.execute("INSERT INTO metrics (run_id, run_name, step, metrics) VALUES ('i', 'r', 0, ?)", (row,))
    assert TrackioTracker(tmp_path).points("p", "r") == []


def test_a_store_that_another_process_has_locked_is_read_once_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracker: its store is locked; the look goes on without metrics, and has them later."""
    monkeypatch.setattr(metrics, "LOCK_WAIT_S", 0.1)
    with closing(sqlite3.connect(tmp_path / "p.db", isolation_level=None)) as store:
        store.execute("CREATE TABLE metrics (id INTEGER PRIMARY KEY, run_id, run_name, step, metrics)")
        row = ("i", "r", 0, json.dumps({"train/global_step": 1, "train/loss": 2.0}))
        store.execute("INSERT INTO metrics (run_id, run_name, step, metrics) VALUES (?, ?, ?, ?)", row)
        store.execute("BEGIN EXCLUSIVE")
        begun = time.monotonic()
        assert TrackioTracker(tmp_path).points("p", "r") == []
        assert time.monotonic() - begun < 2
        store.execute("COMMIT")
        assert TrackioTracker(tmp_path).points("p", "r") == [MetricPoint(step=1, values={"train/loss": 2.0})]


def test_a_poll_of_a_long_run_reads_only_its_end(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "p.db") as store:
        store.execute(
            "CREATE TABLE metrics (id INTEGER PRIMARY KEY, run_id TEXT, run_name TEXT, step INTEGER, metrics)"
        )
        store.execute("CREATE INDEX idx_metrics_run_step ON metrics(run_id, step)")
        rows = [
            (f'{{"train/loss":1.5,"train/learning_rate":0.001,"train/epoch":0.5,"train/global_step":{i}}}'.encode(), i)
            for i in range(100_000)
        ]
        store.executemany("INSERT INTO metrics (run_id, run_name, metrics, step) VALUES ('x', 'long', ?, ?)", rows)
    store.close()
    tracker, taken = TrackioTracker(tmp_path), []
    for _ in range(3):
        started = time.perf_counter()
        points = tracker.points("p", "long", after_step=99_989)
        taken.append(time.perf_counter() - started)
        assert [point.step for point in points] == list(range(99_990, 100_000))
    assert min(taken) < 0.05


def test_the_command_names_the_folder_where_it_is_not_trackio_s_own() -> None:
    assert TrackioTracker(Path("/a b")).url("my night", "r") == "TRACKIO_DIR='/a b' trackio show --project 'my night'"
    assert TrackioTracker().url("night", "r") == "trackio show --project night"
