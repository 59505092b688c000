"""What the report and its plots ask of a state: intervals, gains, looks, differences. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from statistics import stdev
from typing import Any

from hfagent.agent import guards
from hfagent.agent.records import BenchmarkRef, Score, TrainConfig
from hfagent.agent.runs import Run
from hfagent.agent.state import State
from hfagent.agent.stats import student_quantile, wilson
from hfagent.agent.verdict import Verdict

LEVEL = 0.95


@dataclass(frozen=True)
class Deviation:
    """A hyperparameter that is not the same in the plan, in the request and in the job."""

    name: str
    plan: object
    asked: object
    launched: object
    """None also where the job has not reported it."""


def score_interval(score: Score) -> tuple[float, float]:
    """95 % interval of a score: Wilson (1927) for outcomes of 0 or 1, Student's t over the problems for fractions."""
    outcomes = list(score.outcomes.values())
    if set(outcomes) <= {0.0, 1.0} or len(outcomes) < 2:
        return wilson(score.value * score.n, score.n)
    reach = student_quantile((1 + LEVEL) / 2, len(outcomes) - 1) * stdev(outcomes) / math.sqrt(len(outcomes))
    return max(score.value - reach, 0.0), min(score.value + reach, 1.0)


def evaluations(state: State, subject: str | None) -> list[Run]:
    """Evaluation runs of a training run's model, or of the base model."""
    return [run for run in state.runs.values() if run.spec.kind == "evaluate" and run.spec.subject == subject]


def benchmark(state: State, run: Run) -> BenchmarkRef:
    """The problems of an evaluation run: those that it was scored on, else the plan's."""
    if run.score is not None:
        return run.score.benchmark
    return guards.benchmark(state.plan, run.spec)


def asked(run: Run) -> str:
    """Which set of a benchmark an evaluation asked, or that it was a guard."""
    return "guard" if run.spec.guard is not None else str(run.spec.set)


def against_base(state: State, run: Run) -> Verdict | None:
    """The verdict of an evaluated training run against the base model on the same set."""
    if run.spec.subject is None or run.spec.set is None:
        return None
    harness = None if run.score is None else run.score.harness
    for item in reversed(state.comparisons):
        fact = item.fact
        if (fact.candidate, fact.reference, fact.set, item.harness) == (run.spec.subject, None, run.spec.set, harness):
            return fact.verdict
    return None


def base_score(state: State, run: Run) -> Score | None:
    """The base model's score on the set of an evaluation run."""
    base = None if run.spec.set is None else state.scored(None, run.spec.set)
    return None if base is None else base.score


def metric(state: State) -> str:
    """What the scores measure, e.g. `pass@1`."""
    return next((run.score.metric for run in state.runs.values() if run.score is not None), "")


def looks(state: State) -> int:
    """How many times a trained model's score on the confirm set was seen."""
    return sum(
        run.score is not None and run.spec.set == "confirm" and run.spec.subject is not None
        for run in state.runs.values()
    )


def extension_of(state: State, name: str) -> Run | None:
    """The run that extends this one."""
    return next((run for run in state.runs.values() if run.spec.parent == name), None)


def started(run: Run) -> datetime | None:
    """When its first job left the queue."""
    return next((attempt.started_at for attempt in run.attempts if attempt.started_at is not None), None)


def running_s(run: Run) -> float | None:
    """Billed seconds of all its jobs; None while nothing is known."""
    known = [attempt.running_s for attempt in run.attempts if attempt.running_s is not None]
    return sum(known) if known else None


def cost_micro_usd(run: Run) -> int | None:
    """Cost of all its ended jobs; None when one of them is unknown."""
    costs = [attempt.cost_micro_usd for attempt in run.attempts if not attempt.open and attempt.stage != "REJECTED"]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def launched(run: Run) -> Mapping[str, Any]:
    """The hyperparameters that the job really used, by its own report; empty before."""
    reported = run.result.get("launched")
    return reported if isinstance(reported, Mapping) else {}


def deviations(plan: TrainConfig, asked: TrainConfig, real: Mapping[str, Any]) -> list[Deviation]:
    """Where plan, request and job differ. What was asked as None was left to the job, so its choice is no deviation."""
    found = []
    for name in TrainConfig.model_fields:
        planned, wanted = getattr(plan, name), getattr(asked, name)
        used = real.get(name)
        reported = name in real and wanted is not None
        if planned != wanted or (reported and used != wanted):
            found.append(Deviation(name, planned, wanted, used))
    return found
