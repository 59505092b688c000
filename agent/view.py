"""What a screen shows of a project: plain values, the same for the terminal and the web page. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from hfagent.agent import envelope, guards, lines
from hfagent.agent.records import Method
from hfagent.agent.report_words import decision_words
from hfagent.agent.runs import Run
from hfagent.agent.state import State
from hfagent.agent.summary import headline, phase
from hfagent.agent.trackio_links import run_link
from hfagent.agent.verdict import numbers, sentence

CURVE_POINTS = 200
"""Of one run; more are thinned out."""
CURVES = 6
"""Newest training runs whose losses are shown."""
DECISIONS = 12


def view(state: State, now: datetime, *, held: bool, pipeline: str | None = None) -> dict[str, Any]:
    """The screen of a project. Unknown is None, never 0.

    Args:
        state: the project.
        now: the time, for what still counts.
        held: whether an hfagent process works on it.
        pipeline: a line about the pipeline that it is a stage of.
    """
    plan, left, left_s = state.plan, envelope.money_left_micro_usd(state), envelope.time_left_s(state, now)
    end = state.ended_at or now
    return {
        "project": plan.project,
        "goal": plan.goal,
        "pipeline": pipeline,
        "model": plan.model.id,
        "dataset": plan.dataset.id,
        "method": plan.method,
        "phase": phase(state, held=held),
        "reason": state.ended.reason if state.ended is not None else state.crash or state.wishes.paused,
        "verdict": verdict_text(state),
        "claim": None if state.claim is None else state.claim.label,
        "waits_for": state.wishes.waiting,
        "planner": {"stand_in": state.stand_in, "tokens": state.tokens, "usd": state.planner_micro_usd / 1e6},
        "budget": {
            "spent_usd": None if state.spent_micro_usd is None else state.spent_micro_usd / 1e6,
            "held_usd": state.held_micro_usd / 1e6,
            "cap_usd": None if plan.budget_micro_usd is None else plan.budget_micro_usd / 1e6,
            "left_usd": None if left is None else left / 1e6,
            "taken_s": max((end - state.started_at).total_seconds(), 0.0),
            "left_s": None if left_s is None else max(left_s, 0.0),
        },
        "runs": [_run(state, run, now) for run in state.runs.values()],
        "curves": [{"run": run.spec.name, "loss": _curve(run, plan.method)} for run in state.trained if run.points][
            -CURVES:
        ],
        "decisions": [
            {
                "at": taken.at.isoformat(timespec="seconds"),
                "about": taken.about,
                "action": taken.decision.action,
                "rule": taken.decision.rule,
                "reason": taken.decision.reason,
            }
            for taken in state.decisions[-DECISIONS:]
        ],
        "trackio": plan.trackio_url or run_link(plan, plan.label, ""),
        "updated_at": state.updated_at.isoformat(timespec="seconds"),
    }


def verdict_text(state: State) -> str:
    """The headline, or how far it is."""
    verdict = headline(state)
    if verdict is not None:
        said, lost = sentence(verdict) if state.claim is None else numbers(verdict), guards.warning(state)
        return f"{said}; {lost}" if lost else said
    found = [item for item in state.comparisons if item.fact.set == "search" and item.fact.reference is None]
    return f"not confirmed; on the search set {sentence(found[-1].fact.verdict)}" if found else "none yet"


def _run(state: State, run: Run, now: datetime) -> dict[str, Any]:
    seconds, started = run.last.running_s, run.last.started_at
    if run.last.stage == "RUNNING" and started is not None:
        seconds = max((now - started).total_seconds(), 0.0)
    subject, problems = run.spec.subject, run.spec.set
    comparison = state.comparison(subject, None, problems) if subject and problems else None
    return {
        "name": run.spec.name,
        "kind": run.spec.kind,
        "stage": run.last.stage,
        "why": run.spec.why,
        "progress": lines.progress_words(run, state),
        "score": None if run.score is None else run.score.value,
        "n": None if run.score is None else run.score.n,
        "delta": None if comparison is None else comparison.fact.verdict.delta,
        "ci": None if comparison is None else [comparison.fact.verdict.ci_low, comparison.fact.verdict.ci_high],
        "seconds": seconds,
        "decision": decision_words(state, run.spec.name) if state.decision_on(run.spec.name) else None,
    }


def _curve(run: Run, method: Method) -> list[list[float]]:
    logged = [(point.step, point.values.get(lines.curve(method))) for point in run.points]
    return _thinned([[float(step), loss] for step, loss in logged if loss is not None])


def _thinned(points: Sequence[list[float]]) -> list[list[float]]:
    every = max(1, -(-len(points) // CURVE_POINTS))
    return [*points[:-1:every], *points[-1:]]
