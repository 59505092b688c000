"""The facts that a ledger holds: each is appended once and never changed.

A line of the ledger is one fact with `seq`, `at`, `prev` (see `chain`) and `kind` before its own fields.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from hfagent.agent.backend_facts import BackendFact
from hfagent.agent.dataset_records import DatasetReport
from hfagent.agent.findings import Flag, Response
from hfagent.agent.guard_facts import GuardCompared
from hfagent.agent.integrity import ContaminationReport
from hfagent.agent.pipeline_facts import PipelineFact
from hfagent.agent.planner_facts import PlannerFact
from hfagent.agent.records import (
    Claim,
    Decision,
    JobSpec,
    JobStage,
    MetricPoint,
    Plan,
    ProblemSet,
    Record,
    Refusal,
    RunSpec,
    Score,
    TrainConfig,
)
from hfagent.agent.upkeep_facts import UpkeepFact
from hfagent.agent.verdict import Verdict


class PlanMade(Record):
    """A goal became a plan."""

    kind: Literal["plan_made"] = "plan_made"
    plan: Plan
    versions: dict[str, str]
    """Package -> version, of hfagent and of what its jobs use."""


class PlanConfirmed(Record):
    """Somebody said yes: from here on jobs may start."""

    kind: Literal["plan_confirmed"] = "plan_confirmed"
    by: Literal["--yes", "terminal", "agent", "pipeline"]


class Resumed(Record):
    """A new hfagent process took the project over."""

    kind: Literal["resumed"] = "resumed"
    pid: int


class ModelPrepared(Record):
    """The base model can be loaded."""

    kind: Literal["model_prepared"] = "model_prepared"
    path: str
    """What `from_pretrained` takes."""
    vocab_size: int | None = None
    """Tokens that it chooses from; None while its configuration is not on this machine."""
    teacher: str | None = None
    """What `from_pretrained` takes for the plan's teacher; None without one."""


class DataPrepared(Record):
    """The dataset can be read by a job."""

    kind: Literal["data_prepared"] = "data_prepared"
    path: str
    """What the train template's `--dataset` takes."""
    cleaned: bool = False
    """Whether it is a copy without the rows that hold benchmark problems: one file, so without config and split."""
    made: bool = False
    """Whether the model that is trained has made it, from the prompts of the plan's dataset."""
    sha256: str | None = None
    """Of the rows that it made."""


class DatasetChecked(Record):
    """The dataset was judged for every method."""

    kind: Literal["dataset_checked"] = "dataset_checked"
    report: DatasetReport


class ContaminationChecked(Record):
    """The training rows were compared with every benchmark problem, before anything was trained on them."""

    kind: Literal["contamination_checked"] = "contamination_checked"
    report: ContaminationReport


class JobIntended(Record):
    """A job will be submitted under this key, and its worst-case cost is reserved. Written before the submit."""

    kind: Literal["job_intended"] = "job_intended"
    run: RunSpec
    job: JobSpec


class JobSubmitted(Record):
    """The runner has the job."""

    kind: Literal["job_submitted"] = "job_submitted"
    key: str
    job_id: str
    url: str


class JobRejected(Record):
    """The runner did not take the job; nothing runs and the reserve is released."""

    kind: Literal["job_rejected"] = "job_rejected"
    key: str
    message: str


class JobStarted(Record):
    """The job left the queue."""

    kind: Literal["job_started"] = "job_started"
    key: str
    started_at: datetime


class MetricsLogged(Record):
    """New rows of a training run."""

    kind: Literal["metrics_logged"] = "metrics_logged"
    run: str
    points: tuple[MetricPoint, ...]


class JobEnded(Record):
    """A job reached a terminal stage; its cost replaces the reserve."""

    kind: Literal["job_ended"] = "job_ended"
    key: str
    stage: JobStage
    finished_at: datetime | None
    running_s: float | None
    cost_micro_usd: int | None
    exit_code: int | None
    message: str | None
    result: dict[str, Any] | None


class Scored(Record):
    """An evaluation's outcomes."""

    kind: Literal["scored"] = "scored"
    run: str
    score: Score


class Compared(Record):
    """A candidate against a reference on the same problems."""

    kind: Literal["compared"] = "compared"
    candidate: str
    """The training run."""
    reference: str | None
    """The training run it is compared with; None for the base model."""
    set: ProblemSet
    verdict: Verdict


