from dataclasses import replace
from pathlib import Path

import pytest
from nights import state_of
from world import SKILL, World, killed, make_plan
from world import night as finished_night

from hfagent.agent import estimate, ledger
from hfagent.agent.estimate import DataSize
from hfagent.agent.fakes import Ending
from hfagent.agent.hardware import fallback, gpus
from hfagent.agent.night_jobs import elsewhere, night_jobs
from hfagent.agent.records import BenchmarkRef, JobSpec, Plan, RunSpec, TrainConfig
from hfagent.job_templates.training import plan_schedule
from hfagent.tools.benchmarks import names, problems
from hfagent.tools.hub_benchmarks import HUB_BENCHMARKS


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(eval_fraction=0.11),
        TrainConfig(eval_fraction=0.11, num_train_epochs=2),
        TrainConfig(eval_fraction=0, per_device_train_batch_size=3),
        TrainConfig(max_steps=5),
    ],
)
def test_the_steps_announced_are_those_that_the_script_takes(config: TrainConfig) -> None:
    rows = 144
    kept = rows - round(rows * config.eval_fraction)
    taken = plan_schedule(config, rows=kept, batch=config.batch).total
    assert estimate.total_steps(config, rows) == taken


def test_a_gpu_is_not_estimated_as_a_processor() -> None:
    plan = make_plan()
    assert night(plan.model_copy(update={"gpu": True})) < night(plan)


def night(plan: Plan, **data: float) -> float:
    return estimate.night_s(plan, DataSize.model_validate(data))


def test_few_and_short_rows_take_less_time_than_unknown_ones() -> None:
    plan = make_plan(train=TrainConfig(max_rows=None, max_length=2048))
    few, short = night(plan, rows=60), night(plan, rows=60, mean_tokens=20)
    assert short < few < night(plan)
    assert night(plan, rows=10**6) > night(plan, rows=10**5)
    assert night(plan, rows=60, mean_tokens=10**6) == night(plan, rows=60, mean_tokens=2048)


def test_the_rows_asked_for_bound_those_that_there_are() -> None:
    plan = make_plan(train=TrainConfig(max_rows=100))
    assert night(plan, rows=10**6) == night(plan, rows=100) == night(plan)
    assert night(plan, rows=10) < night(plan)


def test_every_run_that_the_plan_allows_is_counted() -> None:
    plan, data = make_plan(max_extensions=0, max_trials=1), DataSize(rows=100)
    one = estimate.training_s(plan, plan.train, data) + estimate.evaluation_s(plan, plan.search)
    for changed in ({"max_trials": 2}, {"max_extensions": 1}, {"max_extensions": 3}):
        assert estimate.night_s(plan.model_copy(update=changed), data) - estimate.night_s(plan, data) == pytest.approx(
            one
        )
    evaluations = 3 * estimate.evaluation_s(plan, plan.search) + 2 * estimate.evaluation_s(plan, plan.confirm)
    rest = estimate.night_s(plan, data) - evaluations - estimate.training_s(plan, plan.train, data)
    assert 0 < rest <= 2 * estimate.START_S


def test_the_size_of_every_benchmark_is_known() -> None:
    assert set(names()) == estimate.BENCHMARK_SIZES.keys()


@pytest.mark.parametrize("name", sorted(set(names()) - HUB_BENCHMARKS.keys()))
def test_sizes_of_benchmarks_are_those_of_their_problems(name: str) -> None:
    found = problems(BenchmarkRef(name=name, set="confirm"))
    size = estimate.BENCHMARK_SIZES[name]
    assert size.problems == len(found)
    assert 0 < size.answer_tokens <= max(problem.max_new_tokens for problem in found)


def test_humaneval_takes_longer_than_short_answers() -> None:
    plan = make_plan()
    other = plan.model_copy(update={"confirm": BenchmarkRef(name="openai_humaneval", set="confirm")})
    assert night(other) > night(plan)


def test_an_evaluation_is_estimated_by_one_of_the_same_problems_or_by_the_work_of_another(tmp_path: Path) -> None:
    state = finished_night(tmp_path / "night.jsonl", World(SKILL))
    plan = state.plan.model_copy(update={"confirm": BenchmarkRef(name="openai_humaneval", set="confirm")})
    runs = {name: run for name, run in state.runs.items() if run.spec.set != "confirm"}
    early = replace(state, plan=plan, runs=runs)
    search, confirm = (RunSpec(name="x", kind="evaluate", why="w", set=name) for name in ("search", "confirm"))
    measured = next(run.last.running_s for run in reversed(runs.values()) if run.spec.set == "search")
    assert estimate.run_s(early, search) == measured
    assert measured is not None
    work = estimate.evaluation_s(plan, plan.confirm) / estimate.evaluation_s(plan, plan.search)
    assert estimate.run_s(early, confirm) == pytest.approx(measured * work)


def test_timeouts_leave_room_and_costs_round_up() -> None:
    assert estimate.timeout_s(10) == estimate.MIN_TIMEOUT_S
    assert estimate.timeout_s(1000) == 3600
    assert estimate.cost_micro_usd(make_plan(price_micro_usd_per_hour=1), 1) == 1


