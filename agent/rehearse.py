"""Rehearse a goal: many whole nights in a simulated world, and what their claims were worth.

Every night runs the real loop, policy, rules, desk, ledger and report; only jobs, metrics and time are simulated. So
the share of false claims is measured for the code that will make them, not for a formula.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from hfagent.agent import thresholds
from hfagent.agent.desk import Desk
from hfagent.agent.errors import HfagentError, PlanRejected, UsageError
from hfagent.agent.events import PlanConfirmed, PlanMade
from hfagent.agent.goal import parse_goal
from hfagent.agent.ledger import open_ledger
from hfagent.agent.loop import run_night
from hfagent.agent.plan import Flags, Surroundings, make_plan
from hfagent.agent.planner import StalledError, rule_planner
from hfagent.agent.recipes import load as load_recipe
from hfagent.agent.records import Plan, Record, TrainConfig
from hfagent.agent.report import render
from hfagent.agent.runs import Run
from hfagent.agent.search import OptunaSearcher
from hfagent.agent.settings import Settings
from hfagent.agent.simulated_jobs import SimulatedJobs
from hfagent.agent.simulated_ports import simulated_ports
from hfagent.agent.simulated_scenario import Scenario, load
from hfagent.agent.simulator import World
from hfagent.agent.stages import asked_methods
from hfagent.agent.state import State
from hfagent.agent.stats import wilson

PLANNERS = ("rules",)
CHUNKS_PER_PROCESS = 8
"""Portions in which nights are handed out: few enough to cost nothing, enough to keep all processes busy."""
MAX_CHUNK = 10
"""Nights of a portion at most, so that progress shows."""

MAX_EVENTS = 10_000
"""Of a night; one of 20 sets of hyperparameters has about 500. More is a loop without an end."""


class Rehearsal(Record):
    """What the claims of simulated nights were worth. The form of `hfagent rehearse --json`."""

    scenario: str
    seed: int
    nights: int
    claims: int
    """Nights that claimed a gain."""
    false_claims: int
    """Those whose model is truly no better than the base model."""
    mean_claimed_gain: float | None
    """In score units, over the nights with a claim; None without any."""
    mean_true_gain: float | None
    """Of the same models: what a set of endless problems would show."""
    gpu_hours: float
    """Billed hours of all jobs of all nights."""
    saved_fraction: float | None
    """Share of the hours of training and evaluating models without a true gain that was saved by ending them early;
    None where there was nothing to save."""
    wall_s: float
    """Seconds that the rehearsal took; all else is the same for the same arguments."""


class NightResult(Record):
    """One simulated night, held against the truth."""

    outcome: str
    """How the project ended."""
    claimed_gain: float | None
    """None without a claim."""
    true_gain: float | None
    """Of the claimed run."""
    chosen_gain: float
    """True gain of the run that was kept, claimed or not; 0 where none was."""
    billed_s: float
    bad_full_s: float
    """Of training all sets of hyperparameters without a true gain to the longest length and evaluating them in full."""
    bad_spent_s: float
    """What was spent on them."""
    good: int
    """Runs that were truly better than the best before them, by more than the noise of the search set."""
    good_lost: int
    """Those whose evaluation was ended as futile."""


def rehearse(
    goal: str,
    *,
    scenario: str,
    nights: int,
    seed: int,
    planner: str = "rules",
    processes: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Rehearsal:
    """Simulate nights side by side in several processes.

    Args:
        goal: as for a real night; model and data are named in the plan and never loaded.
        scenario: see `simulated_scenario.names`.
        nights: how many, each with a world of its own.
        seed: of all worlds; night i has the seed `night_seed(seed, i)`.
        planner: who plans; there is `rules`.
        processes: at most so many; None takes one for each processor. The result does not depend on it.
        progress: told how many nights are done.

    Raises:
        UsageError: a scenario, a planner or a number that cannot be used.
        PlanRejected: the goal cannot be planned.
        HfagentError: a night broke off; the message names it.
    """
    begun = time.perf_counter()
    if nights < 1:
        raise UsageError(f"{nights} nights rehearse nothing: ask for at least 1 with --nights")
    if planner not in PLANNERS:
        raise UsageError(f"the planner {planner!r} cannot rehearse: choose {' or '.join(map(repr, PLANNERS))}")
    world = load(scenario)
    plan = simulated_plan(goal, world)
    seeds = [night_seed(seed, number) for number in range(nights)]
    results: list[NightResult] = []
    for result in _all_nights(plan, world, seeds, processes or os.cpu_count() or 1):
        results.append(result)
        progress(len(results))
    return _summed(results, scenario=scenario, seed=seed, wall_s=time.perf_counter() - begun)


def text(found: Rehearsal) -> str:
    """The rehearsal for a person."""
    scenario = load(found.scenario)
    low, high = wilson(found.false_claims, found.nights)
    false_share = f"{found.false_claims / found.nights:.1%}, 95 % interval {low:.1%} to {high:.1%}"
    rows = [
        ("nights", f"{found.nights}, seed {found.seed}, {found.wall_s:.0f} s"),
        ("claims", f"{found.claims} nights ({found.claims / found.nights:.1%})"),
        ("false claims", f"{found.false_claims} nights ({false_share})"),
    ]
    if found.mean_claimed_gain is not None and found.mean_true_gain is not None:
        rows.append(("claimed gain", f"{100 * found.mean_claimed_gain:+.1f} points on average"))
        rows.append(("true gain", f"{100 * found.mean_true_gain:+.1f} points, of the same models"))
    rows.append(("GPU hours", f"{found.gpu_hours / found.nights:.1f} a night"))
    if found.saved_fraction is not None:
        rows.append(("saved", f"{found.saved_fraction:.0%} of the hours of models without a true gain, by early ends"))
    lines = [f"{name:<14}{value}" for name, value in rows]
    return "\n".join([f"{found.scenario}: {scenario.description}", *lines, f"expected: {scenario.expected}"])


def night_seed(seed: int, number: int) -> int:
    """The seed of one night: no two nights, also of neighbouring seeds, share it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:6], "big")


