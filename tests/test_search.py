"""The search by Optuna: chosen well from few noisy scores, the same after any interruption."""

import math
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from world import make_plan

from hfagent.agent.errors import PlanRejected
from hfagent.agent.events import Proposed
from hfagent.agent.findings import Outcome, Trial
from hfagent.agent.hypotheses import enqueue, levers_changed
from hfagent.agent.records import ModelRef, TrainConfig
from hfagent.agent.search import OptunaSearcher
from hfagent.agent.space import configure, space

PLAN = make_plan(
    model=ModelRef(id="Qwen/Qwen3-0.6B", parameters=596_049_920),
    train=TrainConfig(learning_rate=5.3e-4, per_device_train_batch_size=8),
)
SPACE = space(PLAN)
GRID = SPACE.grid()
Truth = Callable[[dict[str, float]], float]


def tried(proposed: Proposed, value: float | None = 0.4, outcome: Outcome = "scored") -> Trial:
    return Trial(
        number=proposed.number,
        config=proposed.config,
        why=proposed.why,
        source=proposed.source,
        value=value,
        outcome=outcome,
    )


RECIPE = Trial(number=1, config=PLAN.train, why="recipe", source="recipe", value=0.4, outcome="scored")


def night(searcher: OptunaSearcher, trials: int, *, seed: int = 0, truth: Truth) -> list[Trial]:
    rng = random.Random(seed)
    past = [RECIPE.model_copy(update={"value": truth(SPACE.values(PLAN.train)) + rng.gauss(0, 0.02)})]
    while len(past) < trials:
        proposed = searcher.propose(PLAN, past)
        past.append(tried(proposed, truth(SPACE.values(proposed.config)) + rng.gauss(0, 0.02)))
    return past


def hill(seed: int) -> Truth:
    """A score that falls by the square of ln(learning rate) about an optimum near the plan's, other levers mattering
    by a point or so; all of it drawn anew for each seed.
    """
    rng = random.Random(f"hill {seed}")
    best, steep = rng.gauss(0, 0.7), 0.03 * math.exp(rng.gauss(0, 0.4))
    slopes = {name: rng.gauss(0, 0.01) for name in SPACE.values(PLAN.train) if name != "learning_rate"}
    plan = SPACE.values(PLAN.train)

    def truth(values: dict[str, float]) -> float:
        score = 0.4 - steep * (math.log(values["learning_rate"] / plan["learning_rate"]) - best) ** 2
        return score + sum(slope * math.log(values[name] / plan[name]) for name, slope in slopes.items())

    return truth


def regrets(values: list[float], scores: list[float], best: float) -> tuple[float, float]:
    """Points lost by keeping the best-scored of the first 10, and of all 20 trials."""
    chosen = [max(range(n), key=scores.__getitem__) for n in (10, 20)]
    return 100 * (best - values[chosen[0]]), 100 * (best - values[chosen[1]])


def ours(seed: int, truth: Truth) -> list[tuple[float, float]]:
    past = night(OptunaSearcher(), 20, seed=seed, truth=truth)
    return [(truth(SPACE.values(trial.config)), trial.value or 0.0) for trial in past]


def theirs(sampler: Callable[[int], BaseSampler], seed: int, truth: Truth) -> list[tuple[float, float]]:
    """Optuna's sampler over the same grid, the plan first."""
    rng, found = random.Random(seed), []
    study = optuna.create_study(direction="maximize", sampler=sampler(seed))
    for number in range(20):
        if number == 0:
            values, asked = SPACE.values(PLAN.train), None
        else:
            asked = study.ask()
            index = {v.name: asked.suggest_int(v.name, 0, len(v.choices) - 1) for v in SPACE.searched}
            values = {v.name: v.choices[index[v.name]] for v in SPACE.searched}
        found.append((truth(values), truth(values) + rng.gauss(0, 0.02)))
        if asked is not None:
            study.tell(asked, found[-1][1])
    return found


