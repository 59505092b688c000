"""What every `Tracker` does. A factory gets {(project, run): points} and returns a tracker that has them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from hfagent.agent.fakes import Ending, FakeClock, FakeJobRunner, FakeTracker
from hfagent.agent.ports import Tracker
from hfagent.agent.records import MetricPoint
from hfagent.tools.metrics import TrackioTracker
from hfagent.tools.metrics_http import TrackioServer

Logged = dict[tuple[str, str], list[MetricPoint]]

LOGGED: Logged = {
    ("night", "sft-01"): [
        MetricPoint(step=step, values={"train/loss": 1 / step, "train/learning_rate": 1e-3}) for step in range(1, 6)
    ],
    ("night", "sft-02"): [MetricPoint(step=3, values={"train/loss": None, "eval/loss": 0.5})],
    ("other", "sft-01"): [MetricPoint(step=1, values={"train/loss": 9.0})],
}

WRITE = """
import sys, trackio
from hfagent.agent.records import MetricPoint
logged = eval(sys.stdin.read())
for (project, run), points in logged.items():
    trackio.init(project=project, name=run, auto_log_cpu=False)
    for point in points:
        values = {name: float("nan") if value is None else value for name, value in point.values.items()}
        trackio.log({**values, "train/global_step": point.step})
    trackio.finish()
"""


SERVE = """
import sys, trackio
address = trackio.show(open_browser=False, block_thread=False, host="127.0.0.1")[1]
print("ADDRESS " + address, flush=True)
sys.stdin.read()
"""


def write(folder: Path) -> None:
    """Rows written by trackio itself, in a process of its own: it fixes its folder when imported."""
    subprocess.run(
        [sys.executable, "-c", WRITE], input=repr(LOGGED), env={**os.environ, "TRACKIO_DIR": str(folder)},
        text=True, check=True, capture_output=True,
    )  # fmt: skip


@contextmanager
def trackio_tracker(folder: Path) -> Iterator[Tracker]:
    write(folder)
    yield TrackioTracker(folder)


@contextmanager
def trackio_server(folder: Path) -> Iterator[Tracker]:
    write(folder)
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], env={**os.environ, "TRACKIO_DIR": str(folder)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        assert server.stdout is not None
        address = next(line.split()[1] for line in server.stdout if line.startswith("ADDRESS "))
        no_jobs = FakeJobRunner(FakeClock(), lambda spec: Ending(running_s=1))
        yield TrackioServer(address, token=None, runner=no_jobs)
        server.kill()


@contextmanager
def fake_tracker(folder: Path) -> Iterator[Tracker]:
    tracker = FakeTracker()
    tracker.rows.update(LOGGED)
    yield tracker


@pytest.fixture(scope="module", params=[trackio_tracker, trackio_server, fake_tracker])
def tracker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    make: Callable[[Path], AbstractContextManager[Tracker]] = request.param
    with make(tmp_path_factory.mktemp("tracker")) as made:
        yield made


@pytest.mark.parametrize(("project", "run"), list(LOGGED))
def test_points_are_what_was_logged_in_order_of_step(tracker: Tracker, project: str, run: str) -> None:
    assert list(tracker.points(project, run)) == LOGGED[project, run]


@pytest.mark.parametrize(("after", "steps"), [(-1, [1, 2, 3, 4, 5]), (3, [4, 5]), (5, []), (99, [])])
def test_only_points_after_a_step_are_given(tracker: Tracker, after: int, steps: Sequence[int]) -> None:
    assert [point.step for point in tracker.points("night", "sft-01", after_step=after)] == steps


@pytest.mark.parametrize(("project", "run"), [("night", "sft-99"), ("nowhere", "sft-01")])
def test_a_run_that_logged_nothing_has_no_points(tracker: Tracker, project: str, run: str) -> None:
    assert list(tracker.points(project, run)) == []


def test_a_person_is_told_where_to_look(tracker: Tracker) -> None:
    assert "night" in tracker.url("night", "sft-01")
