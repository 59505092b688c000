"""A planner's endpoint in a process of its own, which is killed in a night, and comes back or not."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from world import SKILL, World, at_desk, work

from hfagent.agent.events import Event
from hfagent.agent.ledger import read
from hfagent.agent.planner_facts import PlannerCalled, PlannerSwitched
from hfagent.agent.planners import planner_for
from hfagent.agent.settings import Settings

SERVER = Path(__file__).parent / "chat_server.py"
Moment = Literal["asked", "answering", "answered"]
"""`answered`: it dies once its answer has been taken."""
Return = Literal["soon", "later", "never"]
"""`soon` is before the rules take over, `later` a job after it."""
MOMENTS: tuple[Moment, ...] = ("asked", "answering", "answered")
RETURNS: tuple[Return, ...] = ("soon", "later", "never")
SOON_S = 60
JOBS_LATER = 1


class Endpoint:
    """Its process; the same address whenever it is started."""

    def __init__(self, *dying: str):
        self.url = self._start("0", *dying)

    def _start(self, port: str, *dying: str) -> str:
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), port, *dying], stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._gone()

    def come_back(self) -> None:
        self._gone()
        assert self._start(self.url.rpartition(":")[2].partition("/")[0]) == self.url

    def _gone(self) -> None:
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def endpoint(*dying: str) -> Iterator[Endpoint]:
    """One that runs, with `NUMBER asked|answering` where it is to kill itself."""
    made = Endpoint(*dying)
    try:
        yield made
    finally:
        made.kill()


def planned(path: Path, number: int, moment: Moment, back: Return, *, named: bool = True) -> list[str]:
    """A night whose endpoint is killed at a request of this number, from 0; who planned from when on."""
    there = World(SKILL)
    dying = () if moment == "answered" else (str(number), moment)
    with endpoint(*dying) as server, at_desk(path, there) as desk:
        settings = Settings(planner=f"{server.url}#scripted" if named else server.url, openai_api_key="none")
        calls = ended = 0

        def follow(event: Event) -> None:
            nonlocal calls, ended
            calls += isinstance(event.fact, PlannerCalled)
            if moment == "answered" and calls == number + 1 and server.alive:
                calls += 1
                server.kill()
            ended += event.fact.kind == "job_ended" and desk.state.stand_in is not None
            if back == "later" and ended == JOBS_LATER and not server.alive:
                server.come_back()

        waiting, since = there.runner.wait, None

        def wait(ids: list[str], *, timeout_s: float) -> None:
            nonlocal since
            waiting(ids, timeout_s=timeout_s)
            if back == "soon" and not server.alive:
                since = since or there.clock.now()
                if (there.clock.now() - since).total_seconds() > SOON_S:
                    server.come_back()

        there.runner.wait = wait  # type: ignore[method-assign, assignment]
        desk.ledger.subscribe(follow)
        work(desk, planner_for(desk, settings, stop_asked=lambda: None))
    return [event.fact.planner for event in read(path) if isinstance(event.fact, PlannerSwitched)]
