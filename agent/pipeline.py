"""Begin or resume a pipeline: its stages are nights like any other, one after the other, on the last good model."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from hfagent.agent import night, pipeline_rules
from hfagent.agent.control import Request
from hfagent.agent.errors import HfagentError, UsageError
from hfagent.agent.events import Event, PlanConfirmed, Resumed
from hfagent.agent.folding import fold as fold_stage
from hfagent.agent.ledger import Ledger, is_confirmed, is_held, open_ledger, read
from hfagent.agent.notify import Notifier, apprise_sender, pipeline_message
from hfagent.agent.pipeline_desk import PipelineDesk
from hfagent.agent.pipeline_facts import Pipeline, PipelineMade
from hfagent.agent.pipeline_report import card_text
from hfagent.agent.pipeline_state import PipelineState, fold
from hfagent.agent.ports import Ports
from hfagent.agent.records import Export, Refusal
from hfagent.agent.settings import Settings
from hfagent.agent.state import State
from hfagent.agent.wiring import Paths, versions

QUIET = Console(quiet=True)
Ask = Callable[[PipelineState], bool]
"""Shown the state after the dataset checks: whether to go on."""


def begin(
    pipeline: Pipeline, ports: Ports, settings: Settings, *, ask: Ask | None, console: Console
) -> PipelineState | None:
    """Run a new pipeline to its end.

    Args:
        pipeline: what to do.
        ports: the outside world, the same for all stages.
        settings: folders and times.
        ask: asked before anything is launched; None means yes.
        console: for progress.

    Returns:
        The final state; None when the answer was no, and then nothing is left behind.

    Raises:
        UsageError: the project, or one of a stage's name, exists.
        DatasetError: the data of a stage cannot train with its method.
    """
    paths = Paths(settings.reports_dir, pipeline.project)
    night.check_runner(pipeline.stages[0], ports)
    with offered(pipeline, paths, ports, settings, console) as desk:
        if ask is not None and not ask(desk.state):
            return None
        desk.append(PlanConfirmed(by="--yes" if ask is None else "terminal"))
        with _notifying(desk, settings):
            return desk.work()


def resume(paths: Paths, ports: Ports, settings: Settings, *, console: Console) -> PipelineState:
    """Take a pipeline over where its ledger ends; of one that has ended, what outlived it is ended and counted.

    Raises:
        UsageError: it was never confirmed.
    """
    with open_ledger(paths.ledger, ports.clock) as book:
        desk = PipelineDesk(book, ports, settings, console)
        if desk.state.ended is not None:
            desk.clear_up()
            return desk.state
        if not desk.state.confirmed:
            raise UsageError(f"the project {paths.project!r} was never confirmed: start it again")
        desk.append(Resumed(pid=os.getpid()))
        with _notifying(desk, settings):
            return desk.work()


def ask(paths: Paths, ports: Ports, settings: Settings, request: Request) -> Refusal | bool:
    """Ask something of a pipeline: of the process that holds it, else it is done here. See `night.ask`.

    Raises:
        UsageError: nothing but a stop can be asked for while no stage is worked on.
    """
    state = fold(read(paths.ledger))
    current = None if state is None else state.current
    if is_held(paths.ledger):
        paths.mailbox(settings.state_dir).post(request)
        return True
    stage = None if current is None else Paths(paths.reports, current.plan.project)
    begun = stage is not None and stage.ledger.exists() and is_confirmed(stage.ledger)
    if request.ask != "stop" and not begun:
        raise UsageError(f"no stage of {paths.project!r} is worked on: `hfagent resume {paths.project}`")
    done = night.ask(stage, ports, settings, request) if stage is not None and begun else False
    if request.ask != "stop" or done is True:
        return done
    with open_ledger(paths.ledger, ports.clock) as book:
        PipelineDesk(book, ports, settings, Console(quiet=True)).stop(request.text or "asked to stop")
    return False


def export(paths: Paths, ports: Ports, settings: Settings, what: Export, *, console: Console) -> State:
    """Export the last good model of a pipeline that has ended; see `night.export`, whose state is that of the stage.

    Raises:
        UsageError: it has not ended, no stage was kept, or policy refuses.
    """
    state = fold(read(paths.ledger))
    if state is None or state.ended is None or state.claim is None:
        raise UsageError(f"the project {paths.project!r} has not ended: `hfagent resume {paths.project}`")
    if not state.carried:
        raise UsageError(f"no stage of {paths.project!r} was kept: there is no model to export")
    last, _ = state.carried[-1]
    first, stage = (Paths(paths.reports, place.plan.project) for place in (state.carried[0][0], last))
    began = fold_stage(read(first.ledger))
    assert began is not None
    asked = pipeline_rules.allowed(what, state.claim, card_text(state), began)
    if isinstance(asked, str):
        raise UsageError(asked)
    allotted = pipeline_rules.allotted(state, last)
    return night.export(stage, ports, settings, asked, console=console, allotted=allotted)


@contextmanager
def offered(
    pipeline: Pipeline, paths: Paths, ports: Ports, settings: Settings, console: Console = QUIET
) -> Iterator[PipelineDesk]:
    """A new pipeline whose data are judged, its ledger held; nothing is left of it where it is not confirmed.

    Raises as `begin` does.
    """
    with open_ledger(paths.ledger, ports.clock) as book:
        if _confirmed(book):
            raise UsageError(f"the project {pipeline.project!r} exists: `hfagent resume {pipeline.project}`")
        try:
            _refuse_taken(pipeline, settings)
            book.clear()
            paths.mailbox(settings.state_dir).clear()
            book.append(PipelineMade(pipeline=pipeline, versions=versions()))
            desk = PipelineDesk(book, ports, settings, console)
            desk.check_data()
            yield desk
        except (HfagentError, KeyboardInterrupt):
            _drop_unconfirmed(book, paths)
            raise
        _drop_unconfirmed(book, paths)


@contextmanager
def _notifying(desk: PipelineDesk, settings: Settings) -> Iterator[None]:
    """Tell a person how the stages end, where the settings say how."""
    if settings.notify is None:
        yield
        return
    notifier = Notifier(apprise_sender(settings.notify.get_secret_value().split()), warn=desk.warn)

    def follow(event: Event) -> None:
        told = pipeline_message(event, desk.state.pipeline.project)
        if told is not None:
            notifier.tell(told)

    desk.subscribe(follow)
    try:
        yield
    finally:
        notifier.close()


def _drop_unconfirmed(book: Ledger, paths: Paths) -> None:
    if not _confirmed(book):
        paths.abandon()


def _confirmed(book: Ledger) -> bool:
    return any(isinstance(event.fact, PlanConfirmed) for event in book.events)


def _refuse_taken(pipeline: Pipeline, settings: Settings) -> None:
    for plan in pipeline.stages:
        ledger = Paths(settings.reports_dir, plan.project).ledger
        if ledger.exists() and is_confirmed(ledger):
            raise UsageError(
                f"the project {plan.project!r} exists, and a stage of {pipeline.project!r} would have its name: choose "
                "another --project"
            )