def simulated_plan(goal: str, scenario: Scenario) -> Plan:
    """The goal's plan as on a machine with a GPU and the Hub, with the scenario's numbers for the night.

    Raises:
        UsageError: a goal that cannot be read.
        PlanRejected: one that cannot be planned.
    """
    hints = parse_goal(goal)
    recipe = load_recipe(hints.task_area or "code")
    named = {recipe.search.name, recipe.confirm.name, *([hints.benchmark] if hints.benchmark else [])}
    here = Surroundings(hub=True, gpu=True, benchmarks=tuple(sorted(named)))
    method, *more = asked_methods(Flags(), hints)
    if more or method != "sft":
        raise PlanRejected(f"a rehearsal of {' then '.join((method, *more))} is not available yet: rehearse sft alone")
    plan = make_plan(goal, method=method, hints=hints, flags=Flags(), recipe=recipe, settings=Settings(), here=here)
    night = scenario.night
    return plan.model_copy(
        update={
            "project": "rehearsal",
            "backend": "simulated",
            "flavor": "simulated",
            "state_dir": None,
            "price_micro_usd_per_hour": round(night.price_usd_per_hour * 1_000_000),
            "max_hours": night.max_hours,
            "max_trials": night.max_trials,
            "max_jobs": night.max_jobs,
            "max_extensions": night.max_extensions,
            "train": TrainConfig.model_validate({**plan.train.model_dump(), **night.train}),
        }
    )


def rehearse_night(plan: Plan, scenario: Scenario, seed: int, folder: Path) -> NightResult:
    """One night from its plan to its report.

    Args:
        plan: see `simulated_plan`.
        scenario: what happens.
        seed: of the night.
        folder: for its ledger, which is removed.

    Raises:
        HfagentError: it broke off, which is a fault of the program or of the scenario.
    """
    ports, jobs = simulated_ports(World(scenario, seed), OptunaSearcher())
    path = folder / f"{seed}.jsonl"
    try:
        with open_ledger(path, ports.clock, sync=False) as book:
            book.append(PlanMade(plan=plan, versions={}))
            book.append(PlanConfirmed(by="--yes"))
            desk = Desk(book, ports)

            def check_end(state: State) -> None:
                if len(book.events) > MAX_EVENTS:
                    raise StalledError(
                        f"{len(book.events)} events and no end; the last one is {book.events[-1].fact!r}"
                    )

            state = run_night(desk, rule_planner(desk), on_tick=check_end, poll_s=scenario.night.poll_s)
        render(state)
    except HfagentError as error:
        raise type(error)(f"the night of seed {seed} in the scenario {scenario.name!r} broke off: {error}") from error
    finally:
        path.unlink(missing_ok=True)
    return _held_against(state, jobs)


