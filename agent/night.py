"""Begin or resume a project: the ledger is opened, the report and the terminal follow it, the loop runs."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from typing import NamedTuple

from rich.console import Console

from hfagent.agent import data_rules, report, room
from hfagent.agent.console import Progress
from hfagent.agent.control import Request
from hfagent.agent.desk import Desk
from hfagent.agent.errors import DatasetError, HfagentError, UsageError
from hfagent.agent.events import Event, PlanConfirmed, PlanMade
from hfagent.agent.ledger import Ledger, open_ledger
from hfagent.agent.loop import run_night
from hfagent.agent.notify import Notifier, apprise_sender
from hfagent.agent.ports import Ports
from hfagent.agent.records import Export, Plan, Refusal
from hfagent.agent.report_pace import ReportFile
from hfagent.agent.settings import Settings
from hfagent.agent.shipping import newest
from hfagent.agent.state import State
from hfagent.agent.upkeep_facts import Allotted
from hfagent.agent.wiring import Paths, mailbox_of, versions

Ask = Callable[[State], Plan | bool]
"""Shown the state after the dataset check: True to go on, False to end, or a changed plan."""


def begin(plan: Plan, ports: Ports, settings: Settings, *, ask: Ask | None, console: Console) -> State | None:
    """Run a new project to its end.

    Args:
        plan: what to do.
        ports: the outside world.
        settings: folders and times.
        ask: asked before anything is launched; None means yes.
        console: for progress.

    Returns:
        The final state; None when the answer was no, and then nothing is left behind.
    """
    check_runner(plan, ports)
    paths = Paths(settings.reports_dir, plan.project)
    with open_ledger(paths.ledger, ports.clock) as book:
        if _confirmed(book):
            raise UsageError(f"the project {plan.project!r} exists: `hfagent resume {plan.project}`")
        book.clear()
        paths.mailbox(settings.state_dir).clear()
        try:
            book.append(PlanMade(plan=plan, versions=versions()))
            with (
                room.needed(paths.project),
                _followed(book, ports, paths, settings, console) as night,
            ):
                if not _agreed(night.desk, ask, night.progress):
                    paths.abandon()
                    return None
                return _run(night, settings, paths, resumed_by=None)
        except (HfagentError, KeyboardInterrupt):
            if not _confirmed(book):
                paths.abandon()
            raise


def check_runner(plan: Plan, ports: Ports) -> None:
    """Look whether the plan's jobs would run where it says.

    Raises:
        UsageError: they would not.
    """
    if plan.backend != ports.runner.name:
        raise UsageError(
            f"the plan's jobs are to run on {plan.backend!r}, and the runner that is wired is {ports.runner.name!r}: "
            f"use --backend {ports.runner.name}"
        )


def resume(paths: Paths, ports: Ports, settings: Settings, *, console: Console) -> State:
    """Take a project over where its ledger ends; jobs that still run are attached again.

    Of one that has ended, what outlived it is ended and counted.
    """
    with (
        room.needed(paths.project),
        open_ledger(paths.ledger, ports.clock) as book,
        _followed(book, ports, paths, settings, console) as night,
    ):
        state = night.desk.state
        if state.ended is not None:
            night.desk.clear_up()
            return night.desk.state
        if not state.confirmed:
            raise UsageError(f"the project {paths.project!r} was never confirmed: start it again")
        return _run(night, settings, paths, resumed_by=os.getpid())


def export(
    paths: Paths,
    ports: Ports,
    settings: Settings,
    what: Export,
    *,
    console: Console,
    since: datetime | None = None,
    allotted: Allotted | None = None,
) -> State:
    """Export the kept model of a project that has ended: merged, converted, each file judged, pushed.

    Args:
        paths: of the project.
        ports: the outside world.
        settings: folders and times.
        what: is made of the model.
        console: for progress.
        since: when it was asked for, where an earlier process may have begun it; None is now.
        allotted: what a stage of a pipeline may use in all; None is what its plan says.

    Returns:
        The state after the last of its jobs; one that failed is the last run.

    Raises:
        UsageError: the project has not ended, or policy refuses.
    """
    with (
        open_ledger(paths.ledger, ports.clock) as book,
        _followed(book, ports, paths, settings, console) as night,
    ):
        desk = night.desk
        if desk.state.ended is None:
            raise UsageError(f"the project {paths.project!r} has not ended: `hfagent resume {paths.project}`")
        since = since or desk.now
        known = (desk.state.plan.budget_micro_usd, desk.state.plan.max_gpu_hours)
        if allotted is not None and (allotted.budget_micro_usd, allotted.max_gpu_hours) != known:
            desk.append(allotted)
        desk.reconcile()
        desk.observe()  # e.g. a file was judged, and hfagent killed before its score was on record
        while True:
            if not desk.state.open_attempts:
                job = desk.ship(what, since=since)
                last = newest(desk.state)
                refused_later = isinstance(job, Refusal) and last is not None and last.last.intended_at >= since
                if job is None or refused_later:
                    desk.settle()
                    return desk.state
                if isinstance(job, Refusal):
                    raise UsageError(f"{job.what}: {job.why}")
            while desk.state.open_attempts:
                desk.wait(settings.look_s)
                desk.reconcile()
                desk.observe()
                night.tick(desk.state)


class _Night(NamedTuple):
    """A desk, and who follows it."""

    desk: Desk
    progress: Progress
    report: ReportFile

    def tick(self, state: State) -> None:
        """After each look at the jobs."""
        self.progress.tick(state)
        self.report.tick(state)


def _confirmed(book: Ledger) -> bool:
    return any(isinstance(event.fact, PlanConfirmed) for event in book.events)


@contextmanager
def _followed(book: Ledger, ports: Ports, paths: Paths, settings: Settings, console: Console) -> Iterator[_Night]:
    """A desk whose every event reaches the terminal, and the report in good time."""
    desk = Desk(book, ports)
    progress = Progress(console, desk.state)
    report_file = ReportFile(paths.report, progress.warn)

    def follow(event: Event) -> None:
        progress.follow(event, desk.state)
        report_file.follow(desk.state, book.head)

    book.subscribe(follow)
    with progress, closing(report_file), _notifying(book, desk, settings, progress):
        yield _Night(desk, progress, report_file)


@contextmanager
def _notifying(book: Ledger, desk: Desk, settings: Settings, progress: Progress) -> Iterator[None]:
    """Tell a person of what needs one, where the settings say how."""
    if settings.notify is None:
        yield
        return
    notifier = Notifier(apprise_sender(settings.notify.get_secret_value().split()), warn=progress.warn)
    book.subscribe(lambda event: notifier.follow(event, desk.state))
    try:
        yield
    finally:
        notifier.close()


def _agreed(desk: Desk, ask: Ask | None, progress: Progress) -> bool:
    """Check the dataset, then ask until the answer is yes or no."""
    from hfagent.agent.planner import rule_planner  # smolagents takes 0.4 s: the plan is on disk and shown by then

    while True:
        rule_planner(desk).wake()
        _refuse_incompatible(desk.state)
        if ask is None:
            desk.append(PlanConfirmed(by="--yes" if desk.state.plan.stage is None else "pipeline"))
            return True
        with progress.paused():
            answer = ask(desk.state)
        if isinstance(answer, Plan):
            desk.append(PlanMade(plan=answer, versions=desk.state.versions))
            continue
        if answer:
            desk.append(PlanConfirmed(by="terminal"))
        return answer


def _refuse_incompatible(state: State) -> None:
    if (why := data_rules.flaw(state)) is not None:
        raise DatasetError(why)


def _run(night: _Night, settings: Settings, paths: Paths, *, resumed_by: int | None) -> State:
    from hfagent.agent.planners import planner_for

    desk = night.desk
    mailbox = mailbox_of(paths, settings, desk.state.plan)
    try:
        return run_night(
            desk,
            planner_for(desk, settings, stop_asked=mailbox.stop_asked),
            on_tick=night.tick,
            mailbox=mailbox,
            poll_s=settings.look_s,
            resumed_by=resumed_by,
        )
    finally:
        if desk.state.ended is not None:
            mailbox.clear()


def ask(paths: Paths, ports: Ports, settings: Settings, request: Request) -> Refusal | bool:
    """Ask something of a project: of the process that holds it, else it is done here.

    Returns:
        True where another process holds the project and will heed it at its next look, False where it is done, and why
        it cannot be where policy says so.
    """
    from hfagent.agent.ledger import is_held

    if is_held(paths.ledger):
        paths.mailbox(settings.state_dir).post(request)
        return True
    with open_ledger(paths.ledger, ports.clock) as book:
        desk = Desk(book, ports)
        if request.ask == "stop" and desk.state.ended is None:
            desk.stop(request.text or "asked to stop")
        refused = None if request.ask == "stop" else desk.heed(request)
        report.write(desk.state, paths.report, book.head)
    return refused if refused is not None else False
