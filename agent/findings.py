"""What is found out beside scores: flags of a training run and the answer, sets of hyperparameters, counted looks."""

from typing import Literal

from pydantic import Field

from hfagent.agent.records import Record, TrainConfig

FlagName = Literal["nan", "diverged", "hung", "no_start", "overfit", "plateau", "too_slow", "dead_reward"]
Outcome = Literal["open", "scored", "failed", "out_of_memory", "pruned", "outdated", "vetoed"]
"""`failed`: it diverged or its script ended with an error; a job whose machine was lost leaves it open. `pruned`: a
part of the problems showed that it is no better. `outdated`: scored by a harness that does not count any more.
`vetoed`: a person said no to it."""


class Flag(Record):
    """Something that watching a training run found."""

    name: FlagName
    step: int | None
    """Optimizer step at which it showed; None before the first."""
    reason: str
    numbers: dict[str, float | None] = Field(default_factory=dict)


class Response(Record):
    """What is done about a flag."""

    action: Literal["go_on", "cancel", "restart_lower", "abandon"]
    reason: str
    learning_rate: float | None = None
    """Of the run that comes instead."""
    checkpoint_step: int | None = None
    """Step that it starts from; None is the beginning."""


class Trial(Record):
    """A set of hyperparameters and what came of it."""

    number: int = Field(ge=1)
    config: TrainConfig
    why: str = Field(min_length=1)
    source: Literal["recipe", "optuna", "planner"]
    value: float | None = None
    """Score on the search set; None while open or failed."""
    outcome: Outcome = "open"


class Look(Record):
    """One look at a confirm set."""

    number: int = Field(ge=1)
    """Counted over all projects."""
    alpha: float = Field(gt=0, lt=1)
    """Error rate that it may spend, one-sided."""
