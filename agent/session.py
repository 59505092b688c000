"""A project worked by somebody outside, call by call: the desk stays open, and its jobs are looked after meanwhile."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from hfagent.agent import data_rules, estimate, pipeline, policy, report, rules
from hfagent.agent.desk import Desk
from hfagent.agent.errors import ReportError, UsageError
from hfagent.agent.events import Event, PlanConfirmed, PlanMade, Resumed
from hfagent.agent.folding import fold
from hfagent.agent.ledger import open_ledger, read
from hfagent.agent.loop import look
from hfagent.agent.pipeline_desk import PipelineDesk
from hfagent.agent.pipeline_facts import Pipeline
from hfagent.agent.pipeline_state import PipelineState
from hfagent.agent.pipeline_state import fold as fold_pipeline
from hfagent.agent.pipeline_views import expected_s
from hfagent.agent.plan import Flags
from hfagent.agent.planning import plan_goal
from hfagent.agent.ports import Ports
from hfagent.agent.records import Plan, Refusal
from hfagent.agent.settings import Settings
from hfagent.agent.summary import summary
from hfagent.agent.wiring import Paths, as_planned, find_project, mailbox_of, preflight, versions


class HandedOver(NamedTuple):
    """The process that goes on with a project."""

    project: str
    pid: int
    log: Path


class Offered(NamedTuple):
    """A pipeline that was planned, and is to run in a process of its own; its ledger is held until then."""

    desk: PipelineDesk
    paths: Paths
    settings: Settings

    @property
    def state(self) -> PipelineState:
        """Where it stands."""
        return self.desk.state


class Session:
    """Holds at most one project. Every method may be called from any thread; one at a time does something."""

    def __init__(self, settings: Settings, ports: Callable[[Settings], Ports], *, pid: int):
        """Make one.

        Args:
            settings: folders and times.
            ports: makes the outside world of a night.
            pid: of this process, for the ledger.
        """
        self.settings = settings
        self._ports = ports
        self._pid = pid
        self._lock = threading.RLock()
        self._stack = ExitStack()
        self._open: tuple[Desk, Paths] | None = None
        self.offered: Offered | None = None
        """A pipeline that was planned here."""
        self._ended = threading.Event()
        self._trouble: Exception | None = None

    @contextmanager
    def desk(self) -> Iterator[Desk]:
        """The desk of the open project, up to date; nobody else works at it meanwhile.

        Raises:
            UsageError: no project is open.
        """
        with self._lock:
            desk, paths = self._held()
            if desk.state.confirmed and desk.state.ended is None:
                look(desk, mailbox_of(paths, self._begun(desk), desk.state.plan))
            yield desk

    def plan(self, goal: str, flags: Flags, **limits: Any) -> dict[str, Any]:
        """Plan a goal and judge its data; nothing is launched before `start`.

        Args:
            goal: the sentence.
            flags: what is said beside it.
            limits: fields of the settings, e.g. `budget_usd`.
        """
        with self._lock:
            self._require_none()
            settings = self.settings.model_copy(update=_checked({k: v for k, v in limits.items() if v is not None}))
            made = plan_goal(goal, flags, settings)
            if isinstance(made, Pipeline):
                return self._offer(made, settings)
            settings = as_planned(settings, made)
            if made.backend != "local":
                preflight(settings, made)
            paths = Paths(settings.reports_dir, made.project)
            desk = self._enter(paths, settings, fresh=made)
            paths.mailbox(settings.state_dir).clear()
            try:
                checked = desk.check_dataset()
            except BaseException:  # Ctrl-C, too: nothing of a plan that nobody saw stays
                self.close()
                raise
            assert not isinstance(checked, Refusal)
            size = estimate.data_size(desk.state.dataset)
            return {
                "project": made.project,
                "plan": made.model_dump(mode="json", exclude_none=True, exclude={"token", "state_dir"}),
                "dataset": checked.methods[made.method].model_dump(exclude={"mapping"}),
                "estimate_s": round(estimate.night_s(made, size)),
                "estimate_usd": estimate.cost_micro_usd(made, estimate.work_s(made, size)) / 1e6,
                "next": "start, to confirm the plan; nothing is launched before",
            }

    def start(self) -> dict[str, Any]:
        """Confirm the plan; from here on jobs may start."""
        with self._lock:
            if self.offered is not None:
                return self._start_offered(self.offered)
            desk, _ = self._held()
            if desk.state.confirmed:
                raise UsageError(f"the project {desk.state.plan.project!r} is confirmed already")
            if desk.state.dataset is None or (why := data_rules.flaw(desk.state)) is not None:
                raise UsageError("the dataset is not checked" if desk.state.dataset is None else str(why))
            desk.append(PlanConfirmed(by="agent"))
            self._watch()
            return self.status()

    def open(self, project: str | None) -> dict[str, Any]:
        """Take up a project where its ledger ends; the newest one when it is not named."""
        with self._lock:
            self._require_none()
            paths = find_project(self.settings.reports_dir, project)
            events = read(paths.ledger)
            known = fold(events)
            if known is None:
                stages = "has stages, which run unattended: open one of them, or hfagent resume goes on"
                what = stages if fold_pipeline(events) is not None else "has no plan yet"
                raise UsageError(f"the project {paths.project!r} {what}")
            desk = self._enter(paths, as_planned(self.settings, known.plan), fresh=None)
            if desk.state.ended is None and desk.state.confirmed:
                desk.append(Resumed(pid=self._pid))
                self._watch()
            return self.status()

    def status(self) -> dict[str, Any]:
        """Where the open project stands."""
        with self.desk() as desk:
            paths = self._held()[1]
            told = summary(desk.state, report=paths.report, ledger=paths.ledger, held=True)
            told["decisions"] = told["decisions"][-3:]
            told["runs"] = [{k: run[k] for k in ("name", "kind", "stage", "score")} for run in told["runs"][-8:]]
            due = rules.next_move(desk.state, desk.now)
            hold = rules.on_hold(desk.state, desk.now) or policy.unsteady(desk.state)
            return told | {"due": None if due is None else due.model_dump(), "on_hold": hold}

    def wait(self, seconds: float) -> dict[str, Any]:
        """Return as soon as a job has ended, or after so long."""
        until = datetime.now(UTC).timestamp() + seconds
        while True:
            with self.desk() as desk:
                jobs = [attempt.job_id for attempt in desk.state.open_attempts if attempt.job_id is not None]
                held = rules.on_hold(desk.state, desk.now) is not None
            left = until - datetime.now(UTC).timestamp()
            if left <= 0 or not (jobs or held):
                return self.status()
            desk.ports.runner.wait(jobs, timeout_s=min(left, self.settings.look_s))

    def hand_over(self) -> "HandedOver":
        """Let the project go and have it gone on with, unattended, by a process of its own that outlives this one.

        Raises:
            UsageError: there is nothing to go on with.
        """
        with self._lock:
            if self.offered is not None:
                settings, paths = self.offered.settings, self.offered.paths
                if not self.offered.state.confirmed:
                    raise UsageError("there is nothing to hand over: the project is not started, or over")
            else:
                desk, paths = self._held()
                if not desk.state.confirmed or desk.state.ended is not None:
                    raise UsageError("there is nothing to hand over: the project is not started, or over")
                settings = self._begun(desk)
            log = settings.state_dir / "nights" / f"{paths.project}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            self.close()
            command = [
                sys.executable, "-m", "hfagent", "resume", paths.project, "--planner", settings.planner,
                "--reports-dir", str(settings.reports_dir), "--state-dir", str(settings.state_dir),
            ]  # fmt: skip
            with log.open("ab") as out:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
                )
            return HandedOver(paths.project, process.pid, log)

    def close(self) -> str | None:
        """Let the project go; its jobs run on. Its name, or None where none was open."""
        with self._lock:
            if self.offered is not None:
                offered, self.offered = self.offered, None
                self._let_go()
                return offered.paths.project
            name = None if self._open is None else self._open[0].state.plan.project
            unconfirmed = self._open if self._open is not None and not self._open[0].state.confirmed else None
            self._ended.set()
            if unconfirmed is not None:
                unconfirmed[1].abandon()
            self._open, self._trouble = None, None
            self._let_go()
            return name

    # --- inside ------------------------------------------------------------------------------------------------------

    def _let_go(self) -> None:
        stack, self._stack = self._stack, ExitStack()
        stack.close()

    def _begun(self, desk: Desk) -> Settings:
        return as_planned(self.settings, desk.state.plan)

    def _held(self) -> tuple[Desk, Paths]:
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble
        if self.offered is not None:
            raise UsageError(
                f"the project {self.offered.paths.project!r} has stages, which run unattended: start_night, then "
                "hand_over"
            )
        if self._open is None:
            raise UsageError("no project is open: call plan_night, or open_night for one that exists")
        return self._open

    def _require_none(self) -> None:
        open_ = self.offered.paths if self.offered is not None else self._open[1] if self._open is not None else None
        if open_ is not None:
            raise UsageError(f"the project {open_.project!r} is open: close_night first")

    def _offer(self, made: Pipeline, settings: Settings) -> dict[str, Any]:
        """Plan a pipeline: it runs in a process of its own, since nobody works its stages call by call."""
        settings = as_planned(settings, made.stages[0])
        if made.stages[0].backend != "local":
            for stage in made.stages:
                preflight(settings, stage)
        paths = Paths(settings.reports_dir, made.project)
        desk = self._stack.enter_context(pipeline.offered(made, paths, self._ports(settings), settings))
        self.offered = Offered(desk, paths, settings)
        return {
            "project": made.project,
            "stages": [stage.model_dump(mode="json", exclude_none=True) for stage in made.stages],
            "estimate_s": round(expected_s(made, desk.state)),
            "next": "start, then hand_over: the stages run unattended; nothing is launched before",
        }

    def _start_offered(self, offered: "Offered") -> dict[str, Any]:
        if offered.state.confirmed:
            raise UsageError(f"the project {offered.paths.project!r} is confirmed already")
        offered.desk.append(PlanConfirmed(by="agent"))
        return {"project": offered.paths.project, "next": "hand_over"}

    def _enter(self, paths: Paths, settings: Settings, *, fresh: Plan | None) -> Desk:
        ports = self._ports(settings)
        with ExitStack() as opening:  # let go again if anything fails before the desk stands
            book = opening.enter_context(open_ledger(paths.ledger, ports.clock))
            if fresh is not None:
                book.clear()
                book.append(PlanMade(plan=fresh, versions=versions()))
            desk = Desk(book, ports)
            self._stack = opening.pop_all()

        def follow(event: Event) -> None:
            try:
                report.write(desk.state, paths.report, book.head)
            except ReportError as error:
                self._trouble = error

        book.subscribe(follow)
        self._open = desk, paths
        return desk

    def _watch(self) -> None:
        """Look after the jobs while nobody calls: a broken training is cancelled, a deadline kept."""
        self._ended = threading.Event()
        threading.Thread(target=self._look_on, args=(self._ended,), daemon=True).start()

    def _look_on(self, ended: threading.Event) -> None:
        while not ended.wait(self.settings.look_s):
            with self._lock:
                if ended.is_set() or self._open is None or self._open[0].state.ended is not None:
                    return
                desk, paths = self._open
                try:
                    look(desk, mailbox_of(paths, self._begun(desk), desk.state.plan))
                except Exception as error:  # noqa: BLE001 - told at the next call; the next look may succeed
                    self._trouble = error


def _checked(limits: dict[str, Any]) -> dict[str, Any]:
    """Limits that are within their ranges.

    Raises:
        UsageError: one is not.
    """
    try:
        Settings.model_validate(limits)
    except ValidationError as error:
        problem = error.errors()[0]
        raise UsageError(f"{problem['loc'][0]} is {problem['input']!r}: {problem['msg']}") from None
    return limits
