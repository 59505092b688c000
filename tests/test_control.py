"""What a person asks of a night while it runs: pause, approve, veto, steer, stop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from world import DIVERGED, FakeMailbox, World, at_desk, claimed, configs, ended, night, training, work

from hfagent.agent import ledger
from hfagent.agent.brief import brief
from hfagent.agent.control import Ask, FolderMailbox, Request
from hfagent.agent.desk import Desk
from hfagent.agent.events import JobIntended
from hfagent.agent.fakes import Ending
from hfagent.agent.planner_facts import ApprovalAsked, Paused, Unpaused
from hfagent.agent.records import JobSpec
from hfagent.agent.report import render
from hfagent.agent.state import State

SKILL = {
    "baseline": 0.1, "sft-01": 0.4, "sft-02": 0.6, "sft-03": 0.5, "sft-01-x1": 0.5, "sft-02-x1": 0.7, "sft-01-r1": 0.4,
    "sft-01-r1-x1": 0.5,
}  # fmt: skip


def asked(
    path: Path,
    when: Callable[[Desk], Ask | Request | None],
    *,
    falling: bool = False,
    endings: Callable[[JobSpec], Ending | None] = lambda spec: None,
    **plan: Any,
) -> State:
    """A night in which `when` makes the requests: at each look, None for none."""
    there = World(SKILL, falling=falling)
    there.endings = endings

    def requests() -> list[Request]:
        wanted = when(desk)
        if wanted is None:
            return []
        return [wanted if isinstance(wanted, Request) else Request(ask=wanted)]

    with at_desk(path, there, **plan) as desk:
        return work(desk, mailbox=FakeMailbox(asks=requests))


def test_a_paused_night_launches_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "night.jsonl"

    def when(desk: Desk) -> Ask | None:
        if "baseline" in desk.state.runs and "sft-01" not in desk.state.runs and desk.state.wishes.paused is None:
            return "pause" if desk.state.updated_at < desk.state.started_at.replace(hour=23) else None
        return "resume" if desk.now.hour == 23 else None

    state = asked(path, when)
    found = ledger.read(path)
    begun = next(event.at for event in found if isinstance(event.fact, Paused))
    over = next(event.at for event in found if isinstance(event.fact, Unpaused))
    assert (over - begun).total_seconds() > 3000
    assert not [event for event in found if isinstance(event.fact, JobIntended) and begun < event.at < over]
    assert claimed(state).label == "confirmed_better"
    assert "paused by a person" in render(state)


def test_a_veto_ends_the_training_that_runs_and_the_night_goes_on(tmp_path: Path) -> None:
    def when(desk: Desk) -> Request | None:
        running = any(attempt.job.run == "sft-01" for attempt in desk.state.open_attempts)
        return Request(ask="veto", text="the rate is too high") if running else None

    state = asked(tmp_path / "night.jsonl", when, max_trials=2)
    decision = state.decision_on("sft-01")
    assert decision is not None
    assert (decision.action, decision.rule) == ("discard", "veto")
    assert "the rate is too high" in decision.reason
    assert state.runs["sft-01"].last.stage == "CANCELED"
    assert (claimed(state).label, claimed(state).run) == ("confirmed_better", "sft-02")


def approving(*vetoed: str) -> Callable[[Desk], Request | None]:
    def when(desk: Desk) -> Request | None:
        wishes = desk.state.wishes
        waiting = sorted(wishes.asked - wishes.approved - wishes.vetoed.keys())
        return Request(ask="veto" if waiting[0] in vetoed else "approve", run=waiting[0]) if waiting else None

    return when


def test_each_training_waits_for_a_yes_where_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "night.jsonl"
    state = asked(path, approving(), falling=True, approve_runs=True, max_trials=2)
    waited = [event.fact.run for event in ledger.read(path) if isinstance(event.fact, ApprovalAsked)]
    assert waited == [run.spec.name for run in state.trained]
    assert len(waited) >= 2
    assert claimed(state).label == "confirmed_better"


@pytest.mark.parametrize("vetoed", ["sft-01", "sft-02"])
def test_a_no_has_another_set_planned_that_is_not_the_same(tmp_path: Path, vetoed: str) -> None:
    path = tmp_path / "night.jsonl"
    state = asked(path, approving(vetoed), approve_runs=True, max_trials=2)
    assert vetoed not in state.runs
    wanted = [name for name in ("sft-01", "sft-02", "sft-03") if name != vetoed]
    assert [run.spec.name for run in state.trials] == wanted
    found = [config.learning_rate for name, config in configs(path).items() if name != "smoke"]
    assert len(found) == len(set(found)) == 2
    assert ended(state) == "finished"
    assert "| vetoed | `" + vetoed in render(state)


def test_a_request_that_makes_no_sense_is_refused_and_recorded(tmp_path: Path) -> None:
    def when(desk: Desk) -> Request | None:
        first = not desk.state.refusals
        return Request(ask="veto", run="baseline", text="x") if first and "baseline" in desk.state.runs else None

    state = asked(tmp_path / "night.jsonl", when)
    assert [refusal.why for refusal in state.refusals] == ["no training run 'baseline'; there are sft-01"]
    assert claimed(state).label == "confirmed_better"


def test_what_a_person_says_is_read_by_the_planner_and_stands_in_the_report(tmp_path: Path) -> None:
    said = Request(ask="steer", text="prefer a lower learning rate")
    state = asked(tmp_path / "night.jsonl", lambda desk: None if desk.state.incidents else said)
    assert "The person whom you work for says: prefer a lower learning rate" in brief(state, state.updated_at)
    assert "person: prefer a lower learning rate" in render(state)


def test_a_mailbox_gives_each_request_once_in_order_and_keeps_a_stop(tmp_path: Path) -> None:
    box = FolderMailbox(tmp_path / "control" / "night")
    assert (list(box.take()), box.stop_asked()) == ([], None)
    for request in (Request(ask="pause"), Request(ask="stop", text="enough"), Request(ask="steer", text="x")):
        box.post(request)
    (tmp_path / "control" / "night" / "0.json").write_text("{half")
    assert [request.ask for request in box.take()] == ["pause", "steer"]
    assert list(box.take()) == []
    assert box.stop_asked() == box.stop_asked() == "enough"
    box.clear()
    assert box.stop_asked() is None


def test_a_pause_survives_a_new_process(tmp_path: Path) -> None:
    path, there = tmp_path / "night.jsonl", World(SKILL, falling=False)
    with at_desk(path, there) as desk:
        desk.heed(Request(ask="pause"))
    with at_desk(path, there) as desk:
        assert desk.state.wishes.paused is not None
        desk.heed(Request(ask="resume"))
    assert claimed(night(path, there)).label == "confirmed_better"


def test_a_no_to_an_extension_leaves_the_run_that_it_would_extend(tmp_path: Path) -> None:
    state = asked(tmp_path / "night.jsonl", approving("sft-01-x1"), falling=True, approve_runs=True, max_extensions=1)
    assert "sft-01-x1" not in state.runs
    assert (claimed(state).label, claimed(state).run) == ("confirmed_better", "sft-01")


def test_a_no_to_a_restart_gives_its_run_up_and_the_search_goes_on(tmp_path: Path) -> None:
    state = asked(
        tmp_path / "night.jsonl",
        approving("sft-01-r1"),
        endings=training(DIVERGED, "sft-01"),
        approve_runs=True,
        max_trials=2,
    )
    decision = state.decision_on("sft-01")
    assert decision is not None
    assert decision.action == "discard"
    assert (claimed(state).label, claimed(state).run) == ("confirmed_better", "sft-02")


def test_a_no_to_everything_ends_the_night_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "night.jsonl"
    state = asked(path, approving("sft-01"), approve_runs=True, max_hours=0.05)
    assert ended(state) in ("stopped", "failed")
    assert claimed(state).label == "invalid"


@pytest.mark.parametrize("name", ["sft-02", "sft-1", "sft-01-x1", "smoke"])
def test_a_veto_of_what_is_not_there_hits_nothing_else(tmp_path: Path, name: str) -> None:
    def when(desk: Desk) -> Request | None:
        running = any(attempt.job.run == "sft-01" for attempt in desk.state.open_attempts)
        return Request(ask="veto", run=name, text="x") if running and not desk.state.refusals else None

    state = asked(tmp_path / "night.jsonl", when)
    assert "no training run" in state.refusals[0].why
    assert claimed(state).label == "confirmed_better"


def test_an_approval_after_a_no_is_refused(tmp_path: Path) -> None:
    with at_desk(tmp_path / "night.jsonl", World(SKILL), approve_runs=True) as desk:
        desk.heed(Request(ask="veto", run="sft-01"))
        desk.heed(Request(ask="approve", run="sft-01"))
        assert desk.state.refusals[0].why == "sft-01 is decided already"


def test_a_request_whose_heeding_fails_is_not_lost(tmp_path: Path) -> None:
    box = FolderMailbox(tmp_path / "box")
    box.post(Request(ask="veto", run="sft-01"))
    box.post(Request(ask="pause"))
    taken = iter(box.take())
    next(taken)
    taken.close()  # type: ignore[attr-defined]
    assert [request.ask for request in box.take()] == ["veto", "pause"]
