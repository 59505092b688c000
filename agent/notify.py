"""Tells a person what needs one: an approval, a verdict, a failure, a limit that is near. It never blocks a night."""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hfagent.agent.brief import cut
from hfagent.agent.errors import PackageMissing, SettingsError
from hfagent.agent.events import Claimed, Crashed, Event, ProjectEnded
from hfagent.agent.pipeline_facts import StageEnded
from hfagent.agent.planner_facts import ApprovalAsked, PlannerSwitched
from hfagent.agent.redact import redact
from hfagent.agent.state import State
from hfagent.agent.summary import headline
from hfagent.agent.upkeep_facts import LimitNear
from hfagent.agent.verdict import sentence

WAITING = 50
"""Messages that may wait to be sent; more are dropped."""
CLOSE_S = 5.0
"""For the last messages, when the night is over."""


class Message(NamedTuple):
    """What is told."""

    title: str
    body: str


Send = Callable[[Message], bool]
"""Sends, and tells whether that worked."""


def message(event: Event, state: State) -> Message | None:
    """What a person is told of an event, if anything. Pure.

    Args:
        event: the event.
        state: the project after it.
    """
    project = state.plan.project
    match event.fact:
        case ApprovalAsked(run=name):
            return Message(f"{project}: {name} waits for your approval", "hfagent chat, then /approve or /veto")
        case Claimed(claim=claim):
            verdict = headline(state)
            body = claim.reason if verdict is None else f"{sentence(verdict)}; {claim.reason}"
            return Message(f"{project}: {claim.label.replace('_', ' ')}", body)
        case LimitNear(limit="budget", share=share):
            cap = (state.plan.budget_micro_usd or 0) / 1e6
            used = f"${share * cap:.2f} of ${cap:.2f}"
            return Message(f"{project}: {share:.0%} of the budget is spent or held", used)
        case LimitNear(limit="GPU hours" | "planner tokens" as limit, share=share):
            return Message(f"{project}: {share:.0%} of the {limit} are used", "the plan has the limit")
        case LimitNear(limit="time", share=share):
            return Message(f"{project}: {share:.0%} of the time is used", f"the limit is {state.plan.max_hours:g} h")
        case ProjectEnded(state=ended, reason=reason) if ended != "finished":
            return Message(f"{project}: {ended}", reason)
        case Crashed(error=error):
            return Message(f"{project}: hfagent crashed", f"{error}; go on with hfagent resume {project}")
        case PlannerSwitched(planner=planner, why=why):
            return Message(f"{project}: {planner} plans from here on", why)
    return None


def pipeline_message(event: Event, project: str) -> Message | None:
    """What a person is told of an event of a pipeline; its stages tell of themselves. Pure."""
    match event.fact:
        case Claimed(claim=claim):
            return Message(f"{project}, all stages: {claim.label.replace('_', ' ')}", claim.reason)
        case StageEnded() as fact:
            return Message(f"{project}: stage {fact.number} is {'kept' if fact.kept else 'dropped'}", fact.why)
        case ProjectEnded(state=ended, reason=reason) if ended != "finished":
            return Message(f"{project}: {ended}", reason)
    return None


class Notifier:
    """Sends from a thread of its own."""

    def __init__(self, send: Send, *, warn: Callable[[str], None]):
        """Make one.

        Args:
            send: sends a message.
            warn: told once when that fails.
        """
        self._send = send
        self._warn = warn
        self._waiting: queue.Queue[Message | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def follow(self, event: Event, state: State) -> None:
        """Tell of an event, if a person should know."""
        item = message(event, state)
        if item is not None:
            self.tell(item)

    def close(self) -> None:
        """Give the last messages a moment."""
        self.tell(None)
        self._thread.join(CLOSE_S)

    def tell(self, item: Message | None) -> None:
        """Send a message; None is the last."""
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            self._warn("too many notifications wait to be sent: some are dropped")

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                sent = self._send(Message(cut(redact(item.title), 200), cut(redact(item.body), 1000)))
            except Exception as error:  # noqa: BLE001 - whatever it is, the night goes on
                self._warn(f"a notification could not be sent: {redact(str(error))}")
            else:
                if not sent:
                    self._warn("a notification could not be sent: see HFAGENT_NOTIFY")


def apprise_sender(urls: Sequence[str]) -> Send:
    """Sends by apprise, which knows mail, chat and phone services by URL.

    Raises:
        PackageMissing: apprise is not installed.
        SettingsError: it knows no such URL; the URL itself may hold a password and is not told.
    """
    try:
        import apprise
    except ImportError as error:
        raise PackageMissing(
            'notifications need the package apprise: run `pip install -c constraints.txt -e ".[notify]"`'
        ) from error
    sender = apprise.Apprise()
    for number, url in enumerate(urls, 1):
        if not sender.add(url):
            raise SettingsError(
                f"address {number} of HFAGENT_NOTIFY is not known to apprise: write e.g. mailto://user:password@host"
            )
    return lambda item: bool(sender.notify(title=item.title, body=item.body))
