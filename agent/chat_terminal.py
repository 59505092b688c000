"""The chat at a terminal: line editing, history, completion, and news of the night between the lines."""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from hfagent.agent import lines
from hfagent.agent.chat import COMMANDS, Chat
from hfagent.agent.console import stdout_console
from hfagent.agent.errors import HfagentError
from hfagent.agent.folding import apply
from hfagent.agent.ledger import read
from hfagent.agent.project import watched
from hfagent.agent.settings import Settings
from hfagent.agent.wiring import require_writable

NEWS = frozenset(
    {
        "scored",
        "compared",
        "decided",
        "flagged",
        "claimed",
        "project_ended",
        "crashed",
        "approval_asked",
        "planner_switched",
    }
)
"""Kinds of events that are told while nobody asks."""
NEWS_S = 1.0


def converse(settings: Settings) -> int:
    """Talk until the person leaves. Without a terminal the lines of stdin are answered, one after the other."""
    if not sys.stdin.isatty():
        return _answer_all(settings)
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.patch_stdout import patch_stdout

    require_writable(settings.state_dir, "--state-dir")
    history = FileHistory(str(settings.state_dir / "chat_history"))
    words = WordCompleter(list(COMMANDS), sentence=True)
    session: PromptSession[str] = PromptSession(history=history, completer=words, complete_while_typing=False)
    chat = Chat(settings, stdout_console(), pid=os.getpid())
    with patch_stdout(raw=True):
        chat.console.file = sys.stdout
        print("hfagent: say what to achieve, or /help. A night goes on when you leave.")  # noqa: T201 - the result
        news = News(chat)
        news.start()
        try:
            while True:
                try:
                    line = session.prompt("start? " if chat.waiting else "> ")
                except KeyboardInterrupt:
                    print("(nothing was stopped; /stop ends the night, /quit leaves it running)")  # noqa: T201
                    continue
                except EOFError:
                    return 0
                try:
                    if not chat.say(line):
                        return 0
                except KeyboardInterrupt:
                    print("(interrupted; a night that runs goes on)")  # noqa: T201 - the result
        finally:
            news.stop()
            chat.close()


def _answer_all(settings: Settings) -> int:
    chat = Chat(settings, stdout_console(), pid=os.getpid())
    try:
        for line in sys.stdin:
            if not chat.say(line):
                break
    finally:
        chat.close()
    return 0


class News:
    """Tells what happens in the project that is talked about, from its ledger."""

    def __init__(self, chat: Chat, *, say: Callable[[str], None] = print):
        self._chat = chat
        self._say = say
        self._over = threading.Event()
        self._seen: dict[Path, int] = {}

    def start(self) -> None:
        """Begin with what happens from now on."""
        self.look(quiet=True)
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Be quiet."""
        self._over.set()

    def look(self, *, quiet: bool = False) -> None:
        """Tell what is new since the last look; of a project that was not looked at before, everything.

        Args:
            quiet: remember only.
        """
        try:
            found = watched(self._chat.paths())
            if found is None:
                return
            path = found.paths.ledger
            events = read(path)
        except (HfagentError, OSError):
            return
        known, state = self._seen.get(path, 0), None
        self._seen[path] = len(events)
        if quiet or known == len(events):
            return
        for event in events:
            state = apply(state, event)
            if event.seq > known and event.fact.kind in NEWS and state is not None:
                self._say(lines.line(event, state) or event.fact.kind)

    def _run(self) -> None:
        while not self._over.wait(NEWS_S):
            self.look()
