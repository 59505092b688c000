"""Abilities that must not be lost: what is due on the guards after the confirmation, and what was found. Pure."""

from collections.abc import Iterator

from hfagent.agent import thresholds
from hfagent.agent.guard_facts import GuardCompared
from hfagent.agent.records import BenchmarkRef, EvalConfig, Plan, RunSpec
from hfagent.agent.runs import Run
from hfagent.agent.state import State
from hfagent.agent.verdict import Verdict, compare, sentence

NOT_EVALUATED = "not evaluated"


def benchmark(plan: Plan, spec: RunSpec) -> BenchmarkRef:
    """The problems that an evaluation asks."""
    if spec.guard is not None:
        return next(guard for guard in plan.guards if guard.name == spec.guard)
    return plan.search if spec.set == "search" else plan.confirm


def decoding(plan: Plan, spec: RunSpec) -> EvalConfig:
    """How an evaluation generates; on a guard one answer a problem, as on the search set."""
    return plan.decoding("search" if spec.guard is not None else spec.set or "confirm")


def guard_run(guard: str, subject: str | None, why: str) -> RunSpec:
    """An evaluation of a training run's model, or of the base model, on a guard."""
    name = f"{subject or 'baseline'}-guard-{guard}".replace(".", "-").replace("_", "-")
    return RunSpec(name=name, kind="evaluate", why=why, subject=subject, guard=guard)


def evaluated(state: State, guard: str, subject: str | None) -> Run | None:
    """The evaluation on a guard that has a score."""
    run = state.runs.get(guard_run(guard, subject, "score").name)
    return run if run is not None and run.score is not None else None


def due(state: State) -> Iterator[RunSpec]:
    """What is left to evaluate once the kept run was confirmed, the base model first."""
    kept = state.kept
    if kept is None or state.comparison(kept, None, "confirm") is None:
        return
    for guard in state.plan.guards:
        if evaluated(state, guard.name, None) is None:
            yield guard_run(guard.name, None, f"the base model on {guard.name}, an ability that must not be lost")
        elif evaluated(state, guard.name, kept) is None:
            yield guard_run(guard.name, kept, f"whether {kept} has lost any of it")


def compared(state: State) -> Iterator[GuardCompared]:
    """Verdicts that both scores are there for and that nobody has told yet."""
    kept = state.kept
    for guard in state.plan.guards:
        base, ours = (evaluated(state, guard.name, subject) for subject in (None, kept))
        known = any((told.guard, told.candidate) == (guard.name, kept) for told in state.guards)
        if kept is None or known or base is None or ours is None or base.score is None or ours.score is None:
            continue
        if base.score.harness == ours.score.harness and base.score.outcomes.keys() == ours.score.outcomes.keys():
            verdict = compare(base.score.outcomes, ours.score.outcomes, margin=-thresholds.GUARD_MARGIN)
            yield GuardCompared(guard=guard.name, candidate=kept, verdict=verdict)


def verdicts(state: State) -> dict[str, Verdict | None]:
    """Guard -> the kept run's verdict; None where there is none."""
    found = {told.guard: told.verdict for told in state.guards if told.candidate == state.kept}
    return {guard.name: found.get(guard.name) for guard in state.plan.guards}


def words(verdict: Verdict | None) -> str:
    """What was found on a guard, with its numbers."""
    return NOT_EVALUATED if verdict is None else sentence(verdict)


def warning(state: State) -> str:
    """What a verdict on the gain must not be told without; empty where no guard is worse."""
    lost = [name for name, verdict in verdicts(state).items() if verdict is not None and verdict.label == "worse"]
    if not lost:
        return ""
    return f"but worse than the base model by more than {100 * thresholds.GUARD_MARGIN:g} points on {', '.join(lost)}"
