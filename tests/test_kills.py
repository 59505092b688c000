"""What a night rests on is killed: its jobs, the programs that judge answers, the tracker, the planner's endpoint."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from endpoint import RETURNS, Moment, Return, endpoint, planned
from process_night import KnownLosses, PlannedJobs, starts
from test_sandbox import working_levels
from told import facts, lost, without_lost
from world import SKILL, World, at_desk, claimed, killed, night, work

from hfagent.agent.clock import SystemClock
from hfagent.agent.fakes import Ending, FakeJobRunner
from hfagent.agent.planners import planner_for
from hfagent.agent.records import JobSpec
from hfagent.agent.settings import Settings
from hfagent.tools import metrics
from hfagent.tools.job_processes import descendants
from hfagent.tools.latex_answer import LatexComparer
from hfagent.tools.metrics import TrackioTracker
from hfagent.tools.sandbox import Sandbox

JOBS = 9
DYING = """
import os, signal, sys, time
out = sys.argv[sys.argv.index("--output-dir") + 1]
key = out.split("/")[-2]

def now(moment):
    if key.endswith("-a1") and moment == MOMENT:
        os.kill(os.getppid() if VICTIM == "supervisor" else os.getpid(), signal.SIGKILL)
        time.sleep(60)

with open(out + "/../starts", "a") as starts:
    starts.write("started\\n")
now("start")
time.sleep({seconds})
now("middle")
print("RESULT", open(out + "/../../../results/" + key).read(), flush=True)
now("result")
"""


def real_night(folder: Path, script: str, *, tracked: bool = False) -> Path:
    """A night of real processes to its end; its ledger. Metrics are those that the jobs log where it is tracked."""
    there, store = World(SKILL), folder / "trackio"
    jobs = PlannedJobs(folder, seconds=0.02, script=script, trackio_dir=store)
    there.runner = jobs  # type: ignore[assignment]
    there.tracker = TrackioTracker(store, runner=jobs) if tracked else KnownLosses()  # type: ignore[assignment]
    there.clock = SystemClock()  # type: ignore[assignment]
    path = folder / "night.jsonl"
    with at_desk(path, there, backend="local") as desk:
        work(desk, poll_s=0.05)
    return path


def undisturbed(folder: Path) -> Path:
    path = folder / "whole.jsonl"
    night(path, World(SKILL), backend="local")
    return path


@pytest.mark.parametrize("victim", ["supervisor", "job"])
@pytest.mark.parametrize("moment", ["start", "middle", "result"])
def test_a_job_that_was_killed_is_started_again_and_changes_nothing_else(
    tmp_path: Path, victim: str, moment: str
) -> None:
    """Every job of a night: `kill -9` of its supervisor or its own process, at its start, later, or at its end."""
    path = real_night(tmp_path, f"MOMENT, VICTIM = {moment!r}, {victim!r}\n{DYING}")
    assert without_lost(path) == facts(undisturbed(tmp_path))
    assert len(lost(path)) == JOBS
    assert starts(tmp_path) == dict.fromkeys([*lost(path), *(key[:-1] + "2" for key in lost(path))], 1)


TRAINING = """
import os, pathlib, shutil, sqlite3, json, sys, time
out = sys.argv[sys.argv.index("--output-dir") + 1]
run = sys.argv[sys.argv.index("--run-name") + 1] if "--run-name" in sys.argv else ""
store = pathlib.Path(os.environ["TRACKIO_DIR"])

def strike(moment):
    if moment != MOMENT or store.is_file():
        return
    if HOW == "broken":
        store.mkdir(exist_ok=True)
        (store / "night.db").write_bytes(b"no database" * 1000)
    else:
        shutil.rmtree(store, ignore_errors=True)
    if HOW == "a file":
        store.write_text("no folder")

def log(row):
    try:  # as Trackio does, which warns and goes on
        store.mkdir(exist_ok=True)
        with sqlite3.connect(store / "night.db") as db:
            db.execute("CREATE TABLE IF NOT EXISTS metrics (id INTEGER PRIMARY KEY, run_id, run_name, step, metrics)")
            made = (run, run, json.dumps(row))
            db.execute("INSERT INTO metrics (run_id, run_name, step, metrics) VALUES (?, ?, 0, ?)", made)
    except (OSError, sqlite3.Error) as error:
        print(error)

strike("start")
steps = (3 if run == "smoke" else 20 * (1 + run.count("-x"))) if run else 0
for i in range(1, steps + 1):
    loss = round(2.0 - 0.05 * i + 0.001 * (-1) ** i, 4)
    row = {{"train/loss": loss, "train/learning_rate": 1e-3, "train/global_step": i}}
    print(f"step {{i}}/{{steps}} loss {{loss:.4f}} lr {{row['train/learning_rate']:.3g}}", flush=True)
    log(row)
    if i == steps // 2:
        time.sleep({seconds})
        strike("middle")
strike("end")
print("RESULT", open(out + "/../../../results/" + out.split("/")[-2]).read(), flush=True)
"""


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What a night tells whose store lives."""
    return facts(real_night(tmp_path_factory.mktemp("whole"), f"MOMENT, HOW = None, None\n{TRAINING}", tracked=True))


