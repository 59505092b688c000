"""Clocks that are set in the middle of a night, machines that sleep, and machines without time-zone data."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from nights import PLAN, Night, state_of
from world import SKILL, World, at_desk, claimed, ended, night, work

from hfagent.agent import console, ledger
from hfagent.agent.events import Event, JobEnded, MetricsLogged
from hfagent.agent.evidence import watched
from hfagent.agent.fakes import FakeClock
from hfagent.agent.pace import JUMP_S, Pace
from hfagent.agent.records import MetricPoint, RunSpec
from hfagent.agent.report import render
from hfagent.agent.state import State
from hfagent.agent.upkeep_facts import ClockJumped
from hfagent.agent.watch import flags
from hfagent.agent.wiring import Paths

HOUR = 3600.0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> State:
    return night(tmp_path_factory.mktemp("whole") / "night.jsonl", World(SKILL))


@pytest.mark.parametrize("jump", [HOUR, -HOUR, 24 * HOUR])
@pytest.mark.parametrize("at", range(4, 46, 3))
def test_a_clock_that_is_set_at_any_moment(tmp_path: Path, undisturbed: State, jump: float, at: int) -> None:
    """The clock jumps an hour forward, an hour back, or a day forward, at any event."""
    path, world = tmp_path / "night.jsonl", World(SKILL)

    def set_clock(event: Event) -> None:
        if event.seq == at:
            world.clock.jump(jump)

    with at_desk(path, world, max_hours=30) as desk:
        desk.ledger.subscribe(set_clock)
        state = work(desk)
    assert ended(state) == "finished"
    assert claimed(state) == claimed(undisturbed)
    assert not any(run.flags for run in state.runs.values())
    facts = [event.fact for event in ledger.read(path)]
    assert [fact.seconds for fact in facts if isinstance(fact, ClockJumped)] == [jump]
    took = [(fact.key, fact.running_s) for fact in facts if isinstance(fact, JobEnded)]
    assert all(seconds is not None and 0 <= seconds <= 60 for _, seconds in took)
    assert "| clock |" in render(state)
    closing = console.closing(state, Paths(tmp_path, "night"), world.clock.now(), held=False)
    [time] = [line for line in closing.splitlines() if line.startswith("time ")]
    assert "-" not in time


def test_the_deadline_is_one_of_the_clock_on_the_wall(tmp_path: Path) -> None:
    path, world = tmp_path / "night.jsonl", World(SKILL)
    with at_desk(path, world, max_hours=8) as desk:
        desk.ledger.subscribe(lambda event: world.clock.jump(9 * HOUR) if event.seq == 20 else None)
        state = work(desk)
    assert state.ended is not None
    assert (state.ended.state, state.ended.reason) == ("stopped", "the time limit of 8.0 h is reached")


def training() -> Night:
    """A training run that has logged a step 60 s after its start."""
    night = Night(PLAN)
    night.prepare()
    night.begin(RunSpec(name="sft-01", kind="train", why="first run", train=PLAN.train))
    night.wait(60)
    night.add(MetricsLogged(run="sft-01", points=(MetricPoint(step=1, values={"train/loss": 2.0}),)))
    night.wait(10)
    return night


@pytest.mark.parametrize("jump", [8 * HOUR, HOUR, -HOUR])
def test_a_training_on_a_machine_that_slept_is_not_taken_for_one_that_hangs(jump: float) -> None:
    night = training()
    night.at += timedelta(seconds=jump)
    now = night.at + timedelta(seconds=20)
    misled = state_of(night.events)
    if jump > 0:
        assert any(flag.name == "hung" for flag in flags(watched(misled, misled.runs["sft-01"], now)))
    night.add(ClockJumped(seconds=jump))
    state = state_of(night.events)
    seen = watched(state, state.runs["sft-01"], now)
    assert flags(seen) == ()
    assert (seen.running_s, seen.progress) == (90.0, ((60.0, 1),))


def test_small_steps_of_a_clock_are_no_jump() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    clock.advance(7200)
    assert pace.jump_s() is None
    clock.jump(JUMP_S - 1)
    assert pace.jump_s() is None
    clock.jump(-HOUR)
    assert pace.jump_s() == -HOUR
    assert pace.jump_s() is None


NIGHT = """
import sys
sys.modules["tzdata"] = None
from pathlib import Path
from world import SKILL, World, night
from hfagent.agent.report import render
state = night(Path(sys.argv[1]), World(SKILL))
print(state.ended.state, "UTC" in render(state))
"""


@pytest.mark.parametrize("zone", [None, "Europe/Paris", "nowhere/at_all"])
def test_a_night_needs_no_time_zone_data(tmp_path: Path, zone: str | None) -> None:
    """TZ unset, set to a zone without data, or to nonsense; no zoneinfo and no tzdata."""
    env = {name: value for name, value in os.environ.items() if name != "TZ"}
    env |= {"PYTHONTZPATH": "", **({"TZ": zone} if zone else {})}
    folders = [str(Path(__file__).parent), *filter(None, sys.path)]
    done = subprocess.run(
        [sys.executable, "-c", NIGHT, str(tmp_path / "night.jsonl")],
        env=env | {"PYTHONPATH": os.pathsep.join(folders)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["finished", "True"], done.stderr
