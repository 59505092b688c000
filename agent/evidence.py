"""What a decision about a training run rests on, gathered from the state. Pure."""

from datetime import datetime

from hfagent.agent import estimate, policy, proposals
from hfagent.agent.decide import Evidence, Extension, Parent, Remaining
from hfagent.agent.records import MetricPoint
from hfagent.agent.state import State


def evidence(state: State, name: str, now: datetime) -> Evidence:
    """Everything that the decision about a training run may weigh.

    Raises:
        ValueError: it was not compared with the baseline on the search set.
    """
    comparison = state.comparison(name, None, "search")
    if comparison is None:
        raise ValueError(f"{name} is not compared on the search set")
    scores = [
        run.score.value for run in state.runs.values() if run.score and run.spec.subject and run.spec.set == "search"
    ]
    verdict = comparison.fact.verdict
    return Evidence(
        run=name,
        verdict=verdict,
        points=tuple(line_of_points(state, name)),
        remaining=remaining(state, now),
        extension=extension(state, name, now),
        extensions=state.extensions(name),
        max_extensions=state.plan.max_extensions,
        best_so_far=verdict.candidate_score >= max(scores),
        parent=_parent(state, name),
    )


def line_of_points(state: State, name: str) -> list[MetricPoint]:
    """Metrics of a run and of those it extends; where they overlap the later run's count."""
    by_step: dict[int, MetricPoint] = {}
    line: list[str] = [name]
    while (parent := state.runs[line[-1]].spec.parent) is not None:
        line.append(parent)
    for run in reversed(line):
        points = state.runs[run].points
        if points:
            by_step = {step: point for step, point in by_step.items() if step < points[0].step}
        by_step.update({point.step: point for point in points})
    return [by_step[step] for step in sorted(by_step)]


def extension(state: State, name: str, now: datetime) -> Extension | None:
    """What continuing a run would take; None where it left no checkpoint or policy rules it out for good."""
    run = state.runs[name]
    steps = run.result.get("steps")
    if not run.result.get("stable_checkpoint") or not isinstance(steps, int):
        return None
    if policy.blocked_extension(state, name, now) is not None:
        return None
    spec = proposals.extend_run(state, name, "extension")
    before, after = run.spec.train or state.plan.train, spec.train or state.plan.train
    share = after.num_train_epochs / before.num_train_epochs
    if before.max_steps is not None and after.max_steps is not None:
        share = after.max_steps / before.max_steps
    seconds = estimate.run_s(state, spec) + _evaluation_s(state)
    return Extension(
        total_steps=round(steps * share), seconds=seconds, micro_usd=estimate.cost_micro_usd(state.plan, seconds)
    )


def remaining(state: State, now: datetime) -> Remaining:
    """Time and money left, and the reserve for both evaluations on the confirm set."""
    reserve_s = 2 * _evaluation_s(state)
    return Remaining(
        seconds=policy.time_left_s(state, now),
        micro_usd=policy.money_left_micro_usd(state),
        reserve_s=reserve_s,
        reserve_micro_usd=estimate.cost_micro_usd(state.plan, reserve_s),
    )


def _evaluation_s(state: State) -> float:
    return estimate.run_s(state, proposals.evaluate_run(state, None, "confirm", "estimate"))


def _parent(state: State, name: str) -> Parent | None:
    parent = state.runs[name].spec.parent
    comparison = state.comparison(name, parent, "search") if parent is not None else None
    if parent is None or comparison is None:
        return None
    return Parent(run=parent, verdict=comparison.fact.verdict)