@pytest.mark.parametrize("how", ["gone", "a file", "broken"])
@pytest.mark.parametrize("moment", ["start", "middle", "end"])
def test_a_night_whose_store_of_metrics_dies_ends_as_any_other(
    tmp_path: Path, tracked: list[Any], how: str, moment: str
) -> None:
    """Tracker: its store is deleted, made a file, or broken in each training, at its start, later, or at its end."""
    path = real_night(tmp_path, f"MOMENT, HOW = {moment!r}, {how!r}\n{TRAINING}", tracked=True)
    assert facts(path) == tracked


def test_a_long_training_whose_tracker_is_dead_is_watched_by_its_log_and_not_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracker: it is dead for a whole training, which is not taken for hung."""
    monkeypatch.setattr(metrics, "LATE_S", 0.0)
    there = World(SKILL)
    begun = dict[str, float]()

    class Logging(FakeJobRunner):
        def logs(self, job_id: str, *, tail: int = 100) -> Sequence[str]:
            since = begun.setdefault(job_id, there.clock.monotonic())
            steps = min(20, int((there.clock.monotonic() - since) // 50))
            return [f"step {i}/20 loss {2 - 0.05 * i:.4f} lr 0.001" for i in range(1, steps + 1)]

    def slow(spec: JobSpec) -> Ending:
        ending = World(SKILL).behave(spec)
        return replace(ending, running_s=1050.0) if spec.run == "sft-01" else ending

    there.runner = Logging(there.clock, slow)
    there.tracker = TrackioTracker(tmp_path / "nothing", runner=there.runner)  # type: ignore[assignment]
    path = tmp_path / "night.jsonl"
    with at_desk(path, there, max_extensions=0) as desk:
        state = work(desk, poll_s=60)
    assert [attempt.stage for attempt in state.runs["sft-01"].attempts] == ["COMPLETED"]
    assert state.runs["sft-01"].points[-1].step == 20
    assert claimed(state).label == "confirmed_better"


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("box", working_levels(), ids=lambda box: box.name)
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_program_whose_process_is_killed_is_judged_all_the_same(box: Sandbox, place: str) -> None:
    """Evaluation: `kill -9` of a process of the sandbox in which a program is judged, at each level of isolation."""
    with ThreadPoolExecutor(1) as pool:
        before = set(descendants(os.getpid()))
        outcome = pool.submit(box.run, "import time\ntime.sleep(0.7)")
        until(lambda: set(descendants(os.getpid())) - before)
        time.sleep(0.3)
        inside = sorted(set(descendants(os.getpid())) - before)
        os.kill(inside[0 if place == "first" else -1], signal.SIGKILL)
        assert outcome.result(timeout=20).passed


def test_an_expression_whose_comparer_is_killed_is_compared_all_the_same() -> None:
    """Evaluation: `kill -9` of the process that compares expressions."""
    pytest.importorskip("lighteval")
    comparer, before = LatexComparer(), set(descendants(os.getpid()))
    assert comparer.equal("1+x", "x+1") is True
    [process] = set(descendants(os.getpid())) - before
    os.kill(process, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(comparer.equal, "2+x", "x+2")
        time.sleep(0.3)
        os.kill(process, signal.SIGKILL)
        assert answer.result(timeout=60) is True


@pytest.mark.parametrize("back", RETURNS)
@pytest.mark.parametrize(("number", "moment"), [(0, "asked"), (4, "answering"), (9, "answered"), (12, "asked")])
def test_a_night_whose_endpoint_is_killed_ends_as_any_other(
    tmp_path: Path, number: int, moment: Moment, back: Return
) -> None:
    """Planner: `kill -9` of its endpoint at a request, in an answer, or after it; it is back soon, later, or never."""
    path = tmp_path / "night.jsonl"
    switched = planned(path, number, moment, back)
    assert switched == {"soon": [], "later": ["rules", "scripted"], "never": ["rules"]}[back]
    night(tmp_path / "rules.jsonl", World(SKILL))
    assert facts(path) == facts(tmp_path / "rules.jsonl")


def test_a_night_is_resumed_while_the_endpoint_that_is_to_name_its_model_is_dead(tmp_path: Path) -> None:
    """Planner: hfagent and the endpoint, which is to name its model, are killed, and only hfagent comes back."""
    path, there = tmp_path / "night.jsonl", World(SKILL)
    killed(path, there, lambda event: event.seq == 20)
    with endpoint() as server, at_desk(path, there) as desk:
        server.kill()
        chosen = Settings(planner=server.url)
        state = work(desk, planner_for(desk, chosen, stop_asked=lambda: None), resumed_by=1)
    assert claimed(state).label == "confirmed_better"
    night(tmp_path / "rules.jsonl", World(SKILL))
    assert facts(path) == facts(tmp_path / "rules.jsonl")


def test_the_endpoint_names_its_model_once_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "night.jsonl"
    assert planned(path, 0, "asked", "later", named=False) == ["rules", "scripted"]
