"""Rehearsed nights: the real loop in simulated worlds, held against the truth."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hfagent.agent import rehearse as rehearsals
from hfagent.agent.cli import app
from hfagent.agent.errors import PlanRejected, UsageError
from hfagent.agent.planner import StalledError
from hfagent.agent.rehearse import NightResult, Rehearsal, night_seed, rehearse, rehearse_night, simulated_plan
from hfagent.agent.simulated_scenario import Scenario, load, names
from hfagent.agent.stats import wilson

GOAL = "improve code solving with SFT"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scenario]:
    """Scenarios with nights of few sets of hyperparameters."""

    def shortened(name: str, **parts: dict[str, Any]) -> Scenario:
        scenario = load(name)
        for part, changes in {"night": {"max_trials": 2, "max_extensions": 1}, **parts}.items():
            scenario = scenario.model_copy(update={part: getattr(scenario, part).model_copy(update=changes)})
        return scenario

    monkeypatch.setattr(rehearsals, "load", shortened)
    return shortened


def same(rehearsal: Rehearsal) -> dict[str, Any]:
    return rehearsal.model_dump(exclude={"wall_s"})


def result(
    claimed: float | None = None, true: float | None = None, *, full_s: float = 0, spent_s: float = 0
) -> NightResult:
    return NightResult(
        outcome="finished",
        claimed_gain=claimed,
        true_gain=true,
        chosen_gain=0.0,
        billed_s=1800,
        bad_full_s=full_s,
        bad_spent_s=spent_s,
        good=0,
        good_lost=0,
    )


def told(monkeypatch: pytest.MonkeyPatch, *results: NightResult) -> Rehearsal:
    """The rehearsal of nights that end so."""
    left = iter(results)
    monkeypatch.setattr(rehearsals, "rehearse_night", lambda *args: next(left))
    return rehearse(GOAL, scenario="null", nights=len(results), seed=0, processes=1)


def test_nights_are_the_same_in_any_number_of_processes(short: Callable[..., Scenario]) -> None:
    alone = rehearse(GOAL, scenario="mixed", nights=3, seed=5, processes=1)
    seen: list[int] = []
    together = rehearse(GOAL, scenario="mixed", nights=3, seed=5, processes=2, progress=seen.append)
    assert same(alone) == same(together)
    assert seen == [1, 2, 3]
    assert same(rehearse(GOAL, scenario="mixed", nights=3, seed=6, processes=1)) != {**same(alone), "seed": 6}


def test_no_two_nights_share_a_seed() -> None:
    seeds = {night_seed(seed, number) for seed in range(30) for number in range(100)}
    assert len(seeds) == 3000


def test_claims_are_held_against_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(
        monkeypatch,
        result(0.05, 0.03, full_s=1000, spent_s=400),
        result(0.07, 0.0),
        result(0.06, -0.01, full_s=1000, spent_s=900),
        result(),
    )
    assert (found.nights, found.claims, found.false_claims) == (4, 3, 2)
    assert found.mean_claimed_gain == pytest.approx(0.06)
    assert found.mean_true_gain == pytest.approx(0.02 / 3)
    assert found.gpu_hours == pytest.approx(2)
    assert found.saved_fraction == pytest.approx(0.35)


def test_what_is_unknown_without_claims_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(monkeypatch, result(), result())
    assert (found.claims, found.false_claims) == (0, 0)
    assert (found.mean_claimed_gain, found.mean_true_gain, found.saved_fraction) == (None, None, None)
    assert "claims" in rehearsals.text(found)


def test_where_nothing_helps_every_claim_is_false(short: Callable[..., Scenario]) -> None:
    found = rehearse(GOAL, scenario="null", nights=2, seed=0, processes=1)
    assert found.false_claims == found.claims
    assert found.mean_true_gain in (None, 0.0)


@pytest.mark.parametrize("name", names())
def test_every_scenario_can_be_rehearsed_to_its_end(short: Callable[..., Scenario], name: str) -> None:
    found = rehearse(GOAL, scenario=name, nights=1, seed=1, processes=1)
    assert found.gpu_hours > 0


def gains(scenario: Scenario, folder: Path, nights: int) -> list[NightResult]:
    plan = simulated_plan(GOAL, scenario)
    return [rehearse_night(plan, scenario, night_seed(0, number), folder) for number in range(nights)]


def test_real_gains_are_found_and_true(short: Callable[..., Scenario], tmp_path: Path) -> None:
    found = gains(short("mixed", gains={"peak_points": 40.0, "effects": ()}), tmp_path, 2)
    assert all(night.claimed_gain is not None for night in found)
    assert all(night.true_gain is not None and night.true_gain > 0 for night in found)
    assert list(tmp_path.iterdir()) == []


def test_a_leak_into_the_search_set_does_not_reach_a_claim(short: Callable[..., Scenario], tmp_path: Path) -> None:
    found = gains(short("leak", answers={"leak_points": 25.0}), tmp_path, 2)
    assert sum(night.claimed_gain is not None for night in found) <= 1


def test_the_firewall_prevents_claims_that_memorised_problems_would_make(
    short: Callable[..., Scenario], tmp_path: Path
) -> None:
    memorised = {"contamination_points": 25.0}
    guarded = gains(short("contaminated", answers=memorised), tmp_path, 2)
    assert sum(night.claimed_gain is not None for night in guarded) <= 1
    blind = gains(short("contaminated", answers=memorised, machine={"contaminated_rows": 0}), tmp_path, 2)
    assert all(night.true_gain == 0 for night in blind if night.claimed_gain is not None)
    assert sum(night.claimed_gain is not None for night in blind) >= 1


def test_broken_trainings_are_cut_short(short: Callable[..., Scenario], tmp_path: Path) -> None:
    found = gains(short("divergence", trouble={"nan_share": 0.0, "diverge_above": 1e-9}), tmp_path, 1)
    assert all(0 < night.bad_spent_s < night.bad_full_s for night in found)


def test_a_night_without_an_end_is_told_by_its_seed(
    short: Callable[..., Scenario], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsals, "MAX_EVENTS", 20)
    scenario = short("null")
    with pytest.raises(StalledError, match=r"night of seed 77 in the scenario 'null' broke off: .* no end"):
        rehearse_night(simulated_plan(GOAL, scenario), scenario, 77, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_plan_has_the_numbers_of_the_scenario() -> None:
    scenario = load("oom")
    plan = simulated_plan(GOAL, scenario)
    assert plan.max_trials == scenario.night.max_trials
    assert plan.train.per_device_train_batch_size == scenario.night.train["per_device_train_batch_size"]
    assert plan.price_micro_usd_per_hour == 1_800_000


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"scenario": "nul"}, UsageError, "did you mean 'null'"),
        ({"nights": 0}, UsageError, "at least 1"),
        ({"planner": "gpt"}, UsageError, "choose 'rules'"),
        ({"goal": "improve code with DPO"}, PlanRejected, "not available yet"),
    ],
)
def test_what_cannot_be_rehearsed_is_told(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    asked: dict[str, Any] = {"goal": GOAL, "scenario": "null", "nights": 1, "seed": 0, "planner": "rules", **changes}
    with pytest.raises(error, match=message):
        rehearse(asked.pop("goal"), **asked)


def test_the_interval_holds_the_share() -> None:
    for count, total in ((0, 40), (3, 40), (40, 40)):
        low, high = wilson(count, total)
        assert -1e-12 <= low <= count / total <= high <= 1 + 1e-12
    assert wilson(5, 100)[1] < wilson(1, 20)[1]


def test_json_is_one_object_of_exactly_these_fields(short: Callable[..., Scenario]) -> None:
    done = CliRunner().invoke(app, ["rehearse", GOAL, "--scenario", "null", "--nights", "1", "--seed", "3", "--json"])
    assert done.exit_code == 0
    assert list(json.loads(done.stdout)) == [
        "scenario", "seed", "nights", "claims", "false_claims", "mean_claimed_gain", "mean_true_gain", "gpu_hours",
        "saved_fraction", "wall_s",
    ]  # fmt: skip
    text = CliRunner().invoke(app, ["rehearse", GOAL, "--scenario", "null", "--nights", "1", "--seed", "3"]).stdout
    assert "false claims" in text
    assert load("null").expected in text


def test_the_help_names_every_scenario() -> None:
    shown = " ".join(CliRunner().invoke(app, ["rehearse", "--help"]).stdout.split())
    assert all(name in shown for name in names())
