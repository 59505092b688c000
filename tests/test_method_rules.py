"""What differs between methods: what shows that more training pays, how long it takes, what a search may move."""

import random
from typing import Any

import pytest
from test_decide import LONGER, verdict
from world import make_plan

from hfagent.agent import estimate
from hfagent.agent.decide import Evidence, decide
from hfagent.agent.estimate import DataSize
from hfagent.agent.night_jobs import night_jobs
from hfagent.agent.records import DatasetRef, Decision, Generation, Method, MetricPoint, ModelRef, Plan, TrainConfig
from hfagent.agent.space import space
from hfagent.agent.watch import Watched, flags


def points(**series: Any) -> tuple[MetricPoint, ...]:
    """A run of 20 steps at one learning rate: metric -> value at a step."""
    rng = random.Random(0)
    names = {"loss": "train/loss", "reward": "train/reward", "held_out": "eval/loss"}
    found = []
    for step in range(1, 21):
        due = {name: of for name, of in series.items() if name != "held_out" or step in (7, 14, 20)}
        values = {names[name]: of(step) * (1 + rng.gauss(0, 0.01)) for name, of in due.items()}
        found.append(MetricPoint(step=step, values={"train/learning_rate": 1e-5, **values}))
    return tuple(found)


def decided(method: Method, *, most: float | None = None, **series: Any) -> Decision:
    return decide(
        Evidence(
            run=f"{method}-01", verdict=verdict(gain=20), method=method, most_reward=most, points=points(**series),
            extension=LONGER,
        )
    )  # fmt: skip


def falling(step: int) -> float:
    return 1.2 / step**0.3


def flat(step: int) -> float:
    return 0.7


def rising(step: int) -> float:
    return 1 - 0.9 / step**0.2


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_preferences_are_trained_on_by_the_loss_held_out_and_never_by_the_training_loss(method: Method) -> None:
    assert decided(method, loss=falling, held_out=falling).action == "extend"
    assert decided(method, loss=flat, held_out=falling).action == "extend"
    kept = decided(method, loss=falling, held_out=flat)
    assert (kept.action, "the evaluation loss is not clearly falling" in kept.reason) == ("keep", True)
    kept = decided(method, loss=falling)
    assert kept.action == "keep"
    assert "the training loss is no measure of this method" in kept.reason


def test_rewards_alone_show_whether_more_grpo_pays() -> None:
    extended = decided("grpo", most=1.0, loss=flat, reward=rising)
    assert extended.action == "extend"
    assert "the shortfall of the reward still falls" in extended.reason
    for loss in (falling, flat):
        kept = decided("grpo", most=1.0, loss=loss, held_out=falling, reward=lambda step: 0.4)
        assert kept.action == "keep"
        assert "the reward is not clearly rising" in kept.reason
    unknown = decided("grpo", most=None, loss=falling, reward=rising)
    assert (unknown.action, "too few for a trend" in unknown.reason) == ("keep", True)


def test_the_distance_to_the_teacher_shows_whether_more_distillation_pays() -> None:
    extended = decided("distillation", loss=falling)
    assert (extended.action, "the distance to the teacher still falls" in extended.reason) == ("extend", True)
    for held_out in (flat, rising):  # its answers are drawn anew each time
        assert decided("distillation", loss=falling, held_out=held_out).action == "extend"
    kept = decided("distillation", loss=flat, held_out=falling)
    assert (kept.action, "the distance to the teacher is not clearly falling" in kept.reason) == ("keep", True)
    few = decided("distillation", held_out=flat)
    assert (few.action, "fewer than 6 distances to the teacher" in few.reason) == ("keep", True)


def test_a_distance_to_the_teacher_that_grows_is_a_divergence() -> None:
    grows = tuple(MetricPoint(step=s, values={"train/loss": 0.4 if s < 20 else 3.0}) for s in range(1, 25))
    assert [flag.name for flag in flags(Watched(points=grows, method="distillation"))] == ["diverged"]


