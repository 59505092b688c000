"""A world in which trained models have a known true skill: trainings, learning curves and answers, all from one seed.

Pure: the same seed gives the same world whatever is asked of it, in any order and any process. Sizes are those of the
scenario; what they are modelled on is said there.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal

from hfagent.agent.records import BenchmarkRef, MetricPoint, TrainConfig
from hfagent.agent.simulated_scenario import Scenario
from hfagent.agent.stats import NORMAL
from hfagent.job_templates.training import Schedule, plan_schedule

Fate = Literal["completes", "nan", "diverges", "out_of_memory"]

OWN_RUN = frozenset(
    {"num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "max_rows"}
    | {"eval_fraction", "logging_steps", "save_steps", "seed", "decay_fraction", "warmup_steps", "lr_scheduler_type"}
)
"""Fields that leave a configuration's chance effect as it is: how long and in what portions it is trained."""
OUT_OF_MEMORY_STEP = 3
BREAK_AFTER = 0.2
"""Share of the steps after which a training with too high a learning rate breaks."""
BREAK_LOGS = 4.0
"""Logs in which the loss of a broken training goes most of its way."""
MIN_SKILL, MAX_SKILL = 0.001, 0.999


@dataclass(frozen=True)
class Trained:
    """What a training made of the base model, at its end or at a checkpoint."""

    skill: float
    """Share of all problems that it would solve without having seen any: the truth that nobody in the night knows."""
    leak: float = 0.0
    """Added on the search set alone."""
    memorised: float = 0.0
    """Added on both sets."""


@dataclass(frozen=True)
class Training:
    """One training from its start, or from a checkpoint, to its own end."""

    config: TrainConfig
    schedule: Schedule
    first_step: int
    """Steps done before, by the run that left the checkpoint."""
    last_step: int
    """At which it ends, by itself or by breaking."""
    fate: Fate
    points: tuple[MetricPoint, ...]
    epochs: float
    trained: Trained


