"""A project as its ledger on disk tells of it, a night or a pipeline of nights: both answer the same questions."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from rich.table import Table

from hfagent.agent import console as terminal
from hfagent.agent import pipeline_report, pipeline_views, report, summary
from hfagent.agent.errors import UsageError
from hfagent.agent.events import Event
from hfagent.agent.folding import fold
from hfagent.agent.ledger import is_held, read
from hfagent.agent.pipeline_state import PipelineState
from hfagent.agent.pipeline_state import fold as fold_pipeline
from hfagent.agent.records import Plan
from hfagent.agent.runs import Run
from hfagent.agent.state import State
from hfagent.agent.wiring import Paths


class Project(Protocol):
    """What people and programs ask of a project."""

    @property
    def plan(self) -> Plan:
        """Where its jobs are."""
        ...

    @property
    def live(self) -> State | None:
        """The night itself, or the pipeline's newest stage; None before one is planned."""
        ...

    @property
    def over(self) -> str | None:
        """How it ended; None while it has not."""
        ...

    def phase(self, *, held: bool) -> str:
        """running, waiting, finished, failed or stopped."""
        ...

    def table(self, now: datetime) -> Table:
        """Runs or stages."""
        ...

    def closing(self, now: datetime, *, held: bool) -> str:
        """The last block of a run."""
        ...

    def summary(self, *, held: bool) -> dict[str, Any]:
        """What `--json` prints."""
        ...

    def report(self) -> str:
        """Markdown."""
        ...

    def runs(self) -> Mapping[str, Run]:
        """Every run by its name."""
        ...


class NightProject:
    """One night."""

    def __init__(self, paths: Paths, state: State):
        self.paths = paths
        self.state = state

    @property
    def plan(self) -> Plan:
        """Its own."""
        return self.state.plan

    @property
    def live(self) -> State | None:
        """Its state."""
        return self.state

    @property
    def over(self) -> str | None:
        """How it ended."""
        return None if self.state.ended is None else self.state.ended.state

    def phase(self, *, held: bool) -> str:
        """See `summary.phase`."""
        return summary.phase(self.state, held=held)

    def table(self, now: datetime) -> Table:
        """Its runs."""
        return terminal.run_table(self.state, now)

    def closing(self, now: datetime, *, held: bool) -> str:
        """See `console.closing`."""
        return terminal.closing(self.state, self.paths, now, held=held)

    def summary(self, *, held: bool) -> dict[str, Any]:
        """See `summary.summary`."""
        return summary.summary(self.state, report=self.paths.report, ledger=self.paths.ledger, held=held)

    def report(self) -> str:
        """With the plots and the notes that lie beside it."""
        return report.current(self.state, self.paths.report)

    def runs(self) -> Mapping[str, Run]:
        """Its runs."""
        return self.state.runs


class PipelineProject:
    """Several nights, one after the other."""

    def __init__(self, paths: Paths, state: PipelineState):
        self.paths = paths
        self.state = state

    @property
    def plan(self) -> Plan:
        """Of the first stage: all stages have their jobs in one place."""
        return self.state.pipeline.stages[0]

    @property
    def live(self) -> State | None:
        """The newest stage."""
        return self._stage(self.state.begun[-1].plan.project) if self.state.begun else None

    @property
    def over(self) -> str | None:
        """How it ended."""
        return None if self.state.ended is None else self.state.ended.state

    def heading(self, *, held: bool) -> str:
        """Where it stands, in a line; the words for its claim once it is made."""
        claim = self.state.claim
        end = "" if self.state.ended is None else f": {self.state.ended.reason}"
        said = "" if claim is None else f"; {claim.label.replace('_', ' ')}: {claim.reason}"
        return f"{self.paths.project}  {self.phase(held=held)}{end}{said}"

    def phase(self, *, held: bool) -> str:
        """See `pipeline_views.phase`."""
        return pipeline_views.phase(self.state, held=held)

    def table(self, now: datetime) -> Table:
        """Its stages."""
        return pipeline_views.stage_table(self.state)

    def closing(self, now: datetime, *, held: bool) -> str:
        """See `pipeline_views.closing`."""
        return pipeline_views.closing(self.state, self.paths, now, held=held, live=self.live)

    def summary(self, *, held: bool) -> dict[str, Any]:
        """See `pipeline_views.summary`."""
        return pipeline_views.summary(self.state, self.paths, held=held, live=self.live)

    def report(self) -> str:
        """With the notes in its file."""
        return pipeline_report.current(self.state, self.paths.report)

    def runs(self) -> Mapping[str, Run]:
        """Of all stages: a name alone is the newest stage's, `project/run` any stage's."""
        found: dict[str, Run] = {}
        for stage in self.state.begun:
            known = self._stage(stage.plan.project)
            for name, run in () if known is None else known.runs.items():
                found |= {name: run, f"{stage.plan.project}/{name}": run}
        return found

    def _stage(self, project: str) -> State | None:
        ledger = Paths(self.paths.reports, project).ledger
        return fold(read(ledger)) if ledger.exists() else None


def known(paths: Paths) -> NightProject | PipelineProject:
    """The project of a ledger.

    Raises:
        UsageError: it has no plan yet.
        LedgerError: it cannot be read.
    """
    found = _project(paths, read(paths.ledger))
    if found is None:
        raise UsageError(f"the ledger {str(paths.ledger)!r} has no plan yet")
    return found


def _project(paths: Paths, events: list[Event]) -> NightProject | PipelineProject | None:
    pipeline = fold_pipeline(events)
    if pipeline is not None:
        return PipelineProject(paths, pipeline)
    state = fold(events)
    return None if state is None else NightProject(paths, state)


class Watched(NamedTuple):
    """What a screen shows of a project."""

    state: State
    """The night, or the pipeline's newest stage."""
    paths: Paths
    """Of that night."""
    pipeline: str | None
    """A line about the pipeline; None where it is a night alone."""


def watched(paths: Paths) -> Watched | None:
    """What a screen shows; None before there is a plan.

    Raises:
        LedgerError: a ledger cannot be read.
    """
    found = _project(paths, read(paths.ledger))
    state = None if found is None else found.live
    if found is None or state is None:
        return None
    lead = found.heading(held=is_held(paths.ledger)) if isinstance(found, PipelineProject) else None
    return Watched(state, Paths(paths.reports, state.plan.project), lead)
