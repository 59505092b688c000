import pytest
from test_night import make_plan

from hfagent.agent import estimate
from hfagent.agent.records import TrainConfig
from hfagent.job_templates.training import plan_schedule


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
    assert estimate.night_s(plan.model_copy(update={"gpu": True})) < estimate.night_s(plan)


def test_timeouts_leave_room_and_costs_round_up() -> None:
    assert estimate.timeout_s(10) == estimate.MIN_TIMEOUT_S
    assert estimate.timeout_s(1000) == 3600
    assert estimate.cost_micro_usd(make_plan(price_micro_usd_per_hour=1), 1) == 1
