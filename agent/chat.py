"""The conversation: sentences and slash commands about projects, while a night runs in another process."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console, RenderableType
from rich.markdown import Markdown
from rich.text import Text

from hfagent.agent import chat_views as views
from hfagent.agent import planning, wiring
from hfagent.agent.chat_words import Intent, read_intent
from hfagent.agent.console import dataset_view, from_here, plan_text
from hfagent.agent.control import MAX_TEXT, Ask, Request
from hfagent.agent.errors import HfagentError, UsageError
from hfagent.agent.estimate import data_size
from hfagent.agent.goal_export import read_export
from hfagent.agent.ledger import is_held
from hfagent.agent.pipeline_facts import Pipeline
from hfagent.agent.pipeline_views import pipeline_text
from hfagent.agent.plan import Flags
from hfagent.agent.ports import Ports
from hfagent.agent.project import NightProject, PipelineProject, known
from hfagent.agent.records import DatasetRef, Plan, Refusal
from hfagent.agent.report_release import export_text
from hfagent.agent.session import Session
from hfagent.agent.settings import Settings
from hfagent.agent.state import State
from hfagent.agent.wiring import Paths

HELP = """Say what to achieve, e.g. "improve code solving with SFT", or ask: "Are models outperforming the base model?"
  /status /runs      where the night stands           /why [run]         decisions with their numbers
  /results           models against the base model    /losses [run]      loss curves
  /budget            money and time                   /report            the report
  /pause /resume     launch nothing for a while       /approve [run]     say yes to a training run
  /veto [run] [why]  say no to one                    /steer <text>      something to keep in mind
  /stop              end the night                    /project [name]    which one is talked about
  /model [name]      who plans: rules, openai:<model>, hf:<model>, or a url
  /quit              leave; a night goes on without you"""
COMMANDS = (
    "/status", "/runs", "/results", "/why", "/losses", "/budget", "/report", "/pause", "/resume", "/approve", "/veto",
    "/steer", "/stop", "/project", "/model", "/help", "/quit",
)  # fmt: skip


class Chat:
    """Answers one line at a time. It holds a plan that waits for a yes, and nothing else: nights are on disk."""

    def __init__(
        self, settings: Settings, console: Console, *, ports: Callable[[Settings], Ports] = wiring.night_ports, pid: int
    ):
        """Make one.

        Args:
            settings: folders, limits and planner of the nights that are started here.
            console: for the answers.
            ports: makes the outside world of a night.
            pid: of this process.
        """
        self.settings = settings
        self.console = console
        self.project: str | None = None
        """The one that is talked about; None is the newest."""
        self._ports = ports
        self._session = Session(settings, ports, pid=pid)
        self._asked: Plan | Pipeline | None = None
        self._dataset: str | None = None
        self._model: str | None = None

    def say(self, line: str) -> bool:
        """Answer a line.

        Returns:
            Whether the conversation goes on.
        """
        try:
            return self._answer(line.strip())
        except (HfagentError, ValueError) as error:
            self.console.print(Text(str(error), style="fail"))
            return True

    def close(self) -> None:
        """Drop a plan that nobody said yes to."""
        self._session.close()

    @property
    def waiting(self) -> bool:
        """Whether a plan waits for a yes."""
        return self._asked is not None

    def paths(self) -> Paths:
        """Of the project that is talked about.

        Raises:
            UsageError: there is none.
        """
        return wiring.find_project(self.settings.reports_dir, self.project)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _answer(self, line: str) -> bool:  # noqa: C901 - one flat arm an intent
        if not line:
            return True
        if line.startswith("/"):
            word, _, rest = line.partition(" ")
            return self._command(word.lower(), rest.strip())
        intent = read_intent(line)
        self._dataset, self._model = intent.dataset or self._dataset, intent.model or self._model
        if self._asked is not None:
            return self._plan_answered(intent, line)
        match intent.kind:
            case "quit":
                return False
            case "check":
                self._check(intent)
            case "preprocess":
                self._preprocess(intent)
            case "goal" if line.endswith("?") and self.settings.planner != "rules":
                self._ask_model(line)
            case "goal":
                self._plan(line, intent)
            case "yes" | "no":
                self._print("There is no plan to answer to: say what to achieve.")
            case "export":
                self._export(line)
            case "stop" | "pause" | "resume" | "approve":
                self._ask(intent.kind, None, "")
            case "help":
                self._print(HELP)
            case "compare" | "status" | "why" | "budget" | "losses":
                self._show(intent.kind, None)
        return True

    def _command(self, word: str, rest: str) -> bool:  # noqa: C901 - one flat arm a command
        first, _, more = rest.partition(" ")
        match word:
            case "/quit" | "/exit":
                return False
            case "/help":
                self._print(HELP)
            case "/status" | "/runs":
                self._show("status", None)
            case "/results":
                self._show("compare", None)
            case "/why" | "/losses":
                self._show("why" if word == "/why" else "losses", first or None)
            case "/budget":
                self._show("budget", None)
            case "/report":
                self.console.print(Markdown(self._project().report()))
            case "/pause" | "/resume" | "/stop":
                asked: dict[str, Ask] = {"/pause": "pause", "/resume": "resume", "/stop": "stop"}
                self._ask(asked[word], None, rest)
            case "/approve":
                self._ask("approve", first or None, "")
            case "/veto":
                named = re.fullmatch(r"[a-z]+-\d+\S*", first) is not None
                self._ask("veto", first if named else None, more if named else rest)
            case "/steer":
                if not rest:
                    raise UsageError("say what to keep in mind: /steer prefer lower learning rates")
                self._ask("steer", None, rest)
            case "/project":
                self._choose(rest)
            case "/model":
                self._choose_model(rest)
            case _:
                self._print(f"there is no command {word}; /help lists them")
        return True

    def _plan(self, goal: str, intent: Intent) -> None:
        wiring.preflight(self.settings)
        quick = "quick" in goal.lower() or "test run" in goal.lower()
        # What was talked about before is meant where the sentence is silent.
        dataset = self._dataset if intent.dataset is None and quick else None
        model = self._model if intent.model is None and quick else None
        self._print("planning ...")
        self._session.plan(goal, Flags(quick=quick, dataset=dataset, model=model))
        offered = self._session.offered
        if offered is not None:
            self._asked = offered.state.pipeline
            self._print(pipeline_text(offered.state.pipeline, offered.state))
            self._print("Start? yes, or no")
            return
        with self._session.desk() as desk:
            state = desk.state
        self._asked = state.plan
        self._print(plan_text(state.plan, state.dataset, data=data_size(state.dataset)))
        self._print("Start? yes, or no")

    def _export(self, line: str) -> None:
        """Merge, convert and push the kept model of the project that is talked about."""
        from hfagent.agent import night, pipeline

        what, _ = read_export(line)
        if what is None:
            raise UsageError("say what to make of the model: convert it to GGUF, or push it to user/name")
        if what.push is not None and not planning.hub_answers():
            raise UsageError(f"the Hub does not answer, so nothing can be pushed to {what.push!r}")
        paths, project = self.paths(), self._project()
        settings = wiring.as_planned(self.settings, project.plan)
        planning.require_export(what, project.plan, settings)
        self._print("exporting ...")
        export = pipeline.export if isinstance(project, PipelineProject) else night.export
        self._print(export_text(export(paths, self._ports(settings), settings, what, console=self.console)))

    def _ask_model(self, question: str) -> None:
        from hfagent.agent.answer import answer
        from hfagent.agent.planners import impatient_model

        self._print(answer(question, self._state(), impatient_model(self.settings), datetime.now(UTC)))

    def _plan_answered(self, intent: Intent, line: str) -> bool:
        self._asked = None
        if intent.kind != "yes":
            self._session.close()
            self._print("Nothing was started.")
            # Words such as "cancel" were about the plan, never about a night that runs.
            meant = intent.kind in ("no", "stop", "pause", "resume", "approve")
            return intent.kind != "quit" if meant or intent.kind == "quit" else self._answer(line)
        try:
            self._session.start()
            handed = self._session.hand_over()
        except HfagentError:
            self._session.close()
            raise
        self.project = handed.project
        self._print(f"{handed.project} runs in a process of its own ({handed.pid}); it goes on when you leave.")
        return True

    def _check(self, intent: Intent) -> None:
        self._print("reading a sample ...")
        found = planning.check_data(DatasetRef(id=str(intent.dataset)), self.settings, method=intent.method)
        self.console.print(dataset_view(found))

    def _preprocess(self, intent: Intent) -> None:
        source = intent.dataset or self._dataset
        if source is None:
            raise UsageError("say which dataset: e.g. Preprocess data.jsonl to use 'a' and 'b' instead of 'c' and 'd'")
        made = planning.derive(DatasetRef(id=source), intent.columns, self.settings)
        self._dataset = made.path
        self._print(f"{made.rows} rows, columns {', '.join(made.before)} -> {', '.join(made.after)}")
        self._print(f"written to {from_here(Path(made.path))}, how it was made to {from_here(Path(made.recipe))}")
        found = planning.check_data(DatasetRef(id=made.path), self.settings)
        self.console.print(dataset_view(found))

    def _show(self, what: str, run: str | None) -> None:
        now, project = datetime.now(UTC), self._project()
        if isinstance(project, PipelineProject):
            self._print(project.heading(held=is_held(self.paths().ledger)))
            self.console.print(project.table(now))
        state = self._state()
        shown: RenderableType
        if what == "status":
            shown = views.status_view(state, now, held=is_held(self.paths().ledger))
        elif what == "compare":
            shown = views.comparisons_view(state)
        elif what == "why":
            shown = views.why_view(state, run)
        elif what == "budget":
            shown = views.budget_view(state, now)
        else:
            shown = views.losses_view(state, run)
        self.console.print(shown)

    def _ask(self, what: Ask, run: str | None, text: str) -> None:
        from hfagent.agent import night, pipeline

        paths, project = self.paths(), self._project()
        if project.over is not None:
            raise UsageError(f"{paths.project} is {project.over} already")
        if not project.state.confirmed:
            raise UsageError(f"{paths.project} has not started")
        live = project.live
        if what == "approve" and run is None and not (live is not None and live.wishes.waiting):
            raise UsageError("no training run waits for approval")
        settings = wiring.as_planned(self.settings, project.plan)
        ask = pipeline.ask if isinstance(project, PipelineProject) else night.ask
        done = ask(paths, self._ports(settings), settings, Request(ask=what, run=run, text=text[:MAX_TEXT]))
        if isinstance(done, Refusal):
            raise UsageError(f"{done.what}: {done.why}")
        when = "will be heeded within seconds" if done else "done"
        self._print(f"{paths.project}: {what} {when}")

    def _choose(self, name: str) -> None:
        if name:
            self.project = wiring.find_project(self.settings.reports_dir, name).project
        self._print(f"talking about {self.paths().project}")

    def _choose_model(self, name: str) -> None:
        from hfagent.agent.planners import require_planner

        if name:
            chosen = self.settings.model_copy(update={"planner": name})
            require_planner(chosen)
            self.settings = self._session.settings = chosen
        self._print(f"nights that are started here are planned by {self.settings.planner}")

    def _project(self) -> NightProject | PipelineProject:
        return known(self.paths())

    def _state(self) -> State:
        """Of the night that is talked about; of a pipeline its newest stage's."""
        state = self._project().live
        if state is None:
            raise UsageError(f"no stage of {self.paths().project} was begun yet")
        return state

    def _print(self, text: str) -> None:
        self.console.print(Text(text))
