"""A whole night with fakes and a fake clock: the real loop, policy, planner, ledger and verdict."""

import time
from pathlib import Path
from typing import Any

import pytest
from world import (
    SKILL,
    FakeMailbox,
    KilledError,
    World,
    at_desk,
    killed,
    make_plan,
    night,
    work,
)

from hfagent.agent import ledger
from hfagent.agent.dataset_records import MethodCheck
from hfagent.agent.events import Event
from hfagent.agent.fakes import (
    Ending,
    FakeChecker,
)
from hfagent.agent.folding import fold
from hfagent.agent.records import (
    Job,
    JobSpec,
)
from hfagent.agent.summary import headline, summary


def kinds(path: Path) -> list[str]:
    return [event.fact.kind for event in ledger.read(path)]


def test_a_night_ends_with_a_confirmed_gain_in_under_a_second(tmp_path: Path) -> None:
    world = World(SKILL)
    begun = time.process_time()
    state = night(tmp_path / "night.jsonl", world)
    assert time.process_time() - begun < 1
    assert state.ended is not None
    assert state.ended.state == "finished"
    verdict = headline(state)
    assert verdict is not None
    assert verdict.label == "better"
    assert [key.removeprefix("night-") for key in world.runner.submits] == [
        "smoke-a1",
        "baseline-a1",
        "sft-01-a1",
        "sft-01-eval-a1",
        "sft-01-x1-a1",
        "sft-01-x1-eval-a1",
        "baseline-repeat-a1",
        "baseline-confirm-a1",
        "sft-01-x1-confirm-a1",
    ]
    assert [t.decision.action for t in state.decisions] == ["extend", "keep"]
    assert state.runs["sft-01-x1"].spec.train == make_plan().train.model_copy(update={"num_train_epochs": 2})


def test_nothing_gained_ends_honestly_without_touching_the_confirm_set(tmp_path: Path) -> None:
    state = night(tmp_path / "night.jsonl", World({"baseline": 0.4, "sft-01": 0.3}, falling=False))
    assert state.ended is not None
    assert (state.ended.state, state.decisions[-1].decision.action) == ("finished", "discard")
    assert headline(state) is None
    assert not any(run.spec.set == "confirm" for run in state.runs.values())


def test_an_extension_that_gains_nothing_leaves_its_parent_to_be_confirmed(tmp_path: Path) -> None:
    state = night(tmp_path / "night.jsonl", World({**SKILL, "sft-01-x1": 0.35}))
    assert state.decisions[-1].about == "sft-01-x1"
    assert state.kept == "sft-01"
    assert state.comparison("sft-01", None, "confirm") is not None


def test_a_lost_job_is_tried_once_more_and_a_second_failure_ends_the_night(tmp_path: Path) -> None:
    world = World(SKILL)
    lost = Ending(running_s=5, stage="ERROR", exit_code=None, message="lost")
    world.endings = lambda spec: lost if spec.key.endswith("sft-01-a1") else None
    assert night(tmp_path / "once.jsonl", world).ended.state == "finished"  # type: ignore[union-attr]
    world = World(SKILL)
    world.endings = lambda spec: lost if "-sft-01-a" in spec.key else None
    state = night(tmp_path / "twice.jsonl", world)
    assert state.ended is not None
    assert state.ended.state == "failed"
    assert "lost" in state.ended.reason


def test_a_script_that_fails_by_itself_is_not_run_again_and_its_error_is_told(tmp_path: Path) -> None:
    world = World(SKILL)
    log = ["Traceback (most recent call last):", "ValueError: no eval_dataset", "* Run finished"]
    world.endings = lambda spec: (
        Ending(running_s=5, stage="ERROR", exit_code=1, message="exit code 1", log=log)
        if spec.kind == "smoke"
        else None
    )
    state = night(tmp_path / "night.jsonl", world)
    assert world.runner.submits == ["night-smoke-a1"]
    assert state.ended is not None
    assert state.ended.state == "failed"
    assert state.ended.reason == "smoke: its job failed: exit code 1: ValueError: no eval_dataset"


