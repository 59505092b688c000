from dataclasses import replace
from pathlib import Path

import pytest
from world import SKILL, World, make_plan
from world import night as finished_night

from hfagent.agent import estimate
from hfagent.agent.estimate import DataSize
from hfagent.agent.records import BenchmarkRef, Plan, RunSpec, TrainConfig
from hfagent.job_templates.training import plan_schedule
from hfagent.tools.benchmarks import names, problems


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
    taken = plan_schedule(config, rows=kept, batch=config.per_device_train_batch_size).total
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


@pytest.mark.parametrize("name", names())
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