def compared(nights: int) -> dict[str, tuple[float, float]]:
    """Mean regret in points after 10 and after 20 trials, by method."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    methods: dict[str, Callable[[int, Truth], list[tuple[float, float]]]] = {
        "ours": ours,
        "random": lambda seed, truth: theirs(lambda s: RandomSampler(seed=s), seed, truth),
        "tpe": lambda seed, truth: theirs(lambda s: TPESampler(seed=s, n_startup_trials=5), seed, truth),
    }
    table = {}
    for name, method in methods.items():
        lost = []
        for seed in range(nights):
            truth = hill(seed)
            values, scores = zip(*method(seed, truth), strict=True)
            lost.append(regrets(list(values), list(scores), max(truth(point) for point in GRID)))
        table[name] = (fmean(ten for ten, _ in lost), fmean(twenty for _, twenty in lost))
    return table


def test_it_beats_random_search_and_tpe_on_noisy_scores() -> None:
    table = compared(15)
    assert table["ours"][1] < 0.8 * min(table["random"][1], table["tpe"][1])
    assert table["ours"][0] < min(table["random"][0], table["tpe"][0])


def test_no_hypothesis_is_tried_twice_and_all_are_within_the_space() -> None:
    past = night(OptunaSearcher(), 30, truth=hill(0))
    configs = [trial.config for trial in past]
    assert all(levers_changed(a, b) for i, a in enumerate(configs) for b in configs[:i])
    for config in configs[1:]:
        values = SPACE.values(config)
        assert all(values[lever.name] in lever.choices for lever in SPACE.searched)
        assert config == configure(PLAN.train, values)


def test_a_fresh_searcher_goes_on_as_the_old_one_would(tmp_path: Path) -> None:
    past = night(OptunaSearcher(tmp_path), 12, truth=hill(1))
    for known in range(1, 12):
        proposed = OptunaSearcher().propose(PLAN, past[:known])
        assert (proposed.config, proposed.why) == (past[known].config, past[known].why)


def test_another_process_proposes_the_same(tmp_path: Path) -> None:
    past = night(OptunaSearcher(), 6, truth=hill(2))
    script = (
        "import sys; from hfagent.agent.records import Plan; from hfagent.agent.findings import Trial;"
        "from hfagent.agent.search import OptunaSearcher;"
        "plan, *past = sys.stdin.read().splitlines();"
        "past = [Trial.model_validate_json(line) for line in past];"
        "print(OptunaSearcher().propose(Plan.model_validate_json(plan), past).model_dump_json())"
    )
    lines = "\n".join(record.model_dump_json() for record in (PLAN, *past))
    done = subprocess.run([sys.executable, "-c", script], input=lines, capture_output=True, text=True, check=True)
    assert Proposed.model_validate_json(done.stdout) == OptunaSearcher().propose(PLAN, past)
    assert done.stderr == ""


def test_asking_again_gives_the_same_and_leaves_nothing_behind() -> None:
    searcher, past = OptunaSearcher(), night(OptunaSearcher(), 5, truth=hill(3))
    assert searcher.propose(PLAN, past) == searcher.propose(PLAN, past) == OptunaSearcher().propose(PLAN, past)


def test_what_was_tried_instead_of_the_proposal_counts() -> None:
    searcher, past = OptunaSearcher(), [RECIPE]
    searcher.propose(PLAN, past)
    idea = enqueue(PLAN, past, {"lora_r": 32}, "more room")
    assert isinstance(idea, Proposed)
    assert (idea.number, idea.source, idea.why) == (2, "planner", "more room")
    assert idea.config == PLAN.train.model_copy(update={"lora_r": 32})
    past = [RECIPE, tried(idea, 0.5)]
    assert searcher.propose(PLAN, past) == OptunaSearcher().propose(PLAN, past)


@pytest.mark.parametrize("left", [b"", b"no json\n{", b'{"op_code": 0, "worker_id": "x", "study'])
def test_a_torn_journal_and_a_lock_left_by_a_killed_process_do_not_matter(tmp_path: Path, left: bytes) -> None:
    past = night(OptunaSearcher(), 5, truth=hill(4))
    journal = tmp_path / f"{PLAN.project}.optuna.log"
    journal.write_bytes(left)
    journal.with_name(journal.name + ".lock").symlink_to(journal)
    begun = time.monotonic()
    assert OptunaSearcher(tmp_path).propose(PLAN, past) == OptunaSearcher().propose(PLAN, past)
    assert time.monotonic() - begun < 5


def test_the_journal_holds_the_trials_for_optunas_own_tools(tmp_path: Path) -> None:
    past = night(OptunaSearcher(tmp_path), 5, truth=hill(5))
    searcher = OptunaSearcher(tmp_path)
    searcher.propose(PLAN, past)
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / f"{PLAN.project}.optuna.log"))
    )
    study = optuna.load_study(study_name=None, storage=storage)
    assert [trial.value for trial in study.trials] == [*(trial.value for trial in past), None]
    assert study.trials[1].params == SPACE.values(past[1].config)
    assert study.best_value == max(trial.value or 0 for trial in past)


def test_it_stays_away_from_where_training_failed() -> None:
    searcher, past = OptunaSearcher(), [RECIPE]
    for _ in range(9):
        proposed = searcher.propose(PLAN, past)
        diverges = proposed.config.learning_rate > 6e-4
        past.append(tried(proposed, None, "failed") if diverges else tried(proposed))
    high = [trial.config.learning_rate > 6e-4 for trial in past]
    assert any(high[1:5])
    assert sum(high[1:]) <= 5
    assert sum(lever > 6e-4 for lever in SPACE.levers[0].choices) > 0.4 * len(SPACE.levers[0].choices)


def test_what_ran_out_of_memory_is_not_proposed_at_that_size_again() -> None:
    big = next(lever for lever in SPACE.levers if lever.name == "lora_r").choices[2]
    searcher, past = OptunaSearcher(), [RECIPE]
    no_room = configure(PLAN.train, {"lora_r": big, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8})
    past.append(Trial(number=2, config=no_room, why="big", source="optuna", outcome="out_of_memory"))
    for _ in range(10):
        proposed = searcher.propose(PLAN, past)
        assert proposed.config.lora_r < big
        past.append(tried(proposed))


def test_a_micro_batch_that_memory_forced_down_stays_down() -> None:
    forced = PLAN.train.model_copy(update={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4})
    past = [RECIPE.model_copy(update={"config": forced})]
    searcher = OptunaSearcher()
    for _ in range(5):
        proposed = searcher.propose(PLAN, past)
        assert proposed.config.per_device_train_batch_size <= 2
        past.append(tried(proposed))


def test_a_night_without_any_set_that_fits_ends_with_a_reason() -> None:
    smallest = configure(PLAN.train, {"per_device_train_batch_size": 1, "lora_r": 8})
    past = [RECIPE.model_copy(update={"config": smallest, "outcome": "out_of_memory", "value": None})]
    with pytest.raises(PlanRejected, match="smaller model"):
        OptunaSearcher().propose(PLAN, past)


def test_running_trials_are_not_proposed_again() -> None:
    searcher, past = OptunaSearcher(), [RECIPE]
    for _ in range(4):
        past.append(tried(searcher.propose(PLAN, past), None, "open"))
    assert len({trial.config.model_dump_json() for trial in past}) == 5
    ended = [
        past[0],
        *(tried(Proposed(**t.model_dump(include={"number", "config", "why", "source"})), 0.3) for t in past[1:]),
    ]
    assert searcher.propose(PLAN, ended) == OptunaSearcher().propose(PLAN, ended)


def test_an_extended_run_beyond_the_limits_is_a_trial_like_any_other() -> None:
    longer = PLAN.train.model_copy(update={"num_train_epochs": 9.0, "learning_rate": 1e-5})
    past = [RECIPE.model_copy(update={"config": longer})]
    assert OptunaSearcher().propose(PLAN, past).number == 2


def test_one_searcher_serves_another_plan() -> None:
    other = make_plan(method="dpo", project="other", train=TrainConfig(method="dpo", learning_rate=5e-6))
    searcher = OptunaSearcher()
    searcher.propose(PLAN, [RECIPE])
    past = [RECIPE.model_copy(update={"config": other.train})]
    assert searcher.propose(other, past) == OptunaSearcher().propose(other, past)


def test_a_proposal_is_quick_and_silent(recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]) -> None:
    warnings.simplefilter("always")
    searcher, times, past = OptunaSearcher(), [], [RECIPE]
    for _ in range(20):
        begun = time.process_time()
        past.append(tried(searcher.propose(PLAN, past)))
        times.append(time.process_time() - begun)
    assert sorted(times)[10] < 0.03
    assert [str(w.message) for w in recwarn] == []
    assert capfd.readouterr() == ("", "")
