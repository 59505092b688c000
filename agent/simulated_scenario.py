"""What a rehearsal simulates: one data file for each scenario, `scenarios/<name>.toml`."""

import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from importlib.resources import files
from typing import Self

from pydantic import Field, model_validator

from hfagent.agent.errors import UsageError
from hfagent.agent.records import Record


class Night(Record):
    """What the plan of a simulated night has instead of this machine's."""

    max_trials: int = Field(default=20, ge=1)
    max_jobs: int = Field(default=1, ge=1)
    max_extensions: int = Field(default=2, ge=0)
    max_hours: float | None = Field(default=None, gt=0)
    price_usd_per_hour: float = Field(default=1.8, ge=0)
    poll_s: float = Field(default=120.0, gt=0)
    """Seconds between two looks at a running job."""
    train: dict[str, float | int | str] = Field(default_factory=dict)
    """Hyperparameters that the plan has instead of the recipe's."""


class Answers(Record):
    """How models answer problems: a probit item-response model.

    A model of the skill s solves a problem where its ability is above the problem's difficulty plus noise of standard
    deviation 1; a share s of all problems, by the choice of the ability. Two models have noise of their own.
    """

    base_skill: float = Field(default=0.35, gt=0, lt=1)
    """Share of all problems that the base model solves."""
    difficulty_sd: float = Field(default=1.8, ge=0)
    """Of the problems. With 1.8, about one problem in five changes between two models of equal skill 0.35."""
    own_share: float = Field(default=0.6, ge=0, le=1)
    """Share of the noise's variance that a model keeps for a problem; the rest is drawn for each sample."""
    repeat_share: float = Field(default=0.005, ge=0, le=1)
    """Share of the variance that other batches or another seed of the sampling move in a greedy answer."""
    problems: int = Field(default=164, ge=1)
    """Problems of a set for which the plan names no number."""
    leak_points: float = 0.0
    """Gain on the search set alone, by memorised problems."""
    contamination_points: float = 0.0
    """Gain on both sets by benchmark problems among the training rows, unless these rows are left out."""


class Effect(Record):
    """A gain that some candidates have, by chance of their configuration."""

    share: float = Field(gt=0, le=1)
    points: float


class Gains(Record):
    """What training does to the skill."""

    effects: tuple[Effect, ...] = ()
    peak_points: float = 0.0
    """Of endless training at the best learning rate."""
    best_learning_rate: float = Field(default=5e-4, gt=0)
    width: float = Field(default=1.5, gt=0)
    """|ln(learning rate / best)| at which nothing is gained any more; beyond it the skill falls."""
    half_epochs: float = Field(default=1.0, gt=0)
    """Epochs for half of the peak."""
    broken_points: float = -20.0
    """Of a run that diverged and went on to its end."""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if sum(effect.share for effect in self.effects) > 1:
            raise ValueError("the shares of the effects sum to more than 1")
        return self


class Losses(Record):
    """Learning curves: A t^-alpha + L over optimizer steps t, with multiplicative noise."""

    start: float = Field(default=1.6, gt=0)
    """A; the loss of the first step is A + L."""
    alpha: float = Field(default=0.35, gt=0)
    floor: float = Field(default=0.7, gt=0)
    noise: float = Field(default=0.02, ge=0)
    """Relative standard deviation of a logged loss."""
    eval_noise: float = Field(default=0.004, ge=0)
    eval_gap: float = Field(default=0.05, ge=0)
    overfit_from_epochs: float = Field(default=4.0, gt=0)
    """Epochs from which the evaluation loss rises."""
    overfit_rise: float = Field(default=0.15, ge=0)
    """Rise for each further epoch."""
    vocab_size: int = Field(default=151_936, ge=2)


class Machine(Record):
    """Where simulated jobs run."""

    rows: int = Field(default=2_000, ge=8)
    """Training rows of the dataset."""
    contaminated_rows: int = Field(default=0, ge=0)
    """Of them, rows that hold benchmark problems."""
    row_tokens: int = Field(default=600, ge=1)
    tokens_per_s: float = Field(default=4_000.0, gt=0)
    """Of training."""
    answers_per_s: float = Field(default=4.0, gt=0)
    """Of evaluating."""
    start_s: float = Field(default=30.0, ge=0)
    """From a job's start to its first step or answer."""
    queue_s: float = Field(default=20.0, ge=0)
    """Mean of the exponential waiting time."""


class Trouble(Record):
    """What goes wrong. Shares are of jobs."""

    lost_share: float = Field(default=0.0, ge=0, le=1)
    """The machine fails at a random moment."""
    hang_share: float = Field(default=0.0, ge=0, le=1)
    """Trainings that stop making steps and run to their timeout."""
    stuck_share: float = Field(default=0.0, ge=0, le=1)
    """Jobs that wait `stuck_s` in the queue."""
    stuck_s: float = Field(default=0.0, ge=0)
    diverge_above: float | None = Field(default=None, gt=0)
    """Learning rate above which every training breaks; None is none."""
    nan_share: float = Field(default=0.5, ge=0, le=1)
    """Of the trainings that break, those that end with NaN; the others go on with a loss that grows."""
    max_batch_tokens: int | None = Field(default=None, ge=1)
    """`per_device_train_batch_size` x `max_length` above which memory runs out after the first steps."""


class Scenario(Record):
    """One kind of night."""

    name: str
    description: str
    expected: str
    """What a rehearsal should show, for the person who reads it."""
    night: Night = Night()
    answers: Answers = Answers()
    gains: Gains = Gains()
    losses: Losses = Losses()
    machine: Machine = Machine()
    trouble: Trouble = Trouble()


def names() -> tuple[str, ...]:
    """All scenarios."""
    return tuple(sorted(_stems()))


def load(name: str) -> Scenario:
    """The scenario of this name.

    Raises:
        UsageError: there is none.
    """
    known = names()
    if name not in known:
        guess = get_close_matches(name, known, n=1)
        hint = f"did you mean {guess[0]!r}? " if guess else ""
        raise UsageError(f"there is no scenario {name!r}: {hint}the scenarios are {', '.join(known)}")
    text = (files("hfagent.agent") / "scenarios" / f"{name}.toml").read_text(encoding="utf-8")
    return Scenario.model_validate({"name": name, **tomllib.loads(text)})


def _stems() -> Iterator[str]:
    for file in (files("hfagent.agent") / "scenarios").iterdir():
        stem, _, suffix = file.name.rpartition(".")
        if suffix == "toml":
            yield stem
