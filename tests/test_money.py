"""A budget on rented hardware: a second job that it does not cover is refused, before and after a restart."""

from pathlib import Path
from typing import Any

import pytest
from nights import state_of
from world import SKILL, World, killed, night

from hfagent.agent import envelope, ledger
from hfagent.agent.events import JobIntended, JobSubmitted
from hfagent.agent.fakes import Ending
from hfagent.agent.policy import check_launch
from hfagent.agent.records import JobSpec, RunSpec
from hfagent.agent.state import State

CAP = 40_000_000
"""$40."""
TRAINING = 32_000_000
"""$32: what a training costs."""
TRAINING_S = 580


def costly() -> dict[str, Any]:
    """A plan at a price for which a training of `TRAINING_S` costs $32."""
    return {
        "price_micro_usd_per_hour": TRAINING * 3600 // TRAINING_S,
        "budget_micro_usd": CAP,
        "flavor": "dear",
        "accelerator": "h200",
        "max_extensions": 0,
        "max_trials": 2,
    }


def slow_world() -> World:
    """Trainings take `TRAINING_S`; the other jobs take a second."""
    there = World({**SKILL, "sft-02": 0.4})
    behave = there.behave

    def endings(spec: JobSpec) -> Ending | None:
        if spec.kind == "evaluate":
            return None
        there.endings = lambda _: None
        whole = behave(spec)
        there.endings = endings
        return Ending(running_s=TRAINING_S if spec.kind == "train" else 1, result=whole.result)

    there.endings = endings
    there.evaluation_s = lambda run: 1
    return there


def trainings(path: Path) -> list[int]:
    """What was reserved for each training job."""
    facts = [event.fact for event in ledger.read(path)]
    return [fact.job.reserve_micro_usd for fact in facts if isinstance(fact, JobIntended) and fact.job.kind == "train"]


def second(state: State) -> RunSpec:
    return RunSpec(name="sft-02", kind="train", why="the second", train=state.plan.train)


def test_of_two_jobs_for_32_dollars_a_budget_of_40_pays_one(tmp_path: Path) -> None:
    path = tmp_path / "night.jsonl"
    state = night(path, slow_world(), **costly())
    (reserved,) = trainings(path)
    assert 31_999_000 <= reserved <= CAP
    assert state.spent_micro_usd is not None
    assert 31_999_000 <= state.spent_micro_usd <= CAP
    assert any("of the budget" in why for why in (state.search_ended or "", state.ended.reason if state.ended else ""))


def test_the_second_is_refused_by_name_and_number_also_after_a_restart(tmp_path: Path) -> None:
    path, there = tmp_path / "night.jsonl", slow_world()
    killed(path, there, lambda event: getattr(event.fact, "kind", "") == "decided", **costly())
    for _ in range(2):  # each fold begins with the bytes on the disk
        state = state_of(ledger.read(path))
        assert state.held_micro_usd == 0
        short = envelope.check_envelope(state, second(state), there.clock.now())
        assert short is not None
        assert "of the budget" in short
        left = envelope.money_left_micro_usd(state)
        assert left is not None
        assert left == CAP - (state.spent_micro_usd or 0) < TRAINING / 2
    resumed = night(path, there, **costly())
    assert len(trainings(path)) == 1
    assert resumed.ended is not None


@pytest.mark.parametrize("until", [JobIntended, JobSubmitted])
def test_what_runs_or_may_run_is_held_also_after_a_restart(tmp_path: Path, until: type) -> None:
    """A job that was intended, and of which nobody knows whether it was submitted, keeps its money."""
    path, there = tmp_path / "night.jsonl", slow_world()
    begun: list[str] = []

    def at_training(event: Any) -> bool:
        if isinstance(event.fact, JobIntended) and event.fact.job.kind == "train":
            begun.append(event.fact.job.key)
        return bool(begun) and isinstance(event.fact, until)

    killed(path, there, at_training, **costly())
    state = state_of(ledger.read(path))
    assert 31_999_000 <= state.held_micro_usd <= CAP
    short = envelope.check_envelope(state, second(state), there.clock.now())
    assert short is not None
    assert "of the budget" in short
    refused = check_launch(state, second(state), there.clock.now())
    assert refused is not None
    left = envelope.money_left_micro_usd(state)
    assert left is not None
    assert left + state.held_micro_usd + (state.spent_micro_usd or 0) == CAP
