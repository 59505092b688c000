"""The prompts: the byte-stable instructions, and the brief of a wake, rendered from the state."""

from datetime import datetime
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template

from hfagent.agent import envelope, rules
from hfagent.agent.state import State


def instructions() -> str:
    """The planner's system text: the same bytes at every wake."""
    return _load("planner.md")


def brief(state: State, now: datetime) -> str:
    """What a planner knows at a wake: constant in size whatever the night's age."""
    move = rules.next_move(state, now)
    return _template("brief.md").render(
        plan=state.plan,
        dataset=state.dataset,
        runs=list(state.runs.values())[-8:],
        comparisons=state.comparisons[-4:],
        decisions=state.decisions[-4:],
        refusals=state.refusals[-2:],
        time_left_s=envelope.time_left_s(state, now),
        money_left_micro_usd=envelope.money_left_micro_usd(state),
        move=move,
    )


@cache
def _template(name: str) -> Template:
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701 - text, not HTML
    return environment.from_string(_load(name))


@cache
def _load(name: str) -> str:
    return (files("hfagent") / "prompts" / name).read_text(encoding="utf-8")
