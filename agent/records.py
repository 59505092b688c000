"""Values that cross a seam: frozen, no unknown keys, no NaN; missing is None, never 0. Times are UTC; `_s` is seconds;
`_micro_usd` is millionths of a dollar, so that money adds up exactly."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from hfagent.agent.record import Record as Record
from hfagent.agent.refs import BenchmarkRef as BenchmarkRef
from hfagent.agent.refs import DatasetRef as DatasetRef
from hfagent.agent.refs import ModelRef as ModelRef
from hfagent.agent.refs import ProblemSet as ProblemSet
from hfagent.agent.train_config import Method as Method
from hfagent.agent.train_config import TrainConfig as TrainConfig

RunKind = Literal["train", "evaluate", "smoke", "export", "verify", "publish", "generate"]
"""`generate` has the current model write its own training data, by `make_data.py`."""
RELEASE: frozenset[RunKind] = frozenset({"export", "verify", "publish"})
"""What is made of the kept model, and where it goes."""
JobStage = Literal["SCHEDULING", "RUNNING", "COMPLETED", "CANCELED", "ERROR", "DELETED"]
"""Names of `huggingface_hub.JobStage`; the last four are terminal."""
TaskArea = Literal["code", "math", "instruction-following"]
Action = Literal["extend", "change", "keep", "discard", "stop"]

TERMINAL_STAGES: frozenset[JobStage] = frozenset({"COMPLETED", "CANCELED", "ERROR", "DELETED"})


class EvalConfig(Record):
    """How answers are generated; part of the harness hash, so a change means a new baseline."""

    num_samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Of an answer; None takes what each benchmark needs."""
    batch_size: int = Field(default=32, ge=1)
    seed: int = 0


class Export(Record):
    """What becomes of the kept model beyond its adapter: merged, converted, pushed to the Hub."""

    quantize: tuple[str, ...] = ()
    """GGUF files to make, e.g. `Q4_K_M`."""
    push: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")
    """Repo of the merged model, `user/name`; GGUF files go to `user/name-GGUF`. None keeps all where jobs run."""
    public: bool = False
    anyway: bool = False
    """Pushed also without a confirmed gain; the card says so."""
    judged: str | None = None
    """What the card says of the model, where the claim of a pipeline lets it be pushed and not the project's own."""
    original: dict[str, float] | None = None
    """Confirm outcomes of the model that a pipeline began with, which the gain of its files is over."""


class Generation(Record):
    """How a model makes its own training data (`make_data.py`)."""

    n: int = Field(ge=1)
    """Prompts."""
    num_samples: int = Field(ge=1)
    """Completions of a prompt."""
    temperature: float = Field(gt=0)


class RunSpec(Record):
    """One run of the project: what it does and why. A run is started by one or more jobs (attempts)."""

    name: str
    kind: RunKind
    why: str = Field(min_length=1)
    """The reason, in one sentence."""
    hypothesis: str | None = Field(default=None, min_length=1)
    """Training: what is expected of it; what the evaluation then tests."""
    subject: str | None = None
    """Evaluations: the training run whose model is evaluated; None for the base model."""
    set: ProblemSet | None = None
    guard: str | None = None
    """Evaluations: the plan's guard that is asked in place of a set."""
    parent: str | None = None
    """Training: the run that this one extends."""
    instead_of: str | None = None
    """Training: the run that failed or was cancelled and that this one does again with changed hyperparameters."""
    resume_from: str | None = None
    """Training: checkpoint to start from where it is not the parent's; None is the base model or the parent."""
    repeat: bool = False
    """Evaluations: the base model once more with other batches, to see how far a score moves by itself."""
    train: TrainConfig | None = None
    """Training and smoke: the hyperparameters asked for."""
    export: Export | None = None
    """Releases (export, verify, publish): what is made of the subject's model."""
    exported: str | None = None
    """Verify and publish: the export run that made the files."""
    quantization: str | None = None
    """Verify: the file that is asked the problems of the confirm set."""


