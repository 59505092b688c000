"""What the decisions are worth: rehearsed nights against two rivals in the same simulated worlds, with the same hours.

    python benchmarks/decisions.py [--nights 1000] [--rival-nights 1000] [--other-nights 100] [--seed 2]

Writes `benchmarks/decisions.md`. The rivals search as people do, on the benchmark itself:

- the fixed recipe: the plan's hyperparameters for three epochs, the model kept if its score is higher;
- Optuna: TPE over the same levers with median pruning on the evaluation loss, the model with the highest score kept,
  until the hours of the rehearsed night are used.
"""

import argparse
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import optuna

from hfagent.agent.records import Plan, TrainConfig
from hfagent.agent.rehearse import NightResult, night_seed, rehearse_night, simulated_plan
from hfagent.agent.simulated_scenario import Scenario, load, names
from hfagent.agent.simulator import Training, World
from hfagent.agent.space import configure, space
from hfagent.agent.stats import wilson

GOAL = "improve code solving with SFT"
RECIPE_EPOCHS = 3
"""Of the published report that this project automates: one epoch, extended to three."""
HERE = Path(__file__).parent


def train(world: World, name: str, config: TrainConfig) -> tuple[Training, float]:
    """A training and its hours."""
    machine = world.scenario.machine
    training = world.train(name, config, first_step=0, contaminated=False)
    batch = config.per_device_train_batch_size * config.gradient_accumulation_steps
    seconds = machine.start_s + training.last_step * batch * machine.row_tokens / machine.tokens_per_s
    return training, seconds / 3600


def score(world: World, plan: Plan, name: str, training: Training | None) -> tuple[float, float]:
    """Score on the benchmark itself, greedy as people do it, and the hours it took."""
    model = world.base if training is None else training.trained
    outcomes = world.answers(name, model, plan.confirm, num_samples=1, draw="0")
    machine = world.scenario.machine
    return fmean(outcomes.values()), (machine.start_s + len(outcomes) / machine.answers_per_s) / 3600


def fixed_recipe(plan: Plan, scenario: Scenario, seed: int) -> dict[str, float]:
    """True and published gain of the fixed recipe."""
    world = World(scenario, seed)
    config = plan.train.model_copy(update={"num_train_epochs": RECIPE_EPOCHS})
    training, hours = train(world, "recipe", config)
    base, first = score(world, plan, "base", None)
    mine, second = score(world, plan, "recipe", training)
    kept = mine > base
    true = training.trained.skill - world.base.skill
    return {"true": true if kept else 0.0, "claimed": mine - base if kept else 0.0, "hours": hours + first + second}


def tpe(plan: Plan, scenario: Scenario, seed: int, hours: float) -> dict[str, float]:
    """True and published gain of the best of an Optuna search within so many hours."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    world, levers = World(scenario, seed), space(plan)
    grid: dict[str, optuna.distributions.BaseDistribution] = {
        lever.name: optuna.distributions.FloatDistribution(lever.low, lever.high, log=True)
        if lever.name == "learning_rate"
        else optuna.distributions.CategoricalDistribution(lever.choices)
        for lever in levers.searched
    }
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed % 2**31),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
    )
    study.enqueue_trial(levers.values(plan.train))
    base, spent = score(world, plan, "base", None)
    best, true = base, 0.0
    while spent < hours:
        trial = study.ask(grid)
        name = f"trial-{trial.number}"
        training, full = train(world, name, configure(plan.train, trial.params))
        share = _pruned_at(trial, training)
        spent += full * share
        if training.fate not in ("completes", "diverges") or share < 1:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            continue
        mine, evaluation = score(world, plan, name, training)
        spent += evaluation
        study.tell(trial, mine)
        if mine > best:
            best, true = mine, training.trained.skill - world.base.skill
    return {"true": true, "claimed": best - base, "hours": spent}


def _pruned_at(trial: "optuna.Trial", training: Training) -> float:
    """Share of the training that is done before the pruner ends it; 1 to its end."""
    for point in training.points:
        loss = point.values.get("eval/loss")
        if loss is not None:
            trial.report(-loss, point.step)
            if trial.should_prune():
                return point.step / training.last_step
    return 1.0


def one(plan: Plan, scenario: Scenario, seed: int, *, rivals: bool) -> tuple[NightResult, list[dict[str, float]]]:
    """A rehearsed night, and the rivals in the same world with its hours."""
    with tempfile.TemporaryDirectory() as folder:
        night = rehearse_night(plan, scenario, seed, Path(folder))
    hours = night.billed_s / 3600
    return night, [fixed_recipe(plan, scenario, seed), tpe(plan, scenario, seed, hours)] if rivals else []


def nights(name: str, count: int, seed: int, *, rivals: bool) -> tuple[list[Any], float]:
    """Nights of a scenario over all processors, and the seconds they took."""
    scenario = load(name)
    work = partial(one, simulated_plan(GOAL, scenario), scenario, rivals=rivals)
    begun = time.perf_counter()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(work, [night_seed(seed, i) for i in range(count)], chunksize=4))
    return found, time.perf_counter() - begun


def mean(values: list[float]) -> str:
    """Mean with its standard error, in points."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{100 * fmean(values):+.2f} ± {100 * error:.2f}"