class Decided(Record):
    """A decision by rule about a training run."""

    kind: Literal["decided"] = "decided"
    about: str
    """The training run that was judged; `decision.run` may be its parent."""
    decision: Decision


class Proposed(Record):
    """A set of hyperparameters that will be tried."""

    kind: Literal["proposed"] = "proposed"
    number: int = Field(ge=2)
    """1 is the plan's own."""
    config: TrainConfig
    why: str
    source: Literal["recipe", "optuna", "planner"]


class SearchEnded(Record):
    """No further set of hyperparameters is tried: the confirmation begins."""

    kind: Literal["search_ended"] = "search_ended"
    reason: str


class Flagged(Record):
    """Watching a training job found something, and this is the answer to it."""

    kind: Literal["flagged"] = "flagged"
    run: str
    key: str
    flag: Flag
    response: Response


class EpochOpened(Record):
    """Evaluations are done by another harness from here on: scores by the old one are compared no more."""

    kind: Literal["epoch_opened"] = "epoch_opened"
    set: ProblemSet
    harness: str
    before: str


class NoiseMeasured(Record):
    """The base model was evaluated twice: so much moves by itself."""

    kind: Literal["noise_measured"] = "noise_measured"
    n: int
    flips: int
    """Problems whose outcome changed."""
    delta: float


class LookTaken(Record):
    """The confirm set is about to be looked at, and this look may spend so much error."""

    kind: Literal["look_taken"] = "look_taken"
    run: str
    look: int = Field(ge=1)
    """Counted over all projects on this machine with the same base model and confirm set."""
    alpha: float


class Claimed(Record):
    """What the night may claim."""

    kind: Literal["claimed"] = "claimed"
    claim: Claim


class Refused(Record):
    """Policy refused what the planner proposed."""

    kind: Literal["refused"] = "refused"
    refusal: Refusal


class CancelRequested(Record):
    """A running job was asked to stop."""

    kind: Literal["cancel_requested"] = "cancel_requested"
    key: str
    why: str


class ProjectEnded(Record):
    """The project is over."""

    kind: Literal["project_ended"] = "project_ended"
    state: Literal["finished", "failed", "stopped"]
    reason: str


class Crashed(Record):
    """An error that hfagent did not expect; the project can be resumed."""

    kind: Literal["crashed"] = "crashed"
    error: str


Fact = Annotated[
    PlanMade
    | PlanConfirmed
    | Resumed
    | ModelPrepared
    | DataPrepared
    | DatasetChecked
    | ContaminationChecked
    | JobIntended
    | JobSubmitted
    | JobRejected
    | JobStarted
    | MetricsLogged
    | JobEnded
    | Scored
    | Compared
    | Proposed
    | SearchEnded
    | Flagged
    | EpochOpened
    | NoiseMeasured
    | LookTaken
    | Decided
    | GuardCompared
    | Claimed
    | Refused
    | PlannerFact
    | CancelRequested
    | BackendFact
    | PipelineFact
    | UpkeepFact
    | ProjectEnded
    | Crashed,
    Field(discriminator="kind"),
]

_FACT: TypeAdapter[Fact] = TypeAdapter(Fact)


class Event(Record):
    """A fact with its place and time in the ledger."""

    seq: int = Field(ge=1)
    at: datetime
    fact: Fact


def to_line(event: Event, *, prev: str | None = None) -> str:
    """The event as one line of JSON, without a newline; `prev` is the hash of the line before."""
    payload = _FACT.dump_json(event.fact).decode()
    at = event.at.isoformat().replace("+00:00", "Z")
    chained = "" if prev is None else f'"prev":"{prev}",'
    return f'{{"seq":{event.seq},"at":"{at}",{chained}{payload[1:]}'


def from_dict(line: dict[str, Any]) -> Event:
    """The inverse of `to_line`, from parsed JSON without `prev`.

    Raises:
        pydantic.ValidationError: not a line that this version writes.
    """
    rest = {name: value for name, value in line.items() if name not in ("seq", "at")}
    return Event(seq=line.get("seq", 0), at=line.get("at", ""), fact=_FACT.validate_python(rest))