class StageOf(Record):
    """Where a project stands in a pipeline: several trainings one after the other, each on the model of the last."""

    pipeline: str
    """Its project."""
    number: int = Field(ge=1)
    of: int = Field(ge=2)
    base: ModelRef
    """The model that the pipeline began with, whose tokenizer all stages share."""
    before: tuple[str, ...] = ()
    """What came of each earlier stage, in a sentence."""
    export: Export | None = None
    """What is made of the last model at the end; money and time for it are kept free in each stage."""


class Plan(Record):
    """What will be done for a goal, complete before anything is launched."""

    project: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,59}$")
    token: str = Field(default="", pattern=r"^[a-z0-9]*$")
    """Sets jobs and metrics apart from those of an earlier project of the same name."""
    goal: str
    task_area: TaskArea
    method: Method
    model: ModelRef
    teacher: ModelRef | None = None
    """Whose next words the model learns to choose, by distillation; None elsewhere."""
    dataset: DatasetRef
    search: BenchmarkRef
    confirm: BenchmarkRef
    guards: tuple[BenchmarkRef, ...] = ()
    """Abilities that must not be lost: the base model and the kept one are asked after the confirmation."""
    train: TrainConfig
    evaluation: EvalConfig
    backend: str
    flavor: str
    gpu: bool = False
    """Whether jobs find an accelerator; for the estimates."""
    accelerator: str | None = None
    """Model of the flavor's GPU, a key of `hardware.gpus`."""
    namespace: str | None = None
    """Who owns the jobs and repos on the Hub; None for local jobs."""
    trackio_url: str | None = None
    """Server or Space that has the metrics; None for the local store."""
    trackio_space: str | None = None
    """The Space, `user/name`; None where they are elsewhere."""
    state_dir: str | None = None
    """Where local jobs keep their files; a resume from elsewhere must find them."""
    price_micro_usd_per_hour: int = Field(ge=0)
    budget_micro_usd: int | None = Field(default=None, ge=0)
    """Cap over the whole project; None means no cap."""
    max_hours: float | None = Field(default=None, gt=0)
    gpus: int = Field(default=1, ge=1)
    """Of a job; one without counts as one."""
    max_gpu_hours: float | None = Field(default=None, gt=0)
    """Hours of all jobs together, each times its GPUs; None is no limit."""
    max_planner_tokens: int | None = Field(default=None, ge=0)
    """Read and written by the planner's model in the whole project; None is no limit."""
    max_extensions: int = Field(default=2, ge=0)
    max_trials: int = Field(default=1, ge=1)
    """Sets of hyperparameters that are tried; extensions and restarts of one do not count."""
    max_jobs: int = Field(default=1, ge=1)
    """Jobs at a time, while sets of hyperparameters are tried; all others run alone."""
    target_delta: float | None = Field(default=None, gt=0, le=1)
    """Gain on the search set at which the search ends; None searches on."""
    contaminated_rows: Literal["drop", "refuse"] = "drop"
    """What becomes of training rows that hold benchmark problems: left out, or nothing is trained."""
    export: Export | None = None
    """What becomes of the kept model at the end; None leaves the adapter."""
    generation: Generation | None = None
    """How training data are made where the dataset has none for the method; None makes none."""
    approve_runs: bool = False
    """Each training run waits for a person's yes."""
    unsafe_exec: bool = False
    """Generated code may run without a sandbox."""
    notes: tuple[str, ...] = ()
    """What a person should know before saying yes, e.g. that embedded data replaces the recipe's."""
    stage: StageOf | None = None

    def decoding(self, problems: ProblemSet) -> EvalConfig:
        """How answers are generated on a set.

        On the search set each problem is answered once, by the likeliest tokens: among ten answers to a problem those
        of one model resemble each other, so other problems tell more than further answers, at a tenth of the time.
        Scores of the two sets are never compared.
        """
        if problems == "confirm":
            return self.evaluation
        return self.evaluation.model_copy(update={"num_samples": 1, "temperature": 0.0})

    @property
    def label(self) -> str:
        """Project and token: the prefix of job keys and the project's name in Trackio."""
        return f"{self.project}-{self.token}" if self.token else self.project