def test_a_failed_extension_falls_back_to_the_run_it_extends(tmp_path: Path) -> None:
    world = World(SKILL)
    world.endings = lambda spec: (
        Ending(running_s=5, stage="ERROR", exit_code=1, message="boom") if "x1-a" in spec.key else None
    )
    state = night(tmp_path / "night.jsonl", world)
    assert state.ended is not None
    assert (state.ended.state, state.kept) == ("finished", "sft-01")


def test_an_incompatible_dataset_never_reaches_a_job(tmp_path: Path) -> None:
    world = World(SKILL)
    world.checker = FakeChecker(MethodCheck(verdict="INCOMPATIBLE", reason="no messages"))
    state = night(tmp_path / "night.jsonl", world)
    assert state.ended is not None
    assert state.ended.state == "failed"
    assert world.runner.submits == []


def test_the_time_limit_stops_the_night_and_cancels_what_runs(tmp_path: Path) -> None:
    world = World(SKILL)
    world.endings = lambda spec: Ending(running_s=10_000) if spec.kind == "train" else None
    state = night(tmp_path / "night.jsonl", world, max_hours=0.1)
    assert state.ended is not None
    assert state.ended.state == "stopped"
    assert not state.open_attempts
    assert (world.clock.now() - state.started_at).total_seconds() <= 0.1 * 3600 + 60


@pytest.mark.parametrize("cap", [100_000, 300_000, 420_000, 600_000, 1_100_000])
def test_money_is_reserved_before_a_job_starts_and_never_passes_the_cap(tmp_path: Path, cap: int) -> None:
    world = World(SKILL)
    paid: dict[str, Any] = {"price_micro_usd_per_hour": 4_000_000, "budget_micro_usd": cap, "flavor": "a10g-small"}
    state = night(tmp_path / "night.jsonl", world, **paid)
    assert state.ended is not None
    if cap < 400_000:
        assert state.ended.state == "stopped"
        assert "of the budget" in state.ended.reason
    worst = 0
    events: list[Event] = []
    for event in ledger.read(tmp_path / "night.jsonl"):
        events.append(event)
        now = fold(events)
        assert now is not None
        worst = max(worst, (now.spent_micro_usd or 0) + now.held_micro_usd)
    assert 0 < worst <= cap


def test_confirm_problems_are_looked_at_once(tmp_path: Path) -> None:
    night(tmp_path / "night.jsonl", World(SKILL))
    assert kinds(tmp_path / "night.jsonl").count("compared") == 4
    state = fold(ledger.read(tmp_path / "night.jsonl"))
    assert state is not None
    assert [c.fact.candidate for c in state.comparisons if c.fact.set == "confirm"] == ["sft-01-x1"]


@pytest.mark.parametrize("survived", range(3, 45))
def test_a_night_killed_after_any_event_resumes_to_the_same_end(tmp_path: Path, survived: int) -> None:
    path = tmp_path / "night.jsonl"
    world = World(SKILL)
    killed(path, world, lambda event: event.seq == survived)
    state = night(path, world)
    assert len(world.runner.submits) == len(set(world.runner.submits)) == 9
    report = summary(state, report=path, ledger=path, held=False)
    whole = summary(night(tmp_path / "whole.jsonl", World(SKILL)), report=path, ledger=path, held=False)
    for name in ("state", "verdict", "runs"):
        assert report[name] == whole[name]


