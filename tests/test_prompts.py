"""The planner's texts: they render in every state of a night, name only tools that exist, and stay small."""

import re
from pathlib import Path

import pytest
from world import SKILL, World, night

from hfagent.agent.brief import brief, instructions
from hfagent.agent.desk import Desk
from hfagent.agent.events import Event
from hfagent.agent.fakes import FakeClock
from hfagent.agent.folding import fold
from hfagent.agent.ledger import open_ledger, read
from hfagent.tools.toolbox import make_tools

CHARS_PER_TOKEN = 3
"""A careful guess: English text has about 4."""


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    path = tmp_path_factory.mktemp("prompts") / "night.jsonl"
    night(path, World(SKILL))
    return read(path)


def test_the_brief_renders_after_every_event_and_stays_under_2000_tokens(events: list[Event]) -> None:
    sizes = []
    for n in range(1, len(events) + 1):
        state = fold(events[:n])
        assert state is not None
        sizes.append(len(brief(state, state.updated_at)))
    assert max(sizes) < 2000 * CHARS_PER_TOKEN


def test_texts_and_tool_descriptions_stay_under_6000_tokens_and_agree(tmp_path: Path, events: list[Event]) -> None:
    world = World(SKILL)
    path = tmp_path / "night.jsonl"
    night(path, world)
    with open_ledger(path, FakeClock()) as book:
        tools = {tool.name: tool for tool in make_tools(Desk(book, world.ports), on_error=lambda error: None)}
    size = len(instructions()) + sum(len(str(tool.inputs)) + len(tool.description) for tool in tools.values())
    assert size < 6000 * CHARS_PER_TOKEN
    called = set(re.findall(r"call (?:the )?`?([a-z]+_[a-z]+|finish)`?", instructions()))
    assert called <= {*tools, "final_answer"}
    state = fold(events[:-1])
    assert state is not None
    proposed = re.findall(r"would call next: (\w+)\(", brief(state, state.updated_at))
    assert set(proposed) <= set(tools)
