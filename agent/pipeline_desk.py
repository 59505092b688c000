"""The desk of a pipeline: its open ledger, and the few acts by which it goes on. Every act is appended."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.text import Text

from hfagent.agent import guards, night, pipeline_report, pipeline_rules
from hfagent.agent.data_rules import data_flaw
from hfagent.agent.dataset_records import DatasetReport
from hfagent.agent.errors import DatasetError, HfagentError, LedgerError, ReportError, UsageError
from hfagent.agent.events import (
    Claimed,
    Compared,
    Crashed,
    DatasetChecked,
    Event,
    Fact,
    LookTaken,
    ProjectEnded,
)
from hfagent.agent.folding import fold
from hfagent.agent.guard_facts import GuardCompared
from hfagent.agent.ledger import Ledger, is_confirmed, read
from hfagent.agent.pipeline_facts import ModelExported, StageBegun
from hfagent.agent.pipeline_lines import line
from hfagent.agent.pipeline_rules import Begin, End, GoOn, Judge, Publish
from hfagent.agent.pipeline_state import PipelineState, Stage, apply
from hfagent.agent.pipeline_state import fold as fold_pipeline
from hfagent.agent.ports import Ports
from hfagent.agent.records import Export, Plan
from hfagent.agent.settings import Settings
from hfagent.agent.state import State
from hfagent.agent.verdict import compare
from hfagent.agent.wiring import Paths


class PipelineDesk:
    """Holds a pipeline. The state is always the fold of what the ledger has on disk."""

    def __init__(self, book: Ledger, ports: Ports, settings: Settings, console: Console):
        state = fold_pipeline(book.events)
        if state is None:
            raise UsageError(f"{str(book.path)!r} is the ledger of no pipeline")
        self.state = state
        self._book = book
        self._ports = ports
        self._settings = settings
        self._console = console
        self._paths = Paths(settings.reports_dir, state.pipeline.project)
        self._mailbox = self._paths.mailbox(settings.state_dir)
        self._warned: set[str] = set()
        book.subscribe(self._follow)

    def append(self, fact: Fact) -> None:
        """Write a fact; state, report and terminal follow."""
        self._book.append(fact)

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` after each event."""
        self._book.subscribe(listener)

    def warn(self, text: str) -> None:
        """Show something that went wrong and stops nothing; once, however often it comes."""
        if text not in self._warned:
            self._warned.add(text)
            self._console.print(Text(f"warning: {text}"))

    def check_data(self) -> None:
        """Judge the data of every stage before any of them starts.

        Raises:
            DatasetError: it cannot train with the stage's method.
        """
        for number, plan in enumerate(self.state.pipeline.stages, start=1):
            report = self._checked(plan)
            self.append(DatasetChecked(report=report))
            if (why := data_flaw(plan, report)) is not None:
                raise DatasetError(f"stage {number}: {why}; --dataset takes one dataset for each stage, with commas")

    def work(self) -> PipelineState:
        """Do what is due until nothing is.

        Raises:
            KeyboardInterrupt: Ctrl-C; jobs go on, and the pipeline can be resumed.
            HfagentError: recorded first, in the stage's ledger and in this one.
        """
        with self._recorded():
            while self.state.ended is None:
                self._do(pipeline_rules.due(self.state, self._now, stop=self._mailbox.stop_asked()))
        self._mailbox.clear()
        return self.state

    def stop(self, reason: str) -> None:
        """End the pipeline without beginning or going on with anything; its stage was stopped before."""
        current = self.state.current
        if current is not None:
            known = self._known(current)
            if known is not None and known.ended is not None:
                self.append(pipeline_rules.outcome(current.number, known))
        if self.state.claim is None:
            self._judge()
        kept = f"{len(self.state.carried)} of {len(self.state.pipeline.stages)} stages kept"
        self.append(ProjectEnded(state="stopped", reason=f"{reason}; {kept}"))
        self._mailbox.clear()

    def clear_up(self) -> None:
        """End the jobs that outlived the stages."""
        for stage in self.state.begun:
            known = self._known(stage)
            if known is not None and known.ended is not None and known.outlived:
                paths = Paths(self._settings.reports_dir, stage.plan.project)
                night.resume(paths, self._ports, self._settings, console=self._console)

    # --- inside ------------------------------------------------------------------------------------------------------

    @property
    def _now(self) -> datetime:
        return self._ports.clock.now()

    def _follow(self, event: Event) -> None:
        state = apply(self.state, event)
        if state is not None:
            self.state = state
        text = line(event)
        if text is not None:
            self._console.print(Text(text))
        try:
            pipeline_report.write(self.state, self._paths.report, self._book.head)
        except ReportError as error:
            self.warn(str(error))

    def _checked(self, plan: Plan) -> DatasetReport:
        path = self._ports.datasets.prepare(plan.dataset, rows=plan.train.max_rows, seed=plan.train.seed)
        model = self._ports.models.prepare(plan.model)
        report = self._ports.checker.check(
            plan.dataset.prepared(str(path)),
            model=plan.model.model_copy(update={"id": str(model)}),
            max_length=plan.train.max_length,
        )
        return report.model_copy(update={"dataset": plan.dataset.id})

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        """Errors are told in the ledger, too."""
        try:
            yield
        except LedgerError:
            raise
        except HfagentError as error:
            self.append(Crashed(error=str(error)))
            raise
        except Exception as error:
            self.append(Crashed(error=f"{type(error).__name__}: {error}"))
            raise

    def _do(self, due: pipeline_rules.Due) -> None:
        match due:
            case Begin(number, plan):
                self.append(StageBegun(number=number, plan=plan))
            case GoOn(stage, plan):
                self._work_on(stage, plan)
            case Judge():
                self._judge()
            case Publish(stage, export):
                self._publish(stage, export)
            case End(fact):
                self.append(fact)

    def _work_on(self, stage: Stage, plan: Plan) -> None:
        paths = Paths(self._settings.reports_dir, plan.project)
        ports, settings, console = self._ports, self._settings, self._console
        if paths.ledger.exists() and is_confirmed(paths.ledger):
            state: State | None = night.resume(paths, ports, settings, console=console)
        else:
            state = night.begin(plan, ports, settings, ask=None, console=console)
        assert state is not None  # None is the answer no, and nobody is asked
        self.append(pipeline_rules.outcome(stage.number, state))

    def _known(self, stage: Stage) -> State | None:
        ledger = Paths(self._settings.reports_dir, stage.plan.project).ledger
        return fold(read(ledger)) if ledger.exists() else None

    def _judge(self) -> None:
        """Compare the last good model with the original base model, by the scores that the stages have on record."""
        stages = [known for stage in self.state.begun if (known := self._known(stage)) is not None]
        carried = [known for stage, _ in self.state.carried if (known := self._known(stage)) is not None]
        if not carried:
            self.append(Claimed(claim=pipeline_rules.no_claim(stages, None)))
            return
        first, last = carried[0], carried[-1]
        scores = pipeline_rules.final_scores(first, last)
        if isinstance(scores, str):
            self.append(Claimed(claim=pipeline_rules.no_claim(stages, scores)))
            return
        base, ours = scores
        look = self._look(last)
        verdict = compare(base.outcomes, ours.outcomes, alpha=look.alpha)
        if self.state.verdict is None:
            self.append(Compared(candidate=look.run, reference=None, set="confirm", verdict=verdict))
        told = {guarded.guard for guarded in self.state.guards}
        for guard, lost in guards.between(first, last).items():
            if lost is not None and guard not in told:
                self.append(GuardCompared(guard=guard, candidate=look.run, verdict=lost))
        self.append(Claimed(claim=pipeline_rules.final_claim(verdict, look, stages, base.n)))

    def _look(self, last: State) -> LookTaken:
        """The look of the last good model at the confirm set with the original base model.

        Each model before it that this set was asked about takes one first: any of them might have been the last.
        """
        for stage, ended in self.state.closed[: last.plan.stage.number if last.plan.stage is not None else None]:
            name = f"{stage.plan.project}/{ended.run}"
            if ended.verdict is not None and name not in {taken.run for taken in self.state.looks}:
                self._take(stage, str(ended.run), name)
        return self.state.looks[-1]

    def _take(self, stage: Stage, run: str, name: str) -> None:
        """A look; the stage's own where that began with the original base model."""
        plan, pipeline = stage.plan, self.state.pipeline
        own = plan.model.id == self.state.base.id
        look = self._ports.looks.take(
            self.state.base,
            plan.confirm,
            project=plan.label if own else pipeline.label,
            candidate=run if own else name,
        )
        self.append(LookTaken(run=name, look=look.number, alpha=look.alpha))

    def _publish(self, stage: Stage, export: Export) -> None:
        """Once, for the last good model; jobs that an earlier process began are waited for and not started again."""
        assert self.state.claim is not None
        paths = Paths(self._settings.reports_dir, stage.plan.project)
        first = self._known(self.state.carried[0][0])
        assert first is not None
        asked = pipeline_rules.allowed(export, self.state.claim, pipeline_report.card_text(self.state), first)
        ended = next((ended for done, ended in self.state.closed if done.number == stage.number), None)
        try:
            if isinstance(asked, str):
                raise UsageError(asked)
            # Nothing was exported before the claim.
            state = night.export(
                paths,
                self._ports,
                self._settings,
                asked,
                console=self._console,
                since=self.state.claimed_at,
                allotted=pipeline_rules.allotted(self.state, stage),
            )
        except UsageError as error:
            self.append(ModelExported(number=stage.number, run=None, done=False, message=str(error)))
            return
        before = None if ended is None else ended.spent_micro_usd
        self.append(pipeline_rules.exported(stage.number, state, asked, before))
