"""What a decision about a training run rests on, gathered from the state. Pure."""

import math
import re
from datetime import datetime, timedelta

from hfagent.agent import data_rules, envelope, estimate, lanes, policy, proposals
from hfagent.agent.decide import Evidence, Extension, Parent
from hfagent.agent.events import Proposed
from hfagent.agent.findings import Outcome, Trial
from hfagent.agent.lines import steps_planned
from hfagent.agent.records import MetricPoint
from hfagent.agent.runs import Run
from hfagent.agent.state import State, root_name
from hfagent.agent.watch import Watched


def evidence(state: State, name: str, now: datetime) -> Evidence:
    """Everything that the decision about a training run may weigh.

    Raises:
        ValueError: it was not compared with the baseline on the search set.
    """
    comparison = state.comparison(name, None, "search")
    if comparison is None:
        raise ValueError(f"{name} is not compared on the search set")
    line = state.line(name)
    others = [score for other, score in state.search_scores().items() if other not in line]
    mine = state.scored(name, "search")
    futility = mine.score.futility if mine is not None and mine.score is not None else None
    verdict = comparison.fact.verdict
    return Evidence(
        run=name,
        verdict=verdict,
        method=state.plan.method,
        most_reward=_most_reward(state, name),
        points=tuple(line_of_points(state, name)),
        remaining=envelope.remaining(state, now, reserve_s=envelope.confirmation_s(state)),
        extension=extension(state, name, now),
        extensions=state.extensions(name),
        max_extensions=state.plan.max_extensions,
        best_other=max(others, default=None),
        rung=tuple(state.rung(name).values()),
        parent=_parent(state, name),
        futility=None if futility is None else futility.get("probability"),
    )


def _most_reward(state: State, name: str) -> float | None:
    """The sum of the weights by which rewards of 0 to 1 count; None where they are another's own, or none."""
    train = state.runs[name].spec.train or state.plan.train
    asked = train.reward_funcs or (None if state.dataset is None else data_rules.judges(state.dataset))
    if state.plan.method != "grpo" or asked is None or "." in re.sub(r":[\d.]+", "", asked):
        return None
    weights = [float(part.partition(":")[2] or 1) for part in asked.split(",")]
    return sum(weight for weight in weights if weight > 0) or None


def inputs(state: State, found: Evidence) -> tuple[str, ...]:
    """The runs whose scores and metrics the evidence holds."""
    subjects = [None, found.run, *([found.parent.run] if found.parent is not None else [])]
    scored = [state.scored(subject, "search") for subject in subjects]
    names = [run.spec.name for run in scored if run is not None]
    return tuple(dict.fromkeys([*names, *state.line(found.run)]))


def line_of_points(state: State, name: str) -> list[MetricPoint]:
    """Metrics of a run and of those it extends; where they overlap the later run's count."""
    by_step: dict[int, MetricPoint] = {}
    line = [name]
    while (parent := state.runs[line[-1]].spec.parent) is not None:
        line.append(parent)
    for run in reversed(line):
        points = state.runs[run].points
        if points:
            by_step = {step: point for step, point in by_step.items() if step < points[0].step}
        by_step.update({point.step: point for point in points})
    return [by_step[step] for step in sorted(by_step)]


def extension(state: State, name: str, now: datetime) -> Extension | str:
    """What continuing a run would take, or why that cannot be: no checkpoint, or policy rules it out for good."""
    run = state.runs[name]
    steps = run.result.get("steps")
    if not run.result.get("stable_checkpoint") or not isinstance(steps, int):
        return "it left no checkpoint from before its decay"
    blocked = policy.blocked_extension(state, name, now)
    if blocked is not None:
        return blocked
    spec = proposals.extend_run(state, name, "extension")
    before, after = run.spec.train or state.plan.train, spec.train or state.plan.train
    share = after.num_train_epochs / before.num_train_epochs
    if before.max_steps is not None and after.max_steps is not None:
        share = after.max_steps / before.max_steps
    seconds = estimate.run_s(state, spec) + _evaluation_s(state)
    return Extension(
        total_steps=round(steps * share), seconds=seconds, micro_usd=estimate.cost_micro_usd(state.plan, seconds)
    )


def _evaluation_s(state: State) -> float:
    return estimate.run_s(state, proposals.evaluate_run(state, None, "search", "estimate"))


def _parent(state: State, name: str) -> Parent | None:
    parent = state.runs[name].spec.parent
    comparison = state.comparison(name, parent, "search") if parent is not None else None
    if parent is None or comparison is None:
        return None
    return Parent(run=parent, verdict=comparison.fact.verdict)


def trials(state: State) -> list[Trial]:
    """Every set of hyperparameters that was tried, with the best score that its runs reached on the search set."""
    found, whole = [], state.search_scores()
    proposals = {proposed.number: proposed for proposed in reversed(state.proposals)}
    lines: dict[str, list[Run]] = {}
    for run in state.trained:
        lines.setdefault(state.root(run.spec.name), []).append(run)
    for number in range(1, max([1, *proposals]) + 1):
        name, proposed = root_name(state.plan.method, number), proposals.get(number)
        if name not in lines:
            if name in state.wishes.vetoed:
                found.append(_vetoed(state, number, proposed))
            continue
        first, line = state.runs[name], lines[name]
        scores = {run.spec.name: whole[run.spec.name] for run in line if run.spec.name in whole}
        best = max(line, key=lambda run: scores.get(run.spec.name, -math.inf)) if scores else line[-1]
        found.append(
            Trial(
                number=number,
                config=best.spec.train or state.plan.train,
                why=first.spec.why,
                source="recipe" if proposed is None else proposed.source,
                value=scores.get(best.spec.name),
                outcome="scored" if scores else _unscored(state, line),
            )
        )
    return found


def _vetoed(state: State, number: int, proposed: Proposed | None) -> Trial:
    """A set of hyperparameters that was never begun."""
    return Trial(
        number=number,
        config=state.plan.train if proposed is None else proposed.config,
        why=f"vetoed: {state.wishes.vetoed[root_name(state.plan.method, number)]}",
        source="recipe" if proposed is None else proposed.source,
        outcome="vetoed",
    )


def _unscored(state: State, line: list[Run]) -> Outcome:
    """What came of a set of hyperparameters none of whose runs has a score on the whole search set that counts."""
    names = {run.spec.name for run in line}
    if line[0].spec.name in lanes.going_on(state):
        return "open"
    if names & state.wishes.vetoed.keys():
        return "vetoed"
    evaluated = [run for run in state.runs.values() if run.spec.subject in names and run.score is not None]
    if any(state.scored(name, "search") for name in names):
        return "pruned"
    if evaluated:
        return "outdated"
    return "out_of_memory" if line[-1].last.out_of_memory else "failed"


def watched(state: State, run: Run, now: datetime) -> Watched:
    """What is known of a training run's last job."""
    attempt, train = run.last, run.spec.train or state.plan.train
    started = None if attempt.started_at is None else attempt.started_at + timedelta(seconds=attempt.shift_s)
    seen = [((at - started).total_seconds(), step) for at, step in run.progress] if started is not None else []
    return Watched(
        points=tuple(run.points),
        method=train.method,
        total_steps=steps_planned(run, state),
        warmup_steps=train.warmup_steps,
        vocab_size=state.vocab_size,
        running_s=None if started is None else max((now - started).total_seconds(), 0.0),
        progress=tuple((max(at, 0.0), step) for at, step in seen),
        timeout_s=attempt.job.timeout_s,
    )
