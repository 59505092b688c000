"""A dataset on the Hub that is sorted: what is read of it, and with how many requests."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from tests.emulator.server import Emulator

from hfagent.tools.dataset_places import spread_out

ROWS = 4000
SCRIPT = """
import json, sys
from hfagent.agent.console import THEME, dataset_view
from hfagent.agent.records import DatasetRef
from hfagent.tools import dataset_read
from rich.console import Console
ref = DatasetRef(id=sys.argv[1])
data = dataset_read.load_rows(ref, limit=200, spread=True)
report = dataset_read.DatasetReader(200).check(ref, model=None, max_length=None)
Console(file=sys.stderr, width=200, theme=THEME).print(dataset_view(report))
print(json.dumps([data.rows, data.total, report.first_only, report.model_dump(mode="json")["methods"]["kto"]]))
"""


def rows(first: int = 0, last: int = ROWS) -> list[dict[str, Any]]:
    """Sorted by label: the first three quarters are good."""
    return [{"prompt": f"p{i}", "completion": f"c{i}", "label": i < 3 * ROWS // 4, "i": i} for i in range(first, last)]


def as_parquet(found: list[dict[str, Any]], group: int = ROWS) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(found), out, row_group_size=group)
    return out.getvalue()


def as_lines(found: list[dict[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in found).encode()


def shards(write: Callable[[list[dict[str, Any]]], bytes], ending: str, count: int) -> dict[str, bytes]:
    each = ROWS // count
    return {f"data/train-{n:05d}-of-{count:05d}.{ending}": write(rows(n * each, (n + 1) * each)) for n in range(count)}


LAYOUTS = {
    "groups": {"train.parquet": as_parquet(rows(), 100)},
    "group": {"train.parquet": as_parquet(rows())},
    "few-files": shards(as_parquet, "parquet", 2),
    "files": shards(as_parquet, "parquet", 40),
    "line-files": shards(as_lines, "jsonl", 20),
    "lines": {"train.jsonl": as_lines(rows())},
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("hub")) as running:
        running.hub.add_user("ada")
        for name, files in LAYOUTS.items():
            running.hub.put_files("dataset", f"ada/{name}", files)
        running.hub.put_files("dataset", "ada/small", {"train.jsonl": as_lines(rows(0, 150))})
        yield running


def read(hub: Emulator, name: str, home: Path, script: str = SCRIPT) -> tuple[list[Any], str, int]:
    """What is found, what a person sees, and the requests for files; in a process that has this Hub's address."""
    env = {**os.environ, **hub.env(hub.hub.add_user("ada")), "HF_HOME": str(home)}
    before = hub.count("/resolve/", method="GET")
    done = subprocess.run(
        [sys.executable, "-c", script, f"ada/{name}"], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr, hub.count("/resolve/", method="GET") - before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sorted_split_is_seen_in_all_its_parts_with_few_requests(hub: Emulator, layout: str, tmp_path: Path) -> None:
    (found, total, first_only, kto), shown, requests = read(hub, layout, tmp_path)
    numbers = [row["i"] for row in found]
    assert numbers == sorted(set(numbers))
    assert 150 <= len(numbers) <= 200
    assert (numbers[0], numbers[-1] >= ROWS - 200) == (0, True)
    assert {row["label"] for row in found} == {True, False}
    assert not first_only
    assert not any("nothing to tell apart" in warning for warning in kto["warnings"])
    assert "the first ones only" not in shown
    assert total == (None if layout in ("files", "line-files", "groups") else ROWS)
    assert requests <= 40  # it is read twice


def test_a_small_split_is_read_whole(hub: Emulator, tmp_path: Path) -> None:
    (found, total, first_only, _), _, _ = read(hub, "small", tmp_path)
    assert ([row["i"] for row in found], total, first_only) == (list(range(150)), 150, False)


def test_it_is_said_where_only_the_first_rows_were_read(hub: Emulator, tmp_path: Path) -> None:
    hurried = SCRIPT.replace(
        "ref = ", "dataset_read.spread_out = lambda s, n, f=dataset_read.spread_out: f(s, n, seconds=0.0)\nref = "
    )
    (found, total, first_only, _), shown, _ = read(hub, "lines", tmp_path, hurried)
    assert (first_only, total) == (True, None)
    assert found[-1]["i"] < ROWS // 2
    assert "200 rows were read, the first ones only" in shown
    (_, _, first_only, _), _, _ = read(hub, "files", tmp_path, hurried)
    assert not first_only


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Shards:
    """A stream of shards, each row of which takes a second."""

    def __init__(self, clock: Clock, *sizes: int) -> None:
        self._clock = clock
        self._sizes = sizes
        self.num_shards = len(sizes)

    def reshard(self) -> "Shards":
        return self

    def shard(self, count: int, index: int) -> "Shards":
        assert count == self.num_shards
        return Shards(self._clock, self._sizes[index])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for size in self._sizes:
            for i in range(size):
                self._clock.now += 1
                yield {"size": size, "i": i}


@pytest.mark.parametrize("sizes", [(1000,), (1000,) * 2, (3, 4), (1000,) * 99])
@pytest.mark.parametrize("seconds", [0.0, 80.0])
def test_all_places_get_their_share_of_the_time(sizes: tuple[int, ...], seconds: float) -> None:
    clock = Clock()
    found = spread_out(Shards(clock, *sizes), 40, seconds=seconds, clock=clock)
    assert clock.now <= seconds + 40
    assert found.total == (7 if sizes == (3, 4) else None)
    assert found.first_only == (sizes == (1000,))
    assert len(found.rows) == min(40, sum(sizes))
    assert [row["i"] for row in found.rows].count(0) == min(len(sizes), 8)
