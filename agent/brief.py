"""The prompts: the byte-stable instructions, and the brief of a wake, rendered from the state."""

import re
from datetime import datetime
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template

from hfagent.agent import envelope, rules
from hfagent.agent.evidence import trials
from hfagent.agent.hypotheses import key, result
from hfagent.agent.planner_facts import Noted
from hfagent.agent.proposals import Move
from hfagent.agent.state import State

LEVERS_CHARS = 160
CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


def instructions() -> str:
    """The planner's system text: the same bytes at every wake."""
    return load_prompt("planner.md")


def brief(state: State, now: datetime, *, only: Move | None = None) -> str:
    """What a planner knows at a wake: bounded in size whatever the night's age.

    Args:
        state: the project.
        now: the time.
        only: the one call that is left to a planner that went in circles.
    """
    move = only or rules.next_move(state, now)
    past = trials(state) if state.trials else []
    return _template("brief.md").render(
        plan=state.plan,
        dataset=state.dataset,
        runs=list(state.runs.values())[-8:],
        comparisons=state.comparisons[-4:],
        decisions=state.decisions[-4:],
        refusals=state.refusals[-2:],
        wishes=_said_by_person(state)[-3:],
        time_left_s=envelope.time_left_s(state, now),
        money_left_micro_usd=envelope.money_left_micro_usd(state),
        trials=past[-6:],
        levers=lambda config: cut(key(config, state.plan.train), LEVERS_CHARS),
        tried=len(past),
        best=max((t for t in past if t.value is not None), key=lambda t: t.value or 0.0, default=None),
        move=move,
        only=only is not None,
    )


def plain_text(text: str, chars: int) -> str:
    """Lines of at most so many characters in all, without control characters: a terminal obeys those."""
    return CONTROL.sub("", text)[:chars].strip()


def _said_by_person(state: State) -> list[str]:
    notes = [event.fact for event in state.incidents if isinstance(event.fact, Noted)]
    return [note.text for note in notes if note.by == "person"]


def cut(text: str, chars: int) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= chars else line[: chars - 3] + "..."


@cache
def _template(name: str) -> Template:
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701 - text, not HTML
    environment.filters |= {"cut": cut, "result": result}
    return environment.from_string(load_prompt(name))


@cache
def load_prompt(name: str) -> str:
    """A text in `prompts/`."""
    return (files("hfagent") / "prompts" / name).read_text(encoding="utf-8")
