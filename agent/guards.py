"""Abilities that must not be lost: what is due on the guards after the confirmation, and what was found. Pure."""

from collections.abc import Iterator, Mapping

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
    known = {(told.guard, told.candidate) for told in state.guards}
    for guard, verdict in between(state, state).items():
        if verdict is not None and (guard, state.kept) not in known:
            yield GuardCompared(guard=guard, candidate=str(state.kept), verdict=verdict)


def between(first: State, last: State) -> dict[str, Verdict | None]:
    """Guard -> the model that one project kept against the base model of another, or of the same; None where they
    cannot be compared."""
    found: dict[str, Verdict | None] = {}
    for guard in last.plan.guards:
        base, ours = evaluated(first, guard.name, None), evaluated(last, guard.name, last.kept)
        found[guard.name] = None
        if last.kept is None or base is None or ours is None or base.score is None or ours.score is None:
            continue
        if base.score.harness == ours.score.harness and base.score.outcomes.keys() == ours.score.outcomes.keys():
            margin = -thresholds.GUARD_MARGIN
            found[guard.name] = compare(base.score.outcomes, ours.score.outcomes, margin=margin)
    return found


def verdicts(state: State) -> dict[str, Verdict | None]:
    """Guard -> the kept run's verdict; None where there is none."""
    found = {told.guard: told.verdict for told in state.guards if told.candidate == state.kept}
    return {guard.name: found.get(guard.name) for guard in state.plan.guards}


def words(verdict: Verdict | None) -> str:
    """What was found on a guard, with its numbers."""
    return NOT_EVALUATED if verdict is None else sentence(verdict)


def warning(state: State) -> str:
    """What a verdict on the gain must not be told without; empty where no guard is worse."""
    return loss_words(verdicts(state))


def loss_words(found: Mapping[str, Verdict | None]) -> str:
    """The guards on which a model is worse; empty where there are none."""
    lost = [name for name, verdict in found.items() if verdict is not None and verdict.label == "worse"]
    if not lost:
        return ""
    return f"but worse than the base model by more than {100 * thresholds.GUARD_MARGIN:g} points on {', '.join(lost)}"
