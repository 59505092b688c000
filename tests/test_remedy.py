"""Answers to flags: which one, and from where a run begins again."""

import math

import pytest

from hfagent.agent import thresholds
from hfagent.agent.findings import Flag
from hfagent.agent.records import MetricPoint
from hfagent.agent.remedy import last_good_step, respond, respond_to_failure


def flag(name, step=20):
    return Flag(name=name, step=step, reason=f"what {name} showed")


def answer(*names, restarts=0, checkpoint=10):
    flags = [flag(name) for name in names]
    return respond(flags, restarts=restarts, learning_rate=1e-3, good_checkpoint_step=checkpoint)


def losses(*values, every=1):
    return [MetricPoint(step=every * i, values={"train/loss": v}) for i, v in enumerate(values, start=1)]


@pytest.mark.parametrize("name", ["nan", "diverged"])
@pytest.mark.parametrize("checkpoint", [10, None])
def test_a_broken_run_begins_again_lower_from_the_last_good_checkpoint(name, checkpoint):
    response = answer(name, checkpoint=checkpoint)
    assert (response.action, response.checkpoint_step) == ("restart_lower", checkpoint)
    assert response.learning_rate == pytest.approx(3e-4)
    assert f"what {name} showed" in response.reason
    assert ("step 10" if checkpoint else "the beginning") in response.reason


def test_restarts_come_to_an_end():
    actions = []
    rate = 1e-3
    for restarts in range(10):
        response = respond([flag("nan")], restarts=restarts, learning_rate=rate, good_checkpoint_step=None)
        actions.append(response.action)
        if response.learning_rate is None:
            break
        assert response.learning_rate < rate
        rate = response.learning_rate
    assert actions == ["restart_lower"] * thresholds.MAX_RESTARTS + ["abandon"]


@pytest.mark.parametrize(
    ("name", "checkpoint", "action"),
    [
        ("hung", 10, "cancel"),
        ("no_start", None, "cancel"),
        ("dead_reward", 10, "abandon"),
        ("plateau", 10, "go_on"),
        ("overfit", 10, "cancel"),
        ("overfit", None, "go_on"),
        ("too_slow", None, "cancel"),
        ("too_slow", 10, "go_on"),
    ],
)
def test_every_other_flag_leaves_the_learning_rate_alone(name, checkpoint, action):
    response = answer(name, checkpoint=checkpoint)
    assert (response.action, response.learning_rate) == (action, None)
    assert f"{name}: what {name} showed" in response.reason


def test_the_first_flag_that_needs_an_answer_gets_it():
    assert answer("plateau", "hung").action == "cancel"
    assert answer("diverged", "hung").action == "restart_lower"
    both = answer("too_slow", "plateau")
    assert both.action == "go_on"
    assert "too_slow: " in both.reason
    assert "plateau: " in both.reason


def test_no_flag_goes_on():
    assert answer().action == "go_on"


def test_a_run_that_stopped_itself_begins_again_from_the_start():
    response = respond_to_failure("training diverged: loss nan", restarts=1, learning_rate=1e-3)
    assert (response.action, response.checkpoint_step) == ("restart_lower", None)
    assert response.learning_rate == pytest.approx(3e-4)
    assert respond_to_failure("loss nan", restarts=2, learning_rate=1e-3).action == "abandon"


@pytest.mark.parametrize(
    ("checkpoints", "expected"), [([5, 10, 15, 19, 25], 15), ([17], 17), ([18, 19], None), ([], None)]
)
def test_a_checkpoint_right_before_nan_is_not_good(checkpoints, expected):
    points = losses(*[2.0 / i for i in range(1, 20)], None)
    assert last_good_step(points, checkpoints, flag("nan", 20)) == expected


def test_sparse_logs_put_the_good_checkpoint_further_back():
    points = losses(*[2.0 / i for i in range(1, 20)], None, every=10)
    assert last_good_step(points, range(50, 250, 50), flag("nan", 200)) == 150
    assert last_good_step(points, [171, 180, 190], flag("nan", 200)) is None


def test_a_slow_rise_spoils_the_checkpoints_on_its_way():
    values = [0.5] * 40 + [0.5 * math.exp(i / 10) for i in range(1, 21)]
    found = last_good_step(losses(*values), range(5, 65, 5), flag("diverged", 56))
    assert found == 40


def test_overfit_keeps_the_checkpoint_of_the_lowest_evaluation_loss():
    values = ((10, 1.0), (20, 0.8), (30, 0.85), (40, 0.9), (50, 0.95))
    points = [MetricPoint(step=step, values={"eval/loss": loss}) for step, loss in values]
    assert last_good_step(points, [10, 20, 30, 40, 50], flag("overfit")) == 20
    assert last_good_step(points, [30, 40, 50], flag("overfit")) is None


@pytest.mark.parametrize("name", ["hung", "no_start", "too_slow", "plateau"])
def test_without_trouble_in_the_weights_the_newest_checkpoint_is_good(name):
    assert last_good_step(losses(1.0, 0.9), [30, 10, 20], flag(name, None)) == 30
    assert last_good_step([], [], flag(name, None)) is None
