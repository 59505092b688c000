"""Several jobs at a time: lines of training runs go side by side where the plan allows it; all else runs alone."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from world import DIVERGED, LOST, FakeMailbox, World, at_desk, claimed, ended, killed, make_plan, night, work

from hfagent.agent import estimate, lanes, ledger
from hfagent.agent.control import Request
from hfagent.agent.desk import Desk
from hfagent.agent.estimate import DataSize
from hfagent.agent.events import Decided
from hfagent.agent.fakes import Ending
from hfagent.agent.folding import apply
from hfagent.agent.records import JobSpec, RunSpec
from hfagent.agent.report import render
from hfagent.agent.rules import next_move
from hfagent.agent.state import State
from hfagent.agent.summary import summary

TRIALS = 6


class Rising(dict[str, float]):
    """Each set of hyperparameters does better than the one before, and an extension better still."""

    def __missing__(self, name: str) -> float:
        return 0.1 if name == "baseline" else 0.1 + 0.08 * int(name.split("-")[1]) + 0.02 * name.count("-x")


def rising() -> World:
    return World(Rising())


def states(path: Path) -> list[State]:
    """After each event."""
    found: list[State] = []
    for event in ledger.read(path):
        state = apply(found[-1] if found else None, event)
        assert state is not None
        found.append(state)
    return found


def at_once(path: Path) -> int:
    """The most jobs that were open together; none of them is of a kind that runs alone."""
    beside = [[s.runs[a.job.run].spec for a in s.open_attempts] for s in states(path)]
    assert all(len(specs) < 2 or all(map(lanes.of_search, specs)) for specs in beside)
    return max(map(len, beside))


def taken_s(state: State) -> float:
    assert state.ended_at is not None
    return (state.ended_at - state.started_at).total_seconds()


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_as_many_lines_go_side_by_side_as_the_plan_allows(tmp_path: Path, jobs: int) -> None:
    path = tmp_path / "night.jsonl"
    state = night(path, rising(), max_trials=TRIALS, max_jobs=jobs)
    assert at_once(path) == jobs
    assert (f"up to {jobs} at a time" in render(state)) == (jobs > 1)
    assert len(state.trials) == TRIALS
    assert (ended(state), claimed(state).label, claimed(state).run) == ("finished", "confirmed_better", "sft-06-x1")
    one_by_one = night(tmp_path / "one.jsonl", rising(), max_trials=TRIALS)
    alone = 60 + 30 + 3 * 30  # smoke, baseline, and the three evaluations of the confirmation
    assert taken_s(state) - alone <= (taken_s(one_by_one) - alone) / jobs + 90


def test_the_next_set_is_proposed_knowing_what_is_being_tried(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    there = rising()
    propose = there.searcher.propose

    def watched(plan: Any, past: Any) -> Any:
        seen.append([trial.outcome for trial in past])
        return propose(plan, past)

    there.searcher.propose = watched  # type: ignore[method-assign]
    night(tmp_path / "night.jsonl", there, max_trials=3, max_jobs=3, max_extensions=0)
    assert seen == [["open"], ["open", "open"]]


@pytest.mark.parametrize("survived", range(10, 70, 3))
def test_a_night_with_lines_killed_after_any_event_resumes_to_the_same_end(tmp_path: Path, survived: int) -> None:
    path, plan = tmp_path / "night.jsonl", {"max_trials": 3, "max_jobs": 2}
    there = rising()
    killed(path, there, lambda event: event.seq == survived, **plan)
    state = night(path, there, **plan)
    assert len(there.runner.submits) == len(set(there.runner.submits))
    told = summary(state, report=path, ledger=path, held=False)
    whole = summary(night(tmp_path / "whole.jsonl", rising(), **plan), report=path, ledger=path, held=False)
    for name in ("state", "verdict", "claim"):
        assert told[name] == whole[name]
    assert sorted(map(str, told["runs"])) == sorted(map(str, whole["runs"]))


def troubled(draw: random.Random) -> World:
    """Jobs take any time, and some are lost or diverge."""
    there = rising()

    def ending(spec: JobSpec) -> Ending | None:
        chance = draw.random()
        if spec.kind == "train" and chance < 0.15:
            return DIVERGED
        return LOST if chance > 0.9 else None

    there.endings = ending
    there.evaluation_s = lambda run: draw.uniform(5, 120)
    return there


def test_lines_wait_for_the_money_that_others_hold_instead_of_ending_the_night(tmp_path: Path) -> None:
    """The cap pays for all jobs, and not for the reserves of two of them together."""
    paid: dict[str, Any] = {"price_micro_usd_per_hour": 3_600_000, "max_extensions": 0, "max_trials": 4}
    enough = 1_600_000
    state = night(tmp_path / "one.jsonl", rising(), budget_micro_usd=enough, **paid)
    assert len(state.trials) == 4
    path = tmp_path / "two.jsonl"
    beside = night(path, rising(), budget_micro_usd=enough, max_jobs=2, **paid)
    assert len(beside.trials) == 4
    assert claimed(beside).label == "confirmed_better"
    assert all(s.held_micro_usd + (s.spent_micro_usd or 0) <= enough for s in states(path))


@pytest.mark.parametrize("cap", [None, 400_000, 1_000_000, 2_500_000])
@pytest.mark.parametrize("hours", [None, 0.1, 0.25, 0.6])
def test_troubled_nights_with_lines_end_and_keep_their_limits(
    tmp_path: Path, cap: int | None, hours: float | None
) -> None:
    for seed in range(3):
        path, draw = tmp_path / f"{seed}.jsonl", random.Random(seed)
        state = night(
            path, troubled(draw), max_trials=TRIALS, max_jobs=draw.choice([2, 3, 5]), max_hours=hours,
            budget_micro_usd=cap, price_micro_usd_per_hour=2_000_000,
        )  # fmt: skip
        assert state.ended is not None
        assert at_once(path) <= state.plan.max_jobs
        if cap is not None:
            assert all(s.held_micro_usd + (s.spent_micro_usd or 0) <= cap for s in states(path))
        if hours is not None:
            assert taken_s(state) <= 3600 * hours + 60


def test_a_line_that_takes_long_costs_no_other_its_confirmation(tmp_path: Path) -> None:
    there, path = rising(), tmp_path / "night.jsonl"
    slow = Ending(running_s=5000, stage="ERROR", exit_code=143, message="Job timeout")
    there.endings = lambda spec: slow if spec.run == "sft-02-eval" else None
    state = night(path, there, max_trials=2, max_jobs=2, max_extensions=0, max_hours=0.25)
    assert (claimed(state).label, claimed(state).run) == ("confirmed_better", "sft-01")
    decided = next(event.at for event in ledger.read(path) if isinstance(event.fact, Decided))
    assert decided < state.runs["sft-02-eval"].last.finished_at  # type: ignore[operator]


class Uneven(World):
    """The trainings of these sets take an hour."""

    def __init__(self, *slow: str, **skill: float):
        super().__init__(Rising(skill))
        self.slow = slow

    def behave(self, spec: JobSpec) -> Ending:
        ending = super().behave(spec)
        return replace(ending, running_s=3600) if spec.kind == "train" and spec.run in self.slow else ending


TARGET: dict[str, Any] = {
    "max_trials": 4, "max_jobs": 3, "target_delta": 0.25, "price_micro_usd_per_hour": 3_600_000,
    "budget_micro_usd": 40_000_000,
}  # fmt: skip


def test_trainings_beside_a_model_that_reached_the_target_are_ended_and_paid(tmp_path: Path) -> None:
    path = tmp_path / "night.jsonl"
    there = Uneven("sft-02", "sft-03", **{"sft-01": 0.6})
    state = night(path, there, max_extensions=0, **TARGET)
    assert (ended(state), claimed(state).label, claimed(state).run) == ("finished", "confirmed_better", "sft-01")
    why = "the target of +25.0 points is reached on the search set"
    assert state.search_ended == why
    for name in ("sft-02", "sft-03"):
        last, decision = state.runs[name].last, state.decision_on(name)
        assert (last.stage, last.cancel_why) == ("CANCELED", f"not needed any more: {why}")
        assert decision is not None
        assert (decision.action, decision.reason) == ("discard", f"{name}: {why}")
        assert last.running_s is not None
        assert last.cost_micro_usd == 1000 * last.running_s
    assert len(state.trials) == 3
    assert taken_s(state) < 600
    assert state.held_micro_usd == 0
    assert f"not needed any more: {why}" in render(state)


def test_what_is_trained_when_the_target_is_reached_is_scored_and_may_be_better_still(tmp_path: Path) -> None:
    path = tmp_path / "night.jsonl"
    there = Uneven("sft-03", **{"sft-01": 0.6, "sft-02": 0.8})
    there.evaluation_s = lambda run: 200 if run == "sft-02-eval" else 30
    state = night(path, there, max_extensions=0, **TARGET)
    assert (claimed(state).label, claimed(state).run) == ("confirmed_better", "sft-02")
    assert state.runs["sft-03"].last.stage == "CANCELED"


def test_an_extension_that_the_target_ends_leaves_its_parent_to_be_judged(tmp_path: Path) -> None:
    path = tmp_path / "night.jsonl"
    there = Uneven("sft-02-x1", **{"sft-01": 0.6, "sft-01-x1": 0.7, "sft-02": 0.4})
    there.evaluation_s = lambda run: 200 if run == "sft-01-eval" else 30
    state = night(path, there, **(TARGET | {"max_jobs": 2}))
    assert state.runs["sft-02-x1"].last.stage == "CANCELED"
    decision = state.decision_on("sft-02")
    assert decision is not None
    assert (decision.action, decision.rule) == ("discard", "discard-not-best")
    assert (claimed(state).label, claimed(state).run) == ("confirmed_better", "sft-01-x1")


@pytest.mark.parametrize("survived", range(20, 60, 4))
def test_a_night_killed_while_the_target_ends_its_search_resumes_to_the_same_end(tmp_path: Path, survived: int) -> None:
    path, skill = tmp_path / "night.jsonl", {"sft-01": 0.6}
    there = Uneven("sft-02", "sft-03", **skill)
    killed(path, there, lambda event: event.seq == survived, max_extensions=0, **TARGET)
    state = night(path, there)
    assert (ended(state), claimed(state).run) == ("finished", "sft-01")
    assert len(there.runner.submits) == len(set(there.runner.submits)) == len(state.runs)
    assert taken_s(state) < 600


def test_a_run_that_broke_is_not_begun_again_once_the_target_is_reached(tmp_path: Path) -> None:
    path, there = tmp_path / "night.jsonl", Uneven("sft-03", **{"sft-01": 0.6})
    there.endings = lambda spec: replace(DIVERGED, running_s=90) if spec.run == "sft-02" else None
    state = night(path, there, max_extensions=0, **TARGET)
    assert state.runs["sft-02"].last.cancel_why is None
    assert all(run.spec.instead_of is None for run in state.trained)
    assert state.given_up("sft-02")
    assert claimed(state).run == "sft-01"


def test_a_lost_job_is_begun_again_beside_the_others(tmp_path: Path) -> None:
    there, path = rising(), tmp_path / "night.jsonl"
    there.endings = lambda spec: LOST if spec.key.endswith("sft-02-a1") else None
    state = night(path, there, max_trials=3, max_jobs=3)
    assert len(state.runs["sft-02"].attempts) == 2
    assert [run.spec.name for run in state.trials] == ["sft-01", "sft-02", "sft-03"]
    assert any(
        {a.job.run for a in s.open_attempts} >= {"sft-02", "sft-03"} and len(s.runs["sft-02"].attempts) == 2
        for s in states(path)
        if "sft-02" in s.runs
    )


def beside(path: Path, there: World, until: Callable[[State], bool]) -> State:
    """The state in which this is true first."""
    night(path, there, max_trials=3, max_jobs=3)
    return next(state for state in states(path) if until(state))


def test_a_line_has_one_job_at_a_time_and_only_lines_go_side_by_side(tmp_path: Path) -> None:
    two = {"sft-01", "sft-02"}
    state = beside(tmp_path / "n.jsonl", rising(), lambda s: {a.job.run for a in s.open_attempts} == two)
    busy = RunSpec(name="sft-01-eval", kind="evaluate", why="w", subject="sft-01", set="search")
    assert lanes.no_room(state, busy) == "a job of the line of sft-01 is still open"
    again = RunSpec(name="sft-02", kind="train", why="w")
    assert lanes.no_room(state, again) == "a job of the line of sft-02 is still open"
    confirm = RunSpec(name="baseline-confirm", kind="evaluate", why="w", set="confirm")
    assert lanes.no_room(state, confirm) == "sft-01 is still open, and baseline-confirm runs alone"
    assert lanes.no_room(state, RunSpec(name="sft-03", kind="train", why="w")) is None
    full = beside(tmp_path / "f.jsonl", rising(), lambda s: len(s.open_attempts) == 3)
    refused = lanes.no_room(full, RunSpec(name="sft-04", kind="train", why="w"))
    assert refused == "sft-01, sft-02, sft-03 are still open: 3 jobs at a time"


def test_nothing_more_is_started_while_nobody_knows_what_runs(tmp_path: Path) -> None:
    there = rising()
    state = beside(tmp_path / "n.jsonl", there, lambda s: {a.job.run for a in s.open_attempts} == {"sft-01", "sft-02"})
    assert next_move(state, state.updated_at) is not None
    assert next_move(replace(state, backend_lost="no answer"), state.updated_at) is None


def test_a_person_who_is_waited_for_holds_up_one_line_alone(tmp_path: Path) -> None:
    """The first two runs are approved, nothing else: their evaluations go on."""
    there, path = rising(), tmp_path / "night.jsonl"
    allowed = {"sft-01", "sft-02"}
    with at_desk(path, there, max_trials=3, max_jobs=2, approve_runs=True, max_hours=0.2) as desk:
        asks = lambda: [Request(ask="approve", run=run) for run in desk.state.wishes.waiting if run in allowed]  # noqa: E731
        state = work(desk, mailbox=FakeMailbox(asks=asks))
    assert {run.spec.name for run in state.trained} == allowed
    assert all(state.scored(run, "search") is not None for run in allowed)
    assert {fact.about for event in ledger.read(path) if isinstance(fact := event.fact, Decided)} == allowed


def test_a_veto_without_a_name_is_refused_while_several_runs_train(tmp_path: Path) -> None:
    there, path = rising(), tmp_path / "night.jsonl"
    said: list[Request] = []

    def ask(desk: Desk) -> list[Request]:
        running = [a.job.run for a in desk.state.open_attempts if a.job.kind == "train"]
        if len(running) < 2 or said:
            return []
        said.append(Request(ask="veto"))
        return said

    with at_desk(path, there, max_trials=2, max_jobs=2) as desk:
        state = work(desk, mailbox=FakeMailbox(asks=lambda: ask(desk)))
    assert [refusal.why for refusal in state.refusals] == ["sft-01, sft-02 run: name one"]
    assert not state.wishes.vetoed


def test_what_goes_side_by_side_takes_less_time_and_the_same_money() -> None:
    plan, data = make_plan(max_trials=4, max_extensions=0), DataSize(rows=100)
    beside = plan.model_copy(update={"max_jobs": 4})
    assert estimate.work_s(beside, data) == estimate.work_s(plan, data) == estimate.night_s(plan, data)
    trial = estimate.training_s(plan, plan.train, data) + estimate.evaluation_s(plan, plan.search)
    assert estimate.night_s(plan, data) - estimate.night_s(beside, data) == pytest.approx(3 * trial)