class JobSpec(Record):
    """One job to be started, complete: the same spec gives the same process."""

    key: str = Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")
    """Idempotency key, `<project>-<run>-a<attempt>`: at most one start per key."""
    project: str
    run: str
    kind: RunKind
    template: str
    """File name in job_templates, e.g. `train_sft.py` or `make_data.py`."""
    args: tuple[str, ...]
    """Arguments of the template. The runner adds `--output-dir`."""
    flavor: str
    timeout_s: int = Field(ge=1)
    price_micro_usd_per_hour: int = Field(ge=0)

    @property
    def label(self) -> str:
        """The plan's label, with which the key begins."""
        return self.key.rpartition(f"-{self.run}-a")[0]

    @property
    def reserve_micro_usd(self) -> int:
        """Worst-case cost, rounded up: price times timeout."""
        return -(-self.price_micro_usd_per_hour * self.timeout_s // 3600)


class Job(Record):
    """A job as its runner sees it now."""

    id: str
    key: str
    stage: JobStage
    url: str
    """Where its log is read; a file URL for a local job."""
    flavor: str
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    billed_s: float | None = None
    """As the backend counts it; None where it does not, and then the time between start and finish counts."""
    exit_code: int | None = None
    message: str | None = None
    result: dict[str, Any] | None = None
    """The object of the template's last `RESULT {json}` line."""

    @property
    def ended(self) -> bool:
        """Whether the stage is terminal."""
        return self.stage in TERMINAL_STAGES

    @property
    def running_s(self) -> float | None:
        """Billed seconds: as the backend counts them, else from start to finish; None before they are known."""
        if self.billed_s is not None:
            return self.billed_s
        if self.started_at is None or self.finished_at is None:
            return None
        return max((self.finished_at - self.started_at).total_seconds(), 0.0)  # the clock may have been set back


class MetricPoint(Record):
    """One logged row of a training run."""

    step: int
    """Optimizer step (`train/global_step`), not Trackio's row counter."""
    values: dict[str, float | None]
    """Metric -> value, e.g. `train/loss`; None where the run logged NaN or infinity."""


class Score(Record):
    """The result of one evaluation."""

    benchmark: BenchmarkRef
    metric: str
    value: float = Field(ge=0, le=1)
    n: int = Field(ge=1)
    outcomes: dict[str, float]
    """Problem id -> fraction of samples passed, in [0, 1]."""
    harness: str
    """Hash of everything but the weights that can move the score."""
    sandbox: str
    errors: dict[str, int] = Field(default_factory=dict)
    """Kind of failure -> number of samples: syntax, assertion, timeout, ..."""
    planned_n: int | None = None
    """Problems of the whole set where the evaluation was ended early as futile, else None."""
    futility: dict[str, float | None] | None = None
    """The numbers by which it was ended early."""

    @property
    def complete(self) -> bool:
        """Whether every problem of the set was answered."""
        return self.planned_n is None or self.n >= self.planned_n


class Decision(Record):
    """What was decided, by which rule, from which numbers."""

    action: Action
    run: str | None
    """The training run that the action is for: an extension that gains nothing keeps its parent."""
    reason: str
    rule: str
    version: str = ""
    """Of the thresholds that the rule used."""
    inputs: tuple[str, ...] = ()
    """What it was taken from: runs whose scores or metrics were weighed."""
    numbers: dict[str, float | None] = Field(default_factory=dict)
    alternatives: tuple[str, ...] = ()
    """What was weighed and not done, each with its reason."""
    changes: dict[str, float] = Field(default_factory=dict)
    """Action `change`: hyperparameter -> value of the run that comes instead."""
    resume_from: str | None = None
    """Its checkpoint to start from; None is the base model."""


class Claim(Record):
    """What may be said about the night's result, and with how much it was bought."""

    label: Literal["confirmed_better", "promising", "no_detectable_difference", "worse", "invalid"]
    reason: str
    run: str | None
    """The training run that it is about; None where none was kept."""
    gain: float | None = None
    """Published gain, in score units: corrected for being published only when significant; None without a claim."""
    look: int | None
    """How often this confirm set was looked at for this base model, this look included; None without a look."""
    alpha: float | None
    """Error rate that this look may spend, one-sided."""
    tried: int
    """Training runs judged on the search set."""
    noise: float | None
    """Difference of two evaluations of the base model; None where it was not measured."""


class Refusal(Record):
    """Policy says no. Final for this state: trying the same again gives the same answer."""

    what: str
    why: str
