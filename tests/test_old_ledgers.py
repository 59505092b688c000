"""Upgrades: ledgers that earlier versions wrote replay, whole and at every line."""

import json
from pathlib import Path

import pytest
from world import SKILL, World, ended, night

from hfagent.agent import rules
from hfagent.agent.chain import parse
from hfagent.agent.folding import fold
from hfagent.agent.ledger import read
from hfagent.agent.lines import line
from hfagent.agent.report import render
from hfagent.agent.state import State
from hfagent.agent.summary import headline, summary

OLD = sorted((Path(__file__).parent / "ledgers").glob("*.jsonl"))


def state_of(path: Path) -> State:
    state = fold(read(path))
    assert state is not None
    return state


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_an_old_ledger_tells_the_same_verdict(path: Path) -> None:
    """Upgrade: a finished night of an earlier version."""
    state = state_of(path)
    verdict = headline(state)
    assert ended(state) == "finished"
    assert (state.kept, verdict and verdict.label) == ("sft-01-x1", "better")
    assert "sft-01-x1" in render(state)
    assert json.dumps(summary(state, report=path, ledger=path, held=False))


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_an_old_ledger_can_be_read_after_each_of_its_lines(path: Path) -> None:
    """Upgrade: in the middle of a night of an earlier version."""
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    for number in range(2, len(lines)):
        state = fold(parse(str(path), b"".join(lines[:number])).events)
        assert state is not None
        rules.next_move(state, state.updated_at)
        assert state.plan.project in render(state)
    events = read(path)
    assert all(line(event, state_of(path)) != "" for event in events)


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_a_night_that_an_old_version_began_is_finished_by_this_one(path: Path, tmp_path: Path) -> None:
    """Upgrade: the night is resumed by the new version before its last evaluations."""
    whole = path.read_bytes().splitlines(keepends=True)
    cut = next(n for n, text in enumerate(whole) if b'"job_intended"' in text and b'"run":"baseline-confirm"' in text)
    new = tmp_path / "night.jsonl"
    new.write_bytes(b"".join(whole[:cut]))
    state = night(new, World(SKILL))
    assert (ended(state), state.kept) == ("finished", "sft-01-x1")
    assert new.read_bytes().startswith(b"".join(whole[:cut]))
