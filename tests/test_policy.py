"""Every state of a whole night: what the rules propose passes the check, and what is out of order is refused."""

from datetime import timedelta
from pathlib import Path

import pytest
from world import SKILL, World, night

from hfagent.agent import envelope, policy, proposals, rules
from hfagent.agent.fakes import FakeClock
from hfagent.agent.folding import fold
from hfagent.agent.ledger import read
from hfagent.agent.proposals import Move
from hfagent.agent.records import Refusal, RunSpec
from hfagent.agent.state import State


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[State]:
    path = tmp_path_factory.mktemp("night") / "night.jsonl"
    night(path, World(SKILL))
    events = read(path)
    folded = [fold(events[:n]) for n in range(1, len(events) + 1)]
    return [state for state in folded if state is not None]


def test_what_the_rules_propose_is_never_refused(states: list[State]) -> None:
    launches = 0
    for state in states:
        move = rules.next_move(state, state.updated_at)
        if move is None or move.tool in ("check_dataset", "check_contamination", "finish"):
            continue
        spec = proposals.spec_of(state, move)
        if isinstance(spec, RunSpec):
            launches += 1
            assert policy.check_launch(state, spec, state.updated_at) is None
        elif move.tool == "compare":
            assert policy.check_compare(state, move.args["run"], move.args["set"]) is None
        else:
            assert policy.check_decide(state, move.args["run"], state.updated_at) is None
    assert launches >= 8


def refusal(state: State, tool: str, **args: str) -> str:
    told = {"hypothesis": "y", "why": "x", **args}
    spec = proposals.spec_of(state, Move(tool=tool, args=told))
    found = spec if isinstance(spec, Refusal) else policy.check_launch(state, spec, state.updated_at)
    assert found is not None, f"{tool} {args} was allowed"
    return found.why


def at(states: list[State], *, after: str) -> State:
    """The last state between the end of the run `after` and the next launch."""
    done = [s for s in states if after in s.runs and s.runs[after].done and not s.open_attempts]
    return [s for s in done if len(s.runs) == len(done[0].runs)][-1]


def test_training_needs_the_smoke_and_the_baseline(states: list[State]) -> None:
    checked = next(s for s in states if s.confirmed and s.dataset is not None)
    assert "check_contamination first" in refusal(checked, "launch", what="train")
    confirmed = next(s for s in states if s.confirmed and s.contamination is not None)
    assert "smoke" in refusal(confirmed, "launch", what="train")
    assert "baseline first" in refusal(at(states, after="smoke"), "launch", what="train")


def test_nothing_starts_before_the_plan_is_confirmed(states: list[State]) -> None:
    assert "not confirmed" in refusal(states[0], "launch", what="smoke")


def test_one_job_at_a_time(states: list[State]) -> None:
    running = next(s for s in states if s.open_attempts)
    assert "one job at a time" in refusal(running, "evaluate", subject="base", set="search")


def test_an_extension_needs_the_decision(states: list[State]) -> None:
    assert "not decided" in refusal(at(states, after="sft-01"), "extend", run="sft-01")
    kept = states[-2]
    assert "not to extend" in refusal(kept, "extend", run="sft-01-x1")


def test_the_confirm_set_is_for_the_kept_run_alone(states: list[State]) -> None:
    assert "no run was kept" in refusal(at(states, after="baseline"), "evaluate", subject="base", set="confirm")
    kept = next(s for s in states if s.kept and not s.open_attempts)
    assert "touched once" in refusal(kept, "evaluate", subject="sft-01", set="confirm")


def test_nothing_is_done_twice(states: list[State]) -> None:
    kept = next(s for s in states if s.kept)
    assert refusal(kept, "launch", what="smoke") == "already done"
    assert refusal(kept, "evaluate", subject="base", set="search") == "already done"
    assert policy.check_compare(kept, "sft-01", "search") is not None
    assert policy.check_decide(kept, "sft-01", kept.updated_at) is not None


def test_a_run_that_does_not_exist_is_named(states: list[State]) -> None:
    assert "no run 'sft-09'" in refusal(states[-2], "evaluate", subject="sft-09", set="search")


def test_the_night_cannot_be_ended_early_or_with_another_outcome(states: list[State]) -> None:
    middle = at(states, after="baseline")
    found = rules.check_finish(middle, middle.updated_at, "finished")
    assert found is not None
    assert "train" in found.why
    last = states[-2]
    assert rules.check_finish(last, last.updated_at, "finished") is None
    assert rules.check_finish(last, last.updated_at, "failed") is not None


def test_a_timeout_never_passes_the_deadline(tmp_path: Path) -> None:
    night(tmp_path / "night.jsonl", World(SKILL), max_hours=1)
    state = fold(read(tmp_path / "night.jsonl")[:4])
    assert state is not None
    spec = proposals.smoke_run(state, "x")
    late = FakeClock(state.started_at + timedelta(minutes=55))
    assert envelope.job_timeout_s(state, spec, late.now()) == 300
    assert envelope.job_timeout_s(state, spec, state.started_at) == 900
