"""The path of a night: observe, plan, act, wait. Nothing is computed and no token is spent while jobs run."""

from collections.abc import Callable

from hfagent.agent import envelope
from hfagent.agent.control import Mailbox, NoMailbox
from hfagent.agent.desk import Desk
from hfagent.agent.errors import HfagentError, LedgerError
from hfagent.agent.events import Crashed, Resumed
from hfagent.agent.ports import Planner
from hfagent.agent.rules import next_move
from hfagent.agent.state import State

NO_MAILBOX = NoMailbox()


def run_night(
    desk: Desk,
    planner: Planner,
    *,
    on_tick: Callable[[State], None],
    mailbox: Mailbox = NO_MAILBOX,
    poll_s: float = 2.0,
    resumed_by: int | None = None,
) -> State:
    """Work until the project has ended.

    Args:
        desk: the open project; its plan is confirmed.
        planner: proposes; the desk disposes.
        on_tick: called after each look at the jobs, so that a terminal shows life.
        mailbox: what a person asks for meanwhile.
        poll_s: how often metrics are read while a job runs; a job's end wakes the loop at once.
        resumed_by: process id when the project was begun by another process.

    Returns:
        The final state.

    Raises:
        KeyboardInterrupt: Ctrl-C; jobs go on, the ledger is closed and can be resumed.
        HfagentError: recorded in the ledger first; the project can be resumed.
    """
    try:
        if resumed_by is not None:
            desk.append(Resumed(pid=resumed_by))
        while desk.state.ended is None:
            look(desk, mailbox)
            on_tick(desk.state)
            if desk.state.ended is not None:
                break
            if next_move(desk.state, desk.now) is None:
                left_s = envelope.time_left_s(desk.state, desk.now)
                desk.wait(poll_s if left_s is None else min(poll_s, left_s))
            else:
                planner.wake()
    except LedgerError:
        raise
    except HfagentError as error:
        desk.append(Crashed(error=str(error)))
        raise
    except Exception as error:
        desk.append(Crashed(error=f"{type(error).__name__}: {error}"))
        raise
    return desk.state


def look(desk: Desk, mailbox: Mailbox) -> None:
    """Bring a project up to date with its jobs and with what a person asks; end it when asked to, or out of time."""
    why = mailbox.stop_asked()  # before anything is started, or looked at, which may fail
    if why is None:
        desk.notice_jump()
        desk.reconcile()
        desk.observe()
        for request in mailbox.take():
            desk.heed(request)
        desk.end_search()
        desk.ask_approval()
        desk.warn()
        why = _out_of_time(desk)
    if why is not None:
        desk.stop(why)


def _out_of_time(desk: Desk) -> str | None:
    left_s = envelope.time_left_s(desk.state, desk.now)
    if left_s is None or left_s > 0 or _free(desk):
        return None
    return f"the time limit of {desk.state.plan.max_hours} h is reached"


def _free(desk: Desk) -> bool:
    """Whether what is left to do needs no job: that is done however late it is."""
    move = next_move(desk.state, desk.now)
    if move is None:
        return False
    return move.tool in ("compare", "decide") or (move.tool == "finish" and move.args["outcome"] == "finished")