class World:
    """One night's truth.

    Args:
        scenario: its numbers.
        seed: of the night.
    """

    def __init__(self, scenario: Scenario, seed: int):
        self.scenario = scenario
        self.seed = seed
        self.base = Trained(scenario.answers.base_skill)
        self._ability = cache(self._ability_of)
        self._difficulties = cache(self._difficulties_of)

    def random(self, *what: object) -> Random:
        """A stream of its own for everything that is drawn."""
        text = "/".join(map(str, (self.scenario.name, self.seed, *what)))
        return Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))  # noqa: S311 - a simulation

    # --- training ----------------------------------------------------------------------------------------------------

    def train(
        self, name: str, config: TrainConfig, *, first_step: int, contaminated: bool, max_steps: int | None = None
    ) -> Training:
        """A training by these hyperparameters.

        Args:
            name: of the job; its noise hangs on it.
            config: as asked for.
            first_step: of the checkpoint it starts from; 0 is the base model.
            contaminated: whether benchmark problems are among the rows.
            max_steps: ends it early, as a smoke run does.
        """
        machine = self.scenario.machine
        rows = min(config.max_rows or machine.rows, machine.rows)
        held_out = round(rows * config.eval_fraction)
        schedule = plan_schedule(config, rows=rows - held_out, batch=config.batch, evaluate=held_out > 0)
        per_step = config.batch / (rows - held_out)
        end = min(schedule.total, max_steps or schedule.total)
        fate, broken_at = self._fate(name, config, schedule, first_step, end)
        last = broken_at if broken_at is not None and fate in ("nan", "out_of_memory") else end
        return Training(
            config=config,
            schedule=schedule,
            first_step=first_step,
            last_step=last,
            fate=fate,
            points=self._points(name, config, schedule, range(first_step + 1, last + 1), fate, broken_at, per_step),
            epochs=last * per_step,
            trained=self._trained(config, last * per_step, broken=fate != "completes", contaminated=contaminated),
        )

    def _fate(
        self, name: str, config: TrainConfig, schedule: Schedule, first_step: int, end: int
    ) -> tuple[Fate, int | None]:
        """How it goes, and the step at which it breaks."""
        trouble = self.scenario.trouble
        tokens = config.per_device_train_batch_size * config.max_length
        step = first_step + OUT_OF_MEMORY_STEP + 1
        # A smoke run of a few steps does not meet the longest rows.
        if trouble.max_batch_tokens is not None and tokens > trouble.max_batch_tokens and step <= end:
            return "out_of_memory", step - 1
        step = first_step + max(schedule.warmup, round(BREAK_AFTER * (schedule.total - first_step))) + 1
        if trouble.diverge_above is not None and config.learning_rate > trouble.diverge_above and step <= end:
            return ("nan" if self.random("nan", name).random() < trouble.nan_share else "diverges"), step
        return "completes", None

    def _trained(self, config: TrainConfig, epochs: float, *, broken: bool, contaminated: bool) -> Trained:
        answers = self.scenario.answers
        points = self.scenario.gains.broken_points if broken else self.gain_points(config, epochs)
        skill = min(max(answers.base_skill + points / 100, MIN_SKILL), MAX_SKILL)
        return Trained(
            # Exactly the base model's skill where nothing is gained, so that no rounding makes a gain.
            skill=answers.base_skill if points == 0 else skill,
            leak=0.0 if broken else answers.leak_points / 100,
            memorised=answers.contamination_points / 100 if contaminated and not broken else 0.0,
        )

    def gain_points(self, config: TrainConfig, epochs: float) -> float:
        """True gain of a sound training in points: a peak by learning rate and epochs, and the candidate's chance."""
        gains = self.scenario.gains
        distance = math.log(config.learning_rate / gains.best_learning_rate) / gains.width
        smooth: float = gains.peak_points * (1 - distance**2) * (1 - 0.5 ** (epochs / gains.half_epochs))
        return smooth + self._effect(config) * min(epochs, 1.0)

    def _effect(self, config: TrainConfig) -> float:
        drawn = self.random("effect", config.model_dump_json(exclude=set(OWN_RUN))).random()
        for effect in self.scenario.gains.effects:
            if drawn < effect.share:
                return effect.points
            drawn -= effect.share
        return 0.0

    def _points(
        self,
        name: str,
        config: TrainConfig,
        schedule: Schedule,
        steps: range,
        fate: Fate,
        broken_at: int | None,
        epochs_per_step: float,
    ) -> tuple[MetricPoint, ...]:
        numbers, noise = self.scenario.losses, self.random("loss", name)
        points = []
        for step in steps:
            values: dict[str, float | None] = {}
            excess = self._excess(config, step, fate, broken_at)
            curve = numbers.floor + numbers.start * step**-numbers.alpha
            if step % config.logging_steps == 0 or step == steps[-1]:
                loss = curve * math.exp(noise.gauss(0, numbers.noise))
                values["train/loss"] = None if excess is None else loss + excess
                values["train/grad_norm"] = None if excess is None else math.exp(noise.gauss(0, 0.3)) + 10 * excess
                values["train/learning_rate"] = config.learning_rate * schedule.factor(step - 1)
                values["train/epoch"] = step * epochs_per_step
            if step in schedule.evaluations and excess is not None:
                past = max(step * epochs_per_step - numbers.overfit_from_epochs, 0)
                held_out = curve + numbers.eval_gap + numbers.overfit_rise * past + excess
                values["eval/loss"] = held_out * math.exp(noise.gauss(0, numbers.eval_noise))
            if values:
                points.append(MetricPoint(step=step, values=values))
        return tuple(points)

    def _excess(self, config: TrainConfig, step: int, fate: Fate, broken_at: int | None) -> float | None:
        """What breaking adds to the loss, up to that of uniform guessing; None is NaN."""
        if broken_at is None or step < broken_at or fate == "out_of_memory":
            return 0.0
        if fate == "nan":
            return None
        logs = (step - broken_at) / (BREAK_LOGS * config.logging_steps)
        return math.log(self.scenario.losses.vocab_size) * -math.expm1(-logs)

    # --- evaluating --------------------------------------------------------------------------------------------------

    def answers(
        self, subject: str, model: Trained, problems: BenchmarkRef, *, num_samples: int, draw: str
    ) -> Mapping[str, float]:
        """Problem id -> fraction of samples passed, in the benchmark's order.

        Args:
            subject: name of the model: the same name has the same noise, so another look gives the same answers.
            model: what it can.
            problems: which of them; a shorter draw is the beginning of a longer one.
            num_samples: answers for each problem; a single one is greedy.
            draw: what else moves an answer, e.g. the batch size.
        """
        numbers = self.scenario.answers
        n = problems.n or numbers.problems
        skill = model.skill + model.memorised + (model.leak if problems.set == "search" else 0.0)
        ability = self._ability(min(max(skill, MIN_SKILL), MAX_SKILL))
        place = (problems.name, problems.set, problems.seed)
        own, drawn = self.random("own", subject, *place), self.random("draw", subject, *place, draw)
        share = 1 - numbers.repeat_share if num_samples == 1 else numbers.own_share
        own_sd, drawn_sd = math.sqrt(share), math.sqrt(1 - share)
        found = {}
        for number, difficulty in enumerate(self._difficulties(problems.name, problems.set, problems.seed, n)):
            reserve = ability - difficulty - own.gauss(0, own_sd)
            passed = sum(reserve > drawn.gauss(0, drawn_sd) for _ in range(num_samples))
            found[f"{problems.name}/{problems.set}/{number}"] = passed / num_samples
        return found

    def _ability_of(self, skill: float) -> float:
        """The ability that solves a share `skill` of all problems: their difficulty and the noise are both normal."""
        return NORMAL.inv_cdf(skill) * math.sqrt(1 + self.scenario.answers.difficulty_sd**2)

    def _difficulties_of(self, name: str, problems: str, seed: int, n: int) -> tuple[float, ...]:
        drawn = self.random("problems", name, problems, seed)
        return tuple(drawn.gauss(0, self.scenario.answers.difficulty_sd) for _ in range(n))
