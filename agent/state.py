"""What is known about a project: a pure fold over its events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from hfagent.agent.dataset_records import DatasetReport
from hfagent.agent.events import Event, LookTaken, NoiseMeasured, ProjectEnded, Proposed, Refused
from hfagent.agent.growing import Growing, Layered
from hfagent.agent.guard_facts import GuardCompared
from hfagent.agent.integrity import ContaminationReport
from hfagent.agent.records import (
    Claim,
    DatasetRef,
    Decision,
    Plan,
    ProblemSet,
    Refusal,
)
from hfagent.agent.runs import Attempt, Comparison, Run, Stray, Taken
from hfagent.agent.wishes import Wishes


@dataclass(frozen=True)
class State:
    """Everything a policy, a planner or a report may know."""

    plan: Plan
    started_at: datetime
    updated_at: datetime
    versions: Mapping[str, str] = field(default_factory=dict)
    confirmed: bool = False
    model_path: str | None = None
    vocab_size: int | None = None
    teacher_path: str | None = None
    data_path: str | None = None
    data_cleaned: bool = False
    """Whether the path is a copy without the rows that hold benchmark problems."""
    data_source: str | None = None
    """The path before that: the Hub id of a dataset that is there."""
    data_made: bool = False
    """Whether the model has made the data itself."""
    data_sha256: str | None = None
    """Of the rows that it made, while they are what is trained on."""
    source: DatasetReport | None = None
    """What was found about the plan's dataset, where the data that is trained on was made of its prompts."""
    dataset: DatasetReport | None = None
    contamination: ContaminationReport | None = None
    runs: Layered[Run] = field(default_factory=Layered)
    proposals: tuple[Proposed, ...] = ()
    """Sets of hyperparameters beyond the plan's own, oldest first."""
    harness: Mapping[ProblemSet, str] = field(default_factory=dict)
    """Harness of the scores that count."""
    epochs: Mapping[ProblemSet, int] = field(default_factory=dict)
    """How often the harness of a set was new, the first time included."""
    search_ended: str | None = None
    """Why no further set of hyperparameters is tried, once the confirmation has begun."""
    noise: NoiseMeasured | None = None
    looks: tuple[LookTaken, ...] = ()
    guards: tuple[GuardCompared, ...] = ()
    claim: Claim | None = None
    comparisons: tuple[Comparison, ...] = ()
    decisions: tuple[Taken, ...] = ()
    incidents: Growing[Event] = field(default_factory=Growing)
    """What the decision log tells beside verdicts and decisions: refusals, flags, looks, resumes, crashes, ..."""
    wakes: int = 0
    tokens: int | None = None
    """Planner tokens; None when no planner reported any."""
    planner_micro_usd: int = 0
    """What the planner's tokens cost, as far as a price is set."""
    stand_in: str | None = None
    """Why the rules plan in place of a model; None while they do not."""
    wishes: Wishes = field(default_factory=Wishes)
    """Of a person."""
    strays: Mapping[str, Stray] = field(default_factory=dict)
    """Second jobs of a key, and jobs that the ledger knew nothing of, by their id."""
    backend_lost: str | None = None
    """Why the place where jobs run does not answer; None while it does."""
    warned: frozenset[str] = frozenset()
    """Limits that were told to be near."""
    crash: str | None = None
    """What ended the last process; None once the project was resumed."""
    ended: ProjectEnded | None = None
    ended_at: datetime | None = None

    @property
    def data(self) -> DatasetRef:
        """What is trained on, where it can be read."""
        if self.data_path is not None and (self.data_cleaned or self.data_made):
            return DatasetRef(id=self.data_path)
        return self.plan.dataset.prepared(self.data_path or self.plan.dataset.id)

    @property
    def open_attempts(self) -> tuple[Attempt, ...]:
        """Jobs that run or may run."""
        return tuple(attempt for run in self.runs.values() for attempt in run.attempts if attempt.open)

    @property
    def outlived(self) -> bool:
        """Whether the project has ended and a job of it may still run."""
        return self.ended is not None and bool(self.open_attempts or any(s.open for s in self.strays.values()))

    @property
    def billed(self) -> list[Attempt | Stray]:
        """Jobs that have ended and were not rejected: their cost is known, or their reserve stands for it."""
        attempts = [attempt for run in self.runs.values() for attempt in run.attempts]
        jobs: list[Attempt | Stray] = [*attempts, *self.strays.values()]
        return [job for job in jobs if not job.open and job.stage != "REJECTED"]

    @property
    def spent_micro_usd(self) -> int | None:
        """Cost of all ended jobs and of the planner; None when that of a job is unknown."""
        costs = [job.cost_micro_usd for job in self.billed]
        return None if None in costs else sum(cost for cost in costs if cost is not None) + self.planner_micro_usd

    @property
    def held_micro_usd(self) -> int:
        """Worst-case cost of all open jobs."""
        specs = [attempt.job for attempt in self.open_attempts]
        specs += [stray.job for stray in self.strays.values() if stray.open]
        return sum(spec.reserve_micro_usd for spec in specs)

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """What policy refused, oldest first."""
        return tuple(event.fact.refusal for event in self.incidents if isinstance(event.fact, Refused))

    @property
    def trained(self) -> list[Run]:
        """Training runs, oldest first."""
        return [run for run in self.runs.values() if run.spec.kind == "train"]

    @property
    def kept(self) -> str | None:
        """The training run that was kept, if any."""
        for taken in reversed(self.decisions):
            if taken.decision.action == "keep":
                return taken.decision.run
        return None

    def search_scores(self) -> dict[str, float]:
        """Training run -> its score on the whole search set, by the harness that counts."""
        found = {run.spec.name: self.scored(run.spec.name, "search") for run in self.trained}
        scores = {name: run.score for name, run in found.items() if run is not None}
        return {name: score.value for name, score in scores.items() if score is not None and score.complete}

    def rung(self, name: str) -> dict[str, float]:
        """Search scores of the other runs that were extended as often as this one: only they had as much training."""
        depth, line = self.extensions(name), self.line(name)
        return {
            other: score
            for other, score in self.search_scores().items()
            if other not in line and self.extensions(other) == depth
        }

    def extensions(self, name: str) -> int:
        """How many times the line of a training run was extended up to this run."""
        return sum(self.runs[run].spec.parent is not None for run in self.line(name))

    def restarts(self, name: str) -> int:
        """How many times a training run was begun again with changed hyperparameters."""
        before = self.runs[name].spec.instead_of
        return 0 if before is None else 1 + self.restarts(before)

    @property
    def trials(self) -> list[Run]:
        """First runs of each set of hyperparameters, oldest first."""
        return [run for run in self.trained if run.spec.parent is None and run.spec.instead_of is None]

    @property
    def plan_tried(self) -> bool:
        """Whether the plan's own set of hyperparameters was begun, or vetoed."""
        return bool(self.trials) or root_name(self.plan.method, 1) in self.wishes.vetoed

    @property
    def pending(self) -> Proposed | None:
        """The newest proposal, while no run was made of it."""
        if not self.proposals:
            return None
        name = root_name(self.plan.method, self.proposals[-1].number)
        if name in self.runs or name in self.wishes.vetoed:
            return None
        return self.proposals[-1]

    def scored(self, subject: str | None, problems: ProblemSet) -> Run | None:
        """The evaluation of a training run (None: the base model) on a problem set by the harness that counts."""
        return self._scored.get((subject, problems))

    @cached_property
    def _scored(self) -> dict[tuple[str | None, ProblemSet], Run]:
        found: dict[tuple[str | None, ProblemSet], Run] = {}
        for run in self.runs.values():
            spec, score = run.spec, run.score
            if spec.set is None or spec.repeat or score is None or score.harness != self.harness.get(spec.set):
                continue
            found.setdefault((spec.subject, spec.set), run)
        return found

    def line(self, name: str) -> list[str]:
        """A training run and those that it extends or replaces, newest first."""
        found = [name]
        while (before := self.runs[found[-1]].spec.parent or self.runs[found[-1]].spec.instead_of) is not None:
            found.append(before)
        return found

    def root(self, name: str) -> str:
        """The first run of a training run's line."""
        return self.line(name)[-1]

    def comparison(self, candidate: str, reference: str | None, problems: ProblemSet) -> Comparison | None:
        """The newest verdict on a candidate, if one was reached; it may be by a harness that counts no more."""
        for item in reversed(self.comparisons):
            fact = item.fact
            if (fact.candidate, fact.reference, fact.set) == (candidate, reference, problems):
                return item
        return None

    def compared(self, candidate: str, reference: str | None, problems: ProblemSet) -> bool:
        """Whether a candidate was compared by the harness that counts."""
        found = self.comparison(candidate, reference, problems)
        return found is not None and found.harness == self.harness.get(problems)

    def given_up(self, run: str) -> bool:
        """Whether the newest decision about a training run is that nothing more comes of it."""
        decision = self.decision_on(run)
        return decision is not None and decision.action in ("discard", "stop")

    def decision_on(self, run: str) -> Decision | None:
        """The newest decision about a training run."""
        return next((taken.decision for taken in reversed(self.decisions) if taken.about == run), None)


def root_name(method: str, number: int) -> str:
    """Name of the first training run of a set of hyperparameters; 1 is the plan's own."""
    return f"{method}-{number:02d}"