def _held_against(state: State, jobs: SimulatedJobs) -> NightResult:
    base, claim = jobs.world.base.skill, state.claim
    claimed = claim.run if claim is not None and claim.label == "confirmed_better" else None
    gains = {run.spec.name: jobs.skill(run.last.job.key) - base for run in state.trained if jobs.ended_sound(run.last)}
    bad = [_spent(state, jobs, run) for run in state.trials if gains.get(run.spec.name, 1.0) <= 0]
    good, lost = _good(state, gains)
    return NightResult(
        outcome=state.ended.state if state.ended is not None else "running",
        claimed_gain=None if claimed is None or claim is None else claim.gain,
        true_gain=None if claimed is None else gains[claimed],
        chosen_gain=gains.get(state.kept or "", 0.0),
        billed_s=sum(a.running_s or 0.0 for run in state.runs.values() for a in run.attempts),
        bad_full_s=sum(full for full, _ in bad),
        bad_spent_s=sum(spent for _, spent in bad),
        good=good,
        good_lost=lost,
    )


def _spent(state: State, jobs: SimulatedJobs, first: Run) -> tuple[float, float]:
    """Seconds of a set of hyperparameters without a true gain: with all extensions in full, and as it was."""
    lengths = 1 + state.plan.max_extensions
    evaluation_s = jobs.evaluation_s(state.plan.search, state.plan.decoding("search").num_samples)
    line = [run for run in state.trained if state.root(run.spec.name) == first.spec.name]
    subjects = {run.spec.name for run in line}
    done = [*line, *(run for run in state.runs.values() if run.spec.subject in subjects and run.spec.set == "search")]
    spent_s = sum(attempt.running_s or 0.0 for run in done for attempt in run.attempts)
    return lengths * jobs.full_s[first.last.job.key] + evaluation_s, spent_s


def _good(state: State, gains: Mapping[str, float]) -> tuple[int, int]:
    """How many runs were truly better than the best kept before them, and how many of these were ended as futile."""
    best, good, lost = 0.0, 0, 0
    for run in state.trained:
        name = run.spec.name
        scored = state.scored(name, "search")
        if name not in gains or scored is None or scored.score is None:
            continue
        if gains[name] > best + thresholds.SEARCH_NOISE:
            good += 1
            lost += scored.score.futility is not None
        decision = state.decision_on(name)
        if decision is not None and decision.action == "keep" and decision.run is not None and decision.run in gains:
            best = gains[decision.run]
    return good, lost


def _all_nights(plan: Plan, scenario: Scenario, seeds: Sequence[int], processes: int) -> Iterator[NightResult]:
    """The results in the order of the seeds."""
    size = max(1, min(MAX_CHUNK, len(seeds) // (processes * CHUNKS_PER_PROCESS)))
    chunks = [seeds[start : start + size] for start in range(0, len(seeds), size)]
    if processes == 1 or len(chunks) == 1:
        for seed in seeds:
            yield from _some_nights(plan, scenario, [seed])
        return
    with ProcessPoolExecutor(min(processes, len(chunks))) as pool:
        try:
            for results in pool.map(_some_nights, [plan] * len(chunks), [scenario] * len(chunks), chunks):
                yield from results
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # one night is broken: the others tell nothing more
            raise


def _some_nights(plan: Plan, scenario: Scenario, seeds: Sequence[int]) -> list[NightResult]:
    with TemporaryDirectory() as folder:
        return [rehearse_night(plan, scenario, seed, Path(folder)) for seed in seeds]


def _summed(results: Sequence[NightResult], *, scenario: str, seed: int, wall_s: float) -> Rehearsal:
    pairs = [(r.claimed_gain, r.true_gain) for r in results]
    claims = [(claimed, true) for claimed, true in pairs if claimed is not None and true is not None]
    full_s, spent_s = sum(r.bad_full_s for r in results), sum(r.bad_spent_s for r in results)
    return Rehearsal(
        scenario=scenario,
        seed=seed,
        nights=len(results),
        claims=len(claims),
        false_claims=sum(true <= 0 for _, true in claims),
        mean_claimed_gain=fmean(claimed for claimed, _ in claims) if claims else None,
        mean_true_gain=fmean(true for _, true in claims) if claims else None,
        gpu_hours=sum(r.billed_s for r in results) / 3600,
        saved_fraction=1 - spent_s / full_s if full_s > 0 else None,
        wall_s=wall_s,
    )
