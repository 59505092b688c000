"""The facts of a pipeline: several trainings, each a project of its own, on the model that the last good one left."""

from typing import Literal

from pydantic import Field

from hfagent.agent.records import Claim, Export, ModelRef, Plan, Record
from hfagent.agent.verdict import Verdict

MAX_NAME = 53
"""Characters of a pipeline's name: its stages' names, at most 60, have a number and a method more."""


class Pipeline(Record):
    """What will be done for a goal of several stages, complete before anything is launched."""

    project: str = Field(pattern=rf"^[a-z0-9][a-z0-9-]{{0,{MAX_NAME - 1}}}$")
    token: str = Field(default="", pattern=r"^[a-z0-9]*$")
    goal: str
    stages: tuple[Plan, ...] = Field(min_length=2)
    """In their order, each as if it began on the original base model with all that there is to spend."""
    budget_micro_usd: int | None = Field(default=None, ge=0)
    """Cap over all stages; None means no cap."""
    max_hours: float | None = Field(default=None, gt=0)
    """For all stages together."""
    max_gpu_hours: float | None = Field(default=None, gt=0)
    """Of the jobs of all stages together; None is no limit."""
    max_planner_tokens: int | None = Field(default=None, ge=0)
    """Over all stages; None is no limit."""
    export: Export | None = None
    """What becomes of the last good model, once; None leaves it merged where jobs run."""
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Project and token: nobody else's name."""
        return f"{self.project}-{self.token}" if self.token else self.project

    @property
    def words(self) -> str:
        """The methods in their order."""
        return " then ".join(stage.method for stage in self.stages)


class PipelineMade(Record):
    """A goal became a pipeline."""

    kind: Literal["pipeline_made"] = "pipeline_made"
    pipeline: Pipeline
    versions: dict[str, str]
    """Package -> version."""


class StageBegun(Record):
    """A stage will be worked on under this plan: its project is begun once, and resumed whatever happens."""

    kind: Literal["stage_begun"] = "stage_begun"
    number: int = Field(ge=1)
    plan: Plan


class StageEnded(Record):
    """What a stage came to, and whether the next one builds on it."""

    kind: Literal["stage_ended"] = "stage_ended"
    number: int = Field(ge=1)
    state: Literal["finished", "failed", "stopped"]
    """How its project ended."""
    kept: bool
    """Whether its model is carried on."""
    why: str
    warning: str = ""
    """What it lost on a guard, an ability that must not be lost; empty where nothing."""
    run: str | None
    """The training run that the stage kept; None where it kept none."""
    model: ModelRef | None
    """The merged model where it is carried on."""
    verdict: Verdict | None
    """Of that run on the confirm set, against the model that the stage began with."""
    claim: Claim | None
    seconds: float = Field(ge=0)
    """From the beginning of its project to the end."""
    spent_micro_usd: int | None
    """None where the cost of a job is unknown."""
    charged_micro_usd: int = Field(ge=0)
    """What counts against the budget: where a cost is unknown, or a job outlived the stage, what was reserved."""
    charged_gpu_s: float | None = Field(default=None, ge=0)
    """What counts against the GPU hours; None in ledgers from before they were counted."""
    planner_tokens: int | None = Field(default=None, ge=0)
    """None when no planner reported any."""


class ModelExported(Record):
    """The last good model was converted and pushed, or could not be."""

    kind: Literal["model_exported"] = "model_exported"
    number: int = Field(ge=1)
    """The stage whose model it is."""
    run: str | None
    """The export run in that stage's project; None where policy refused it."""
    done: bool
    message: str | None
    pushed: dict[str, str] = Field(default_factory=dict)
    """Repo -> address."""
    files: tuple[str, ...] = ()
    """GGUF files."""
    spent_micro_usd: int | None = None


PipelineFact = PipelineMade | StageBegun | StageEnded | ModelExported
