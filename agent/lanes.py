"""Several jobs at a time: which runs go side by side, and what each of them waits for. Pure.

The search tries sets of hyperparameters in lines: a first run, its extensions, its restarts, and their evaluations on
the search set. Lines go side by side as far as the plan allows; within a line one job follows the other. All that is
not of the search runs alone.
"""

from hfagent.agent.records import RunSpec
from hfagent.agent.runs import Run
from hfagent.agent.state import State


def of_search(spec: RunSpec) -> bool:
    """Whether a run is part of a line."""
    scores_a_run = spec.kind == "evaluate" and spec.set == "search" and spec.subject is not None
    return spec.kind == "train" or (scores_a_run and not spec.repeat and spec.guard is None)


def no_room(state: State, spec: RunSpec) -> str | None:
    """Why a run cannot start beside those that are open; None while it can."""
    running = [attempt.job.run for attempt in state.open_attempts]
    if not running:
        return None
    if len(running) >= state.plan.max_jobs:
        limit = "one job" if state.plan.max_jobs == 1 else f"{state.plan.max_jobs} jobs"
        return f"{', '.join(running)} {'is' if len(running) == 1 else 'are'} still open: {limit} at a time"
    alone = [name for name in running if not of_search(state.runs[name].spec)]
    if alone or not of_search(spec):
        return f"{(alone or running)[0]} is still open, and {alone[0] if alone else spec.name} runs alone"
    before = spec.subject or spec.parent or spec.instead_of or spec.name
    return f"a job of the line of {before} is still open" if before in busy(state) else None


def full(state: State) -> bool:
    """Whether nothing can start beside what is open, or nobody knows what is."""
    running = state.open_attempts
    if running and state.backend_lost is not None:
        return True
    return len(running) >= state.plan.max_jobs or any(not of_search(state.runs[a.job.run].spec) for a in running)


def busy(state: State) -> frozenset[str]:
    """Training runs of whose line a job is open."""
    running = [state.runs[attempt.job.run].spec for attempt in state.open_attempts]
    roots = {state.root(spec.subject or spec.name) for spec in running if of_search(spec)}
    return frozenset(run.spec.name for run in state.trained if state.root(run.spec.name) in roots)


def heads(state: State) -> list[Run]:
    """The newest run of each line in which nothing is open, the oldest line first."""
    newest = {state.root(run.spec.name): run for run in state.trained}
    working = busy(state) if state.open_attempts else frozenset[str]()
    return [run for run in newest.values() if run.spec.name not in working]


def going_on(state: State) -> frozenset[str]:
    """First runs of the lines of which more is to come."""
    found = {state.root(name) for name in busy(state)} if state.open_attempts else set[str]()
    for head in heads(state):
        decision = state.decision_on(head.spec.name)
        if decision is None or decision.action in ("extend", "change"):
            found.add(state.root(head.spec.name))
    return frozenset(found)