RENTED = {"backend": "hf", "gpu": True, "accelerator": "l4", "flavor": "l4x1", "price_micro_usd_per_hour": 800_000}


def test_a_known_gpu_is_estimated_by_its_own_speed() -> None:
    plan, data = make_plan(**RENTED), DataSize(rows=10_000, mean_tokens=500)
    faster = plan.model_copy(update={"accelerator": "h200"})
    train = estimate.training_s(plan, plan.train, data) - estimate.HF_START_S
    peak = {name: gpus()[name].tflops for name in ("l4", "h200")}
    assert train / (estimate.training_s(faster, plan.train, data) - estimate.HF_START_S) == pytest.approx(
        peak["h200"] / peak["l4"]
    )
    assert estimate.evaluation_s(faster, plan.search) < estimate.evaluation_s(plan, plan.search)
    unheard_of = plan.model_copy(update={"accelerator": "b9000"})
    assert estimate.training_s(unheard_of, plan.train, data) > 0


def test_flops_by_hand() -> None:
    plan = make_plan(**RENTED, train=TrainConfig(max_steps=100, per_device_train_batch_size=8, max_length=1000))
    data = DataSize(rows=1000, mean_tokens=500)
    tokens = 100 * 8 * 500
    by_hand = 6 * 135e6 * tokens / (0.3 * 121e12)
    assert estimate.training_s(plan, plan.train, data) == pytest.approx(180 + by_hand)
    large = plan.model_copy(update={"model": plan.model.model_copy(update={"parameters": 4_000_000_000})})
    by_hand = 8 * 4e9 * tokens / (0.3 * 121e12)
    assert estimate.training_s(large, large.train, data) == pytest.approx(180 + by_hand)


def test_the_jobs_of_a_night_add_up_to_it_and_cost_to_the_micro_dollar() -> None:
    plan, data = make_plan(**RENTED, max_trials=3, max_extensions=2), DataSize(rows=5000)
    jobs = night_jobs(plan, data)
    assert sum(job.count * job.expected_s for job in jobs) == pytest.approx(estimate.night_s(plan, data))
    assert {job.name: job.count for job in jobs} == {
        "smoke": 1, "baseline": 1, "training": 4, "evaluation": 4, "baseline again": 1, "confirmation": 2,
    }  # fmt: skip
    for job in jobs:
        spec = JobSpec(
            key="k", project="p", run="r", kind=job.kind, template="t.py", args=(), flavor=plan.flavor,
            timeout_s=job.timeout_s, price_micro_usd_per_hour=plan.price_micro_usd_per_hour,
        )  # fmt: skip
        assert job.reserved_micro_usd == job.count * spec.reserve_micro_usd
        assert 0 < job.expected_micro_usd < job.reserved_micro_usd
        exact = job.count * job.expected_s * 800_000 / 3600
        assert 0 <= job.expected_micro_usd - exact < job.count


def test_the_same_night_elsewhere_is_ordered_by_what_it_costs() -> None:
    plan, data = make_plan(**RENTED), DataSize(rows=5000)
    others = elsewhere(plan, data, tuple(f for f in fallback().flavors if f.gpus == 1))
    assert "l4x1" not in {other.flavor for other in others}
    assert len(others) == 8
    costs = [other.expected_micro_usd for other in others]
    assert costs == sorted(costs)


def test_the_first_training_is_estimated_by_the_speed_of_the_smoke_run(tmp_path: Path) -> None:
    path, there = tmp_path / "night.jsonl", World(SKILL)
    measured = {"steps": 3, "seconds": 30.0, "step_s": 4.0, "tokens": 1200}
    there.endings = lambda spec: Ending(running_s=60, result=measured) if spec.kind == "smoke" else None
    killed(path, there, lambda event: getattr(event.fact, "job", None) is not None and event.fact.job.run == "sft-01")
    events = [e for e in ledger.read(path) if getattr(getattr(e.fact, "job", None), "run", None) != "sft-01"]
    state = state_of(events)
    spec = RunSpec(name="sft-01", kind="train", why="first", train=state.plan.train)
    steps = estimate.total_steps(state.plan.train, 160)
    assert state.dataset is not None
    lengths = state.dataset.token_lengths
    share = 1.0 if lengths is None else 8 * min(lengths["p50"], 1024) / 400
    assert estimate.run_s(state, spec) == pytest.approx(60 - 30 + steps * 4.0 * share)
    double = spec.model_copy(update={"train": spec.train and spec.train.model_copy(update={"max_length": 2048})})
    assert estimate.run_s(state, double) == pytest.approx(30 + steps * 4.0 * (2.0 if lengths is None else share))
    unmeasured = finished_night(tmp_path / "other.jsonl", World(SKILL))
    runs = {"smoke": unmeasured.runs["smoke"]}
    rough = replace(unmeasured, runs=runs)
    by_size = estimate.training_s(rough.plan, rough.plan.train, estimate.data_size(rough.dataset))
    assert estimate.run_s(rough, spec) == by_size
