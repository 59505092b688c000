"""When the report is written: never between two jobs, and for a small share of the time."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from nights import PLAN, Night, state_of
from rich.console import Console
from world import SKILL, World, ended, make_plan

from hfagent.agent.chain import Head
from hfagent.agent.errors import ReportError
from hfagent.agent.events import PlanMade, ProjectEnded
from hfagent.agent.fakes import FakeJobRunner
from hfagent.agent.night import begin
from hfagent.agent.ports import Ports
from hfagent.agent.records import Job, JobSpec, RunSpec
from hfagent.agent.report_pace import SHARE, ReportFile
from hfagent.agent.settings import Settings, load
from hfagent.agent.state import State

HEAD = Head(1, "00")
FIRST = RunSpec(name="sft-01", kind="train", why="first run", train=PLAN.train)


class Desk:
    """A clock, and a report that takes `cost_s` to write."""

    def __init__(self, cost_s: float = 0.0) -> None:
        self.now = self.worked = 0.0
        self.cost_s = cost_s
        self.written: list[int] = []
        self.warned: list[str] = []
        self.file = ReportFile(
            Path("r.md"), self.warned.append, write=self._write, clock=lambda: self.now, work=lambda: self.worked
        )

    def _write(self, state: State, path: Path, head: Head) -> None:
        self.worked += self.cost_s
        self.written.append(len(state.runs))


def confirmed() -> State:
    night = Night()
    night.prepare()
    return state_of(night.events)


def running() -> State:
    night = Night()
    night.prepare()
    night.begin(FIRST)
    return state_of(night.events)


def test_between_two_jobs_nothing_is_written() -> None:
    desk = Desk()
    desk.file.follow(confirmed(), HEAD)
    desk.file.tick(confirmed())
    assert desk.written == []
    desk.file.follow(running(), HEAD)
    assert desk.written == []
    desk.file.tick(running())
    assert desk.written == [1]
    desk.file.tick(running())
    assert desk.written == [1]


def test_a_night_that_waits_for_a_person_has_its_report() -> None:
    desk, state = Desk(), confirmed()
    desk.file.follow(state, HEAD)
    desk.file.tick(state)
    desk.file.tick(state)
    assert desk.written == [0]


def test_a_long_report_is_written_less_often() -> None:
    desk = Desk(cost_s=0.6)
    state = running()
    for second in range(100):
        desk.now = float(second)
        desk.file.follow(state, HEAD)
        desk.file.tick(state)
    assert len(desk.written) == 4  # at 0, 30, 60 and 90 s
    assert desk.worked <= SHARE * 100 + desk.cost_s


def test_what_a_person_is_asked_about_and_the_end_are_written_at_once() -> None:
    desk = Desk(cost_s=10.0)
    night = Night()
    night.add(PlanMade(plan=PLAN, versions={}))
    desk.file.follow(state_of(night.events), HEAD)
    assert desk.written == [0]
    night.prepare()
    night.add(ProjectEnded(state="stopped", reason="a test"))
    desk.file.follow(state_of(night.events), HEAD)
    assert desk.written == [0, 0]


def test_what_is_left_is_written_at_the_close_once() -> None:
    desk = Desk()
    desk.file.follow(running(), HEAD)
    desk.file.close()
    desk.file.close()
    assert desk.written == [1]


def test_a_report_that_cannot_be_written_is_told_and_tried_again_with_the_next_event() -> None:
    desk = Desk()

    def refuse(state: State, path: Path, head: Head) -> None:
        raise ReportError("no room")

    desk.file = ReportFile(Path("r.md"), desk.warned.append, write=refuse)
    desk.file.follow(running(), HEAD)
    desk.file.tick(running())
    assert desk.warned == ["no room"]


class Watched(FakeJobRunner):
    """Knows what the report was when the last job ended, and when the next one was submitted."""

    report: Path
    at_end: bytes | None = None
    begun: int = 0

    def submit(self, spec: JobSpec) -> Job:
        if self.at_end is not None:
            assert self.report.read_bytes() == self.at_end, f"{spec.run} waited for the report"
            self.begun += 1
        return super().submit(spec)

    def wait(self, job_ids: Sequence[str], *, timeout_s: float) -> None:
        super().wait(job_ids, timeout_s=timeout_s)
        self.at_end = self.report.read_bytes()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load({}, cwd=tmp_path, env={})


def test_no_job_waits_for_the_report_and_the_end_is_in_it(settings: Settings) -> None:
    world = World(SKILL)
    runner = Watched(world.clock, world.behave)
    runner.report = settings.reports_dir / "night.md"
    ports = Ports(**{**vars(world.ports), "runner": runner})
    state = begin(make_plan(), ports, settings, ask=None, console=Console(quiet=True))
    assert state is not None
    assert ended(state) == "finished"
    assert runner.begun > 5
    assert "confirmed better" in runner.report.read_text(encoding="utf-8")
