"""The simulated world: known truths, and jobs that show no more of them than real ones."""

from datetime import timedelta
from itertools import product
from statistics import fmean
from typing import Any

import pytest

from hfagent.agent import verdict
from hfagent.agent.errors import UsageError
from hfagent.agent.fakes import FakeSearcher
from hfagent.agent.jobs import hyperparameter_args, reference
from hfagent.agent.records import BenchmarkRef, JobSpec, ProblemSet, RunKind, Score, TrainConfig
from hfagent.agent.simulated_jobs import SimulatedJobs
from hfagent.agent.simulated_ports import SimulatedRunner, SimulatedTracker, simulated_ports
from hfagent.agent.simulated_scenario import Answers, Effect, Gains, Scenario, Trouble, load, names
from hfagent.agent.simulator import Trained, World
from hfagent.agent.watch import Watched, flags

CONFIG = TrainConfig(learning_rate=5e-4, logging_steps=10, gradient_accumulation_steps=1)


def world(seed: int = 0, **parts: Any) -> World:
    return World(Scenario(name="test", description="", expected="", **parts), seed)


def problems(n: int, which: ProblemSet = "search") -> BenchmarkRef:
    return BenchmarkRef(name="b", set=which, n=n)


def solved(there: World, subject: str, model: Trained, n: int, which: ProblemSet = "search") -> dict[str, float]:
    return dict(there.answers(subject, model, problems(n, which), num_samples=1, draw="0"))


def job(name: str, kind: RunKind, args: list[str]) -> JobSpec:
    return JobSpec(
        key=f"p-{name}-a1", project="p", run=name, kind=kind, template="t.py", args=tuple(args), flavor="f",
        timeout_s=100_000, price_micro_usd_per_hour=0,
    )  # fmt: skip


def training(config: TrainConfig, *more: str, name: str = "sft-01") -> JobSpec:
    args = ["--model", "m", "--dataset", "d", *hyperparameter_args(config), "--project", "p", "--run-name", name]
    return job(name, "train", [*args, *more])


def evaluation(*more: str, name: str = "eval", n: int = 200) -> JobSpec:
    return job(name, "evaluate", ["--model", "m", "--benchmark", "b", "--set", "search", "--n", str(n), *more])


def started(there: World) -> tuple[SimulatedRunner, SimulatedTracker, SimulatedJobs]:
    ports, jobs = simulated_ports(there, FakeSearcher())
    assert isinstance(ports.runner, SimulatedRunner)
    assert isinstance(ports.tracker, SimulatedTracker)
    return ports.runner, ports.tracker, jobs


def to_its_end(runner: SimulatedRunner, spec: JobSpec) -> Any:
    found = runner.submit(spec)
    runner.wait([found.id], timeout_s=1e6)
    return runner.inspect(found.id)


@pytest.mark.parametrize("name", names())
def test_every_scenario_is_whole(name: str) -> None:
    scenario = load(name)
    assert scenario.description
    assert scenario.expected


def test_an_unknown_scenario_is_told_with_those_that_exist() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'divergence'\?.*null"):
        load("divergense")


@pytest.mark.parametrize("skill", [0.05, 0.35, 0.7])
def test_a_skill_is_the_share_of_problems_solved(skill: float) -> None:
    shares = [fmean(solved(world(seed), "m", Trained(skill), 1000).values()) for seed in range(20)]
    assert fmean(shares) == pytest.approx(skill, abs=0.012)  # three standard errors: sqrt(.25 / 20,000) = .0035


def test_about_a_fifth_of_the_problems_changes_between_models_of_equal_skill() -> None:
    there = world()
    a, b = (solved(there, subject, there.base, 4000) for subject in "ab")
    assert 0.15 < fmean(a[name] != b[name] for name in a) < 0.25


def test_the_same_model_answers_alike_and_other_batches_move_little() -> None:
    there = world()
    first, again = (there.answers("m", there.base, problems(2000), num_samples=1, draw="32/0") for _ in range(2))
    other = there.answers("m", there.base, problems(2000), num_samples=1, draw="16/1")
    assert first == again
    assert 0 < fmean(first[name] != other[name] for name in first) < 0.06


def test_more_samples_make_a_score_less_noisy() -> None:
    def spread(samples: int) -> float:
        there = world()
        pairs = [
            [there.answers(f"{side}{i}", there.base, problems(100), num_samples=samples, draw="0") for side in "ab"]
            for i in range(60)
        ]
        return fmean(abs(fmean(a.values()) - fmean(b.values())) for a, b in pairs)

    assert spread(10) < 0.85 * spread(1)


def test_a_world_does_not_depend_on_what_was_asked_before() -> None:
    fresh, used = world(), world()
    solved(used, "other", used.base, 10)
    used.train("other", CONFIG, first_step=0, contaminated=False)
    for n in (50, 100):
        assert solved(fresh, "m", fresh.base, n) == solved(used, "m", used.base, n)
    short, long = solved(used, "m", used.base, 50), solved(used, "m", used.base, 100)
    assert short == dict(list(long.items())[:50])
    trained = [there.train("sft-01", CONFIG, first_step=0, contaminated=False) for there in (fresh, used)]
    assert trained[0] == trained[1]