def saved(results: list[NightResult]) -> str:
    """Share of the time of bad candidates that was saved."""
    full = sum(r.bad_full_s for r in results)
    return f"{1 - sum(r.bad_spent_s for r in results) / full:.0%}" if full else "–"


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--nights", type=int, default=1000, help="of the scenario null")
    parser.add_argument("--rival-nights", type=int, default=1000, help="of the scenario mixed, rivals beside")
    parser.add_argument("--other-nights", type=int, default=100, help="of each other scenario")
    parser.add_argument("--seed", type=int, default=2, help="0 was tuned on")
    args = parser.parse_args()
    lines = header(args)
    lines += null_table(*nights("null", args.nights, args.seed, rivals=False))
    lines += mixed_table(*nights("mixed", args.rival_nights, args.seed, rivals=True))
    lines += other_table(args.other_nights, args.seed)
    text = "\n".join(lines) + "\n"
    (HERE / "decisions.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def header(args: argparse.Namespace) -> list[str]:
    """Where the numbers come from."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE, check=False
    )
    machine = f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    command = "python benchmarks/decisions.py " + " ".join(
        f"--{name.replace('_', '-')} {value}" for name, value in vars(args).items()
    )
    return [
        "# Rehearsed decisions",
        "",
        f"Made by `{command}` at commit {commit.stdout.strip() or 'unknown'}, {machine}.",
        "Everything is simulated: see `hfagent rehearse`.",
        "",
    ]


def null_table(found: list[Any], wall_s: float) -> list[str]:
    """Nights without anything to find."""
    results = [night for night, _ in found]
    claims = [r for r in results if r.claimed_gain is not None]
    low, high = wilson(len(claims), len(results))
    published = [r.claimed_gain or 0.0 for r in results]
    return [
        f"## Null: {len(results)} nights in which no candidate is better",
        "",
        "| Measure | Value |",
        "| --- | --- |",
        f"| Nights that end with a claim | {len(claims) / len(results):.1%} (95 % interval {low:.1%} to {high:.1%}) |",
        f"| Published gain, nights without a claim counted as 0 | {mean(published)} points |",
        f"| Hours of candidates saved by early ends | {saved(results)} |",
        f"| Wall clock of all nights | {wall_s:.0f} s |",
        "",
    ]


def mixed_table(found: list[Any], wall_s: float) -> list[str]:
    """Nights with something to find, against the rivals."""
    ours = [night for night, _ in found]
    rows = [("hfagent", [(r.chosen_gain, r.claimed_gain, r.billed_s / 3600) for r in ours])]
    for index, name in enumerate(("fixed recipe", "Optuna TPE, median pruning, on the benchmark")):
        rows.append((name, [(r[index]["true"], r[index]["claimed"], r[index]["hours"]) for _, r in found]))
    budget = fmean(r.billed_s for r in ours) / 3600
    lines = [
        f"## Mixed: {len(ours)} nights, {budget:.1f} GPU hours each",
        "",
        "| Who | True gain of the chosen model | Published - true | Hours used | True gain per hour of the budget |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, results in rows:
        true, inflation = [r[0] for r in results], [r[1] - r[0] for r in results if r[1] is not None]
        per_hour = 100 * fmean(true) / budget
        hours = fmean(r[2] for r in results)
        lines.append(f"| {name} | {mean(true)} | {mean(inflation)} | {hours:.1f} | {per_hour:.2f} |")
    claims = [r for r in ours if r.claimed_gain is not None]
    false = sum((r.true_gain or 0.0) <= 0 for r in claims)
    good, lost = sum(r.good for r in ours), sum(r.good_lost for r in ours)
    lines += [
        "",
        f"hfagent claimed in {len(claims)} nights, {false} of them falsely. Of the hours that training every candidate "
        f"without a true gain to the longest length and evaluating it in full would take, {saved(ours)} were saved. "
        f"Of {good} runs that were truly better than the best before them, {lost} were ended as futile "
        f"({lost / max(good, 1):.1%}). Wall clock with both rivals: {wall_s:.0f} s.",
    ]
    return lines


def other_table(count: int, seed: int) -> list[str]:
    """Nights of every other scenario, in which things go wrong."""
    lines = [
        "",
        f"## Trouble: {count} nights each",
        "",
        "| Scenario | What happens | Ended by themselves | Claims | False claims | True gain of the chosen model |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in (name for name in names() if name not in ("null", "mixed")):
        results = [night for night, _ in nights(name, count, seed, rivals=False)[0]]
        finished = sum(r.outcome == "finished" for r in results)
        claims = [r for r in results if r.claimed_gain is not None]
        false = sum((r.true_gain or 0.0) <= 0 for r in claims)
        gain = mean([r.chosen_gain for r in results])
        lines.append(f"| {name} | {load(name).description} | {finished} | {len(claims)} | {false} | {gain} |")
    return lines


if __name__ == "__main__":
    main()