@pytest.mark.parametrize("nth", range(1, 10))
def test_a_night_killed_between_a_submit_and_its_record_finds_the_job_again(tmp_path: Path, nth: int) -> None:
    path = tmp_path / "night.jsonl"
    world = World(SKILL)
    submit = world.runner.submit

    def dying(spec: JobSpec) -> Job:
        job = submit(spec)
        if len(world.runner.submits) == nth:
            raise KilledError
        return job

    world.runner.submit = dying  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        night(path, world)
    world.runner.submit = submit  # type: ignore[method-assign]
    state = night(path, world)
    assert len(world.runner.submits) == len(set(world.runner.submits)) == 9
    assert state.ended is not None
    assert state.ended.state == "finished"


def test_a_result_that_is_no_score_fails_the_evaluation_and_says_what_is_wrong(tmp_path: Path) -> None:
    world = World(SKILL)
    bad = Ending(running_s=30, result={"value": 1.5})
    world.endings = lambda spec: bad if spec.run == "baseline" else None
    state = night(tmp_path / "night.jsonl", world)
    assert state.ended is not None
    assert state.ended.state == "failed"
    assert "result is unusable" in state.ended.reason


def test_a_stop_that_somebody_asks_for_cancels_the_job(tmp_path: Path) -> None:
    world = World(SKILL)
    with at_desk(tmp_path / "night.jsonl", world) as desk:
        state = work(desk, mailbox=FakeMailbox(stop=lambda: "enough" if "sft-01" in desk.state.runs else None))
    assert state.ended is not None
    assert (state.ended.state, state.ended.reason) == ("stopped", "enough")
    assert state.runs["sft-01"].last.stage == "CANCELED"


def test_a_bug_in_a_tool_ends_the_process_instead_of_hanging_and_can_be_resumed(tmp_path: Path) -> None:
    world = World(SKILL)
    submit = world.runner.submit

    def broken(spec: JobSpec) -> Job:
        raise ZeroDivisionError("bug")

    world.runner.submit = broken  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        night(tmp_path / "night.jsonl", world)
    state = fold(ledger.read(tmp_path / "night.jsonl"))
    assert state is not None
    assert state.crash == "ZeroDivisionError: bug"
    world.runner.submit = submit  # type: ignore[method-assign]
    assert night(tmp_path / "night.jsonl", world).kept == "sft-01-x1"


def test_a_job_whose_files_are_gone_is_deleted_and_tried_once_more(tmp_path: Path) -> None:
    world = World(SKILL)
    path = tmp_path / "night.jsonl"
    killed(path, world, lambda event: event.seq == 9)
    before = fold(ledger.read(path))
    assert before is not None
    [running] = before.open_attempts
    del world.runner._jobs[running.job.key]
    state = night(path, world)
    assert state.kept == "sft-01-x1"
    assert [a.stage for a in state.runs[running.job.run].attempts] == ["DELETED", "COMPLETED"]


@pytest.mark.parametrize(("message", "code"), [("Job timeout", 143), ("killed, perhaps by lack of memory", 137)])
def test_too_little_time_or_memory_is_not_tried_again(tmp_path: Path, message: str, code: int) -> None:
    world = World(SKILL)
    ending = Ending(running_s=5, stage="ERROR", exit_code=code, message=message)
    world.endings = lambda spec: ending if spec.kind == "train" else None
    state = night(tmp_path / "night.jsonl", world)
    assert len(state.runs["sft-01"].attempts) == 1
    assert state.ended is not None
    assert state.ended.state == "failed"


def test_a_process_that_is_killed_at_every_submit_of_a_job_does_not_give_it_up(tmp_path: Path) -> None:
    path, world = tmp_path / "night.jsonl", World(SKILL)
    submit, left = world.runner.submit, 8

    def dying(spec: JobSpec) -> Job:
        nonlocal left
        left -= 1
        if left >= 0:
            raise KilledError
        return submit(spec)

    world.runner.submit = dying  # type: ignore[method-assign]
    for _ in range(8):
        with pytest.raises(KilledError):
            night(path, world)
    state = night(path, world)
    assert state.ended is not None
    assert state.ended.state == "finished"
    assert len(world.runner.submits) == len(set(world.runner.submits)) == 9