def test_an_evaluation_loss_of_answers_drawn_anew_is_no_overfitting() -> None:
    grows = tuple(
        MetricPoint(step=s, values={"train/loss": 1 - s / 40, "eval/loss": 0.1 * s, "train/reward": 0.4})
        for s in range(1, 21)
    )
    found = {flag.name for flag in flags(Watched(points=grows, method="dpo"))}
    assert "overfit" in found
    for method in ("grpo", "distillation"):
        assert not {"overfit", "plateau"} & {flag.name for flag in flags(Watched(points=grows, method=method))}


def test_dead_rewards_are_known_by_the_names_that_the_trainer_logs() -> None:
    dead = tuple(
        MetricPoint(step=s, values={"train/loss": 0.0, "train/reward_std": 0.0, "train/frac_reward_zero_std": 1.0})
        for s in range(1, 13)
    )
    assert [flag.name for flag in flags(Watched(points=dead, method="grpo"))] == ["dead_reward"]


def trained(method: Method, **changes: Any) -> Plan:
    return make_plan(method=method, train=TrainConfig(method=method, max_rows=160, eval_fraction=0, **changes))


def test_a_pair_takes_longer_than_a_row_and_rewards_take_the_time_of_their_answers() -> None:
    data = DataSize(rows=160, mean_tokens=200)
    sft, dpo, grpo = (
        estimate.training_s(plan, plan.train, data)
        for plan in (trained("sft"), trained("dpo"), trained("grpo", num_generations=8, max_completion_length=512))
    )
    assert sft < dpo < grpo
    short = trained("grpo", num_generations=8, max_completion_length=64)
    assert estimate.training_s(short, short.train, data) < grpo


def test_the_teacher_takes_time_and_so_do_the_answers() -> None:
    data = DataSize(rows=160, mean_tokens=200)
    plan = trained("distillation", max_completion_length=64)
    times = []
    for teacher in (None, ModelRef(id="t", parameters=10**8), ModelRef(id="t", parameters=10**10)):
        taught = plan.model_copy(update={"teacher": teacher})
        times.append(estimate.training_s(taught, taught.train, data))
    assert times == sorted(set(times))
    longer = trained("distillation", max_completion_length=512)
    assert estimate.training_s(longer, longer.train, data) > times[0]
    assert estimate.total_steps(plan.train, 160) == 160 // plan.train.batch


def test_an_epoch_of_grpo_has_its_completions() -> None:
    config = TrainConfig(
        method="grpo", num_generations=8, per_device_train_batch_size=16, gradient_accumulation_steps=2, eval_fraction=0
    )
    assert estimate.total_steps(config, 160) == 160 * 8 // 32


def test_data_that_the_model_makes_count_among_the_jobs_of_a_night() -> None:
    how = Generation(n=200, num_samples=4, temperature=0.8)
    plan = trained("dpo").model_copy(update={"generation": how, "dataset": DatasetRef(id="embedded:procedural-python")})
    jobs = {job.name: job for job in night_jobs(plan, DataSize())}
    assert (jobs["data"].kind, jobs["data"].count) == ("generate", 1)
    assert estimate.night_s(plan, DataSize()) == pytest.approx(sum(job.count * job.expected_s for job in jobs.values()))
    assert "data" not in {job.name for job in night_jobs(trained("dpo"), DataSize())}


def test_a_search_moves_what_the_method_has() -> None:
    names = {
        method: {lever.name for lever in space(plan).levers}
        for method, plan in {
            "sft": trained("sft"),
            "dpo": trained("dpo", beta=0.1),
            "grpo": trained("grpo", beta=0.0, temperature=1.0),
            "distillation": trained("distillation", beta=1.0, temperature=1.0),
        }.items()
    }
    assert "beta" not in names["sft"]
    assert {"beta", "effective_batch_size"} <= names["dpo"]
    assert "temperature" in names["grpo"]
    assert not {"beta", "effective_batch_size"} & names["grpo"]
    assert "effective_batch_size" in names["distillation"]
    assert not {"beta", "temperature"} & names["distillation"]  # another one would be another loss