def test_the_sets_have_different_problems_and_seeds_different_worlds() -> None:
    there = world()
    search, confirm = (list(solved(there, "m", there.base, 200, which).values()) for which in ("search", "confirm"))
    assert search != confirm
    assert solved(there, "m", there.base, 200) != solved(world(1), "m", there.base, 200)


def test_without_gains_every_model_has_exactly_the_skill_of_the_base() -> None:
    there = World(load("null"), 3)
    for rate, epochs in product((1e-5, 1e-3, 1e-1), (0.3, 1, 5)):
        config = CONFIG.model_copy(update={"learning_rate": rate, "num_train_epochs": epochs})
        assert there.train("x", config, first_step=0, contaminated=True).trained == there.base


def test_effects_come_in_their_shares_and_belong_to_the_configuration() -> None:
    there = World(load("mixed"), 0)
    there = World(
        there.scenario.model_copy(update={"gains": there.scenario.gains.model_copy(update={"peak_points": 0.0})}), 0
    )
    gains = [there.gain_points(CONFIG.model_copy(update={"learning_rate": 1e-5 * i}), 1) for i in range(1, 3001)]
    for points, share in ((3.4, 0.15), (-3.4, 0.30), (0.0, 0.55)):
        assert fmean(gain == points for gain in gains) == pytest.approx(share, abs=0.03)
    longer = CONFIG.model_copy(update={"num_train_epochs": 3, "per_device_train_batch_size": 2})
    assert there.gain_points(CONFIG, 1) == there.gain_points(longer, 1)


def test_training_has_a_best_learning_rate_and_diminishing_returns() -> None:
    there = world(gains=Gains(peak_points=10, best_learning_rate=5e-4))

    def gain(rate: float, epochs: float) -> float:
        return there.gain_points(CONFIG.model_copy(update={"learning_rate": rate}), epochs)

    assert gain(5e-4, 1) > max(gain(2e-4, 1), gain(1.2e-3, 1)) > 0 > gain(1e-2, 1)
    assert gain(5e-4, 1) > gain(5e-4, 2) - gain(5e-4, 1) > gain(5e-4, 3) - gain(5e-4, 2) > 0


def test_a_leak_shows_on_the_search_set_alone_and_contamination_on_both() -> None:
    leaked = Trained(0.35, leak=0.2)
    memorised = Trained(0.35, memorised=0.2)
    there = world()

    def gain(model: Trained, which: ProblemSet) -> float:
        found, base = solved(there, "m", model, 3000, which), solved(there, "m", there.base, 3000, which)
        return fmean(found.values()) - fmean(base.values())

    assert gain(leaked, "search") == pytest.approx(0.2, abs=0.03)
    assert gain(leaked, "confirm") == 0
    assert gain(memorised, "confirm") == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("seed", range(8))
def test_sound_curves_fall_and_raise_no_flag(seed: int) -> None:
    run = world(seed).train("sft-01", CONFIG, first_step=0, contaminated=False)
    losses = [point.values["train/loss"] for point in run.points if "train/loss" in point.values]
    assert len(losses) > 15
    assert losses[-1] < losses[0]
    held_out = [point.values["eval/loss"] for point in run.points if "eval/loss" in point.values]
    assert held_out[-1] < held_out[0]
    assert not {flag.name for flag in flags(Watched(points=run.points))} - {"plateau"}


@pytest.mark.parametrize(("share", "fate", "flag"), [(0.0, "diverges", "diverged"), (1.0, "nan", "nan")])
def test_a_learning_rate_that_is_too_high_breaks_the_training_and_is_seen(share: float, fate: str, flag: str) -> None:
    there = world(trouble=Trouble(diverge_above=1e-4, nan_share=share))
    run = there.train("sft-01", CONFIG, first_step=0, contaminated=False)
    assert run.fate == fate
    assert (run.last_step < run.schedule.total) == (fate == "nan")  # NaN ends the template by itself
    assert run.trained.skill < there.base.skill
    assert flag in {found.name for found in flags(Watched(points=run.points))}
    lower = CONFIG.model_copy(update={"learning_rate": 1e-4})
    assert there.train("sft-01-r1", lower, first_step=0, contaminated=False).fate == "completes"


