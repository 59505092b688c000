"""`hfagent watch`: a live screen of a night, from its ledger alone. It reads, and changes nothing."""

from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import DataTable, Footer, Static

from hfagent.agent.chat_views import losses_view
from hfagent.agent.console import money_text, time_text
from hfagent.agent.errors import LedgerError
from hfagent.agent.ledger import is_held
from hfagent.agent.project import Watched, watched
from hfagent.agent.redact import redact
from hfagent.agent.view import view
from hfagent.agent.wiring import Paths

LOOK_S = 1.0
COLUMNS = ("run", "kind", "stage", "progress", "score", "vs base", "time", "decision")
STYLES = {"COMPLETED": "green", "RUNNING": "bold", "ERROR": "red", "CANCELED": "red", "REJECTED": "red"}


class WatchScreen(App[None]):
    """Runs, curves, budget and decisions."""

    TITLE = "hfagent"
    BINDINGS: ClassVar[list[BindingType]] = [("q", "quit", "leave; the night goes on")]
    CSS = """
    #head { height: auto; padding: 0 1; }
    #runs { height: 1fr; min-height: 6; }
    #below { height: 20; }
    #curves { width: 78; padding: 0 1; }
    #decisions { width: 1fr; padding: 0 1; }
    """

    def __init__(self, paths: Paths):
        super().__init__()
        self._project_paths = paths
        self._seen: tuple[Path, int] | None = None

    def compose(self) -> ComposeResult:
        """Head, runs, and below them curves beside decisions."""
        yield Static(id="head")
        yield DataTable(id="runs", cursor_type="row", zebra_stripes=True)
        with Horizontal(id="below"):
            yield Static(id="curves")
            with VerticalScroll(id="decisions"):
                yield Static(id="decided")
        yield Footer()

    def on_mount(self) -> None:
        """Look now, and every second."""
        self.query_one(DataTable).add_columns(*COLUMNS)
        self.look()
        self.set_interval(LOOK_S, self.look)

    def look(self) -> None:
        """Show the ledger as it is."""
        try:
            found = watched(self._project_paths)
        except LedgerError:
            return
        if found is not None:
            self._show(found)

    def _show(self, found: Watched) -> None:
        state, ledger = found.state, found.paths.ledger
        shown = view(state, datetime.now(UTC), held=is_held(ledger), pipeline=found.pipeline)
        budget = shown["budget"]
        cap = "no cap" if budget["cap_usd"] is None else f"of ${budget['cap_usd']:.2f}"
        left = "no limit" if budget["left_s"] is None else f"{time_text(budget['left_s'])} left"
        reason = shown["reason"] or ""
        head = Text() if found.pipeline is None else Text(f"{redact(found.pipeline)}\n", "bold")
        head.append_text(Text.assemble((f"{shown['project']}  ", "bold"), (shown["phase"], "cyan"), f"  {reason}\n"))
        head.append(f"{shown['goal'].splitlines()[0][:120]}\n", "dim")
        head.append(f"verdict  {shown['verdict']}\n")
        for run in shown["waits_for"]:
            head.append(f"{run} waits for your approval: hfagent chat, /approve\n", "yellow")
        spent, held = money_text(state.spent_micro_usd), money_text(state.held_micro_usd)
        head.append(f"{spent} spent, {held} held, {cap}; {time_text(budget['taken_s'])} taken, {left}", "dim")
        self.query_one("#head", Static).update(head)
        table = self.query_one(DataTable)
        table.clear()
        for run in shown["runs"]:
            delta = "" if run["delta"] is None else f"{100 * run['delta']:+.1f}"
            table.add_row(
                Text(run["name"], style="bold"),
                run["kind"],
                Text(run["stage"], style=STYLES.get(run["stage"], "")),
                run["progress"],
                "" if run["score"] is None else f"{run['score']:.3f} (n={run['n']})",
                delta,
                "" if run["seconds"] is None else time_text(run["seconds"]),
                run["decision"] or "",
            )
        seen = ledger, ledger.stat().st_size
        if seen != self._seen:
            self._seen = seen
            self.query_one("#curves", Static).update(losses_view(state, None))
            self.query_one("#decided", Static).update(_decisions(shown["decisions"]))


def _decisions(taken: list[dict[str, str]]) -> Text:
    text = Text()
    for item in reversed(taken):
        text.append(f"{item['about']}: {item['action']}", "bold")
        text.append(f"  {item['rule']}\n", "dim")
        text.append(f"{redact(item['reason'])}\n\n")
    return text if taken else Text("Nothing was decided yet.", style="dim")