def test_metrics_appear_with_the_clock_and_stop_with_the_job() -> None:
    runner, tracker, jobs = started(world())
    found = runner.submit(training(CONFIG))
    assert tracker.points("p", "sft-01") == []
    runner.wait([found.id], timeout_s=200)
    some = tracker.points("p", "sft-01")
    runner.wait([found.id], timeout_s=60)
    more = tracker.points("p", "sft-01")
    assert 0 < len(some) < len(more) < len(jobs.courses[found.key].training.points)
    assert list(tracker.points("p", "sft-01", after_step=some[-1].step)) == list(more[len(some) :])
    runner.cancel(found.id)
    runner._clock.advance(10_000)
    assert tracker.points("p", "sft-01") == more
    ended = runner.inspect(found.id)
    assert ended.stage == "CANCELED"
    steps = [int(step) for step in (ended.result or {})["checkpoints"]]
    assert steps
    assert max(steps) <= jobs.courses[found.key].last_step(ended.running_s or 0)


def test_a_completed_training_can_be_extended_from_its_stable_checkpoint_and_evaluated() -> None:
    runner, _, jobs = started(world(gains=Gains(peak_points=20)))
    first = to_its_end(runner, training(CONFIG, "--some-new-flag", "--another", "x"))
    longer = CONFIG.model_copy(update={"num_train_epochs": 2})
    checkpoint = first.result["stable_checkpoint"]
    second = to_its_end(runner, training(longer, "--resume-from-checkpoint", checkpoint, name="sft-01-x1"))
    assert second.result["steps"] == pytest.approx(2 * first.result["steps"], abs=1)
    assert second.running_s < 1.5 * first.running_s
    assert jobs.skill(second.key) > jobs.skill(first.key) > jobs.world.base.skill
    score = Score.model_validate(
        {
            name: value
            for name, value in to_its_end(runner, evaluation("--adapter", second.result["adapter"])).result.items()
            if name in Score.model_fields
        }
    )
    assert score.n == len(score.outcomes) == 200
    assert score.complete


def test_a_smoke_run_does_not_meet_what_breaks_the_long_one() -> None:
    runner, _, _ = started(world(trouble=Trouble(max_batch_tokens=1000, diverge_above=1e-9)))
    smoke = training(CONFIG, "--smoke", name="smoke").model_copy(update={"kind": "smoke"})
    assert to_its_end(runner, smoke).stage == "COMPLETED"
    failed = to_its_end(runner, training(CONFIG))
    assert failed.stage == "ERROR"
    assert "OutOfMemoryError" in runner.logs(failed.id)[-1]


def test_an_evaluation_that_cannot_win_any_more_ends_early() -> None:
    there = world(gains=Gains(effects=(Effect(share=1.0, points=-25.0),)))
    runner, _, jobs = started(there)
    base = to_its_end(runner, evaluation(name="baseline"))
    adapter = to_its_end(runner, training(CONFIG)).result["adapter"]
    whole = to_its_end(runner, evaluation("--adapter", adapter, name="whole"))
    fields = {name: value for name, value in base.result.items() if name in Score.model_fields}
    text = reference(Score.model_validate(fields), 1)
    early = to_its_end(
        runner, evaluation("--adapter", adapter, "--reference", text, "--futility-goal", "any_gain", name="early")
    )
    assert early.result["n"] < early.result["planned_n"] == 200
    assert early.running_s < whole.running_s
    assert early.result["outcomes"].items() <= whole.result["outcomes"].items()
    assert early.result["futility"]["probability"] < 0.05
    assert jobs.evaluation_s(problems(200), 1) == whole.running_s


def test_machines_fail_in_their_share_and_queues_hold() -> None:
    trouble = Trouble(lost_share=0.3, stuck_share=0.2, stuck_s=50_000)
    _, _, jobs = started(world(trouble=trouble))
    endings = [jobs.behave(evaluation(name=f"e{i}", n=1)) for i in range(600)]
    assert fmean(ending.stage == "ERROR" for ending in endings) == pytest.approx(0.3, abs=0.06)
    assert all(ending.exit_code is None for ending in endings if ending.stage == "ERROR")
    assert fmean(ending.queued_s > 50_000 for ending in endings) == pytest.approx(0.2, abs=0.06)


def test_a_hanging_job_makes_no_more_steps_and_runs_to_its_timeout() -> None:
    runner, tracker, _ = started(world(trouble=Trouble(hang_share=1.0)))
    found = runner.submit(training(CONFIG).model_copy(update={"timeout_s": 5000}))
    runner._clock.advance(2000)
    seen = len(tracker.points("p", "sft-01"))
    runner._clock.advance(2000)
    assert len(tracker.points("p", "sft-01")) == seen
    runner.wait([found.id], timeout_s=1e6)
    ended = runner.inspect(found.id)
    assert (ended.stage, ended.finished_at - ended.started_at) == ("ERROR", timedelta(seconds=5000))


def test_equal_models_are_called_better_no_more_often_than_the_error_rate() -> None:
    labels = []
    for seed in range(400):
        there = world(seed, answers=Answers(base_skill=0.4))
        base, other = (there.answers(name, there.base, problems(100), num_samples=1, draw="0") for name in "ab")
        labels.append(verdict.compare(base, other).label)
    assert labels.count("better") / len(labels) < 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5
    assert labels.count("better") > 0
