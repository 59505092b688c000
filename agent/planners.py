"""Who plans by the settings: the rules, or a model with the rules behind it."""

from collections.abc import Callable
from datetime import UTC, datetime

from smolagents import Model

from hfagent.agent.desk import Desk
from hfagent.agent.envelope import money_left_micro_usd
from hfagent.agent.models import (
    MAX_INPUT_TOKENS,
    check_answers,
    make_model,
    parse_planner,
    pricing,
)
from hfagent.agent.patience import Patience
from hfagent.agent.planner import MAX_CALLS, AgentPlanner, rule_planner
from hfagent.agent.ports import Planner
from hfagent.agent.settings import Settings
from hfagent.agent.takeover import Takeover


def require_planner(settings: Settings) -> None:
    """Look whether the planner works, before a night rests on it.

    Raises:
        SettingsError: a wrong name, no key, no price beside a budget, or an endpoint that does not answer.
    """
    name = parse_planner(settings.planner)
    if name.kind != "rules":
        pricing(name, settings)
        check_answers(impatient_model(settings))


def impatient_model(settings: Settings) -> Model:
    """The model that plans, for somebody who sits there and waits: what fails is not tried again.

    Raises:
        SettingsError: the model cannot be used.
    """
    once = Patience(now=lambda: datetime.now(UTC), pause=lambda seconds: False, outage_s=0)
    return make_model(parse_planner(settings.planner), settings, call=once)


def planner_for(desk: Desk, settings: Settings, *, stop_asked: Callable[[], str | None]) -> Planner:
    """The planner of a night.

    Args:
        desk: where it works.
        settings: name it.
        stop_asked: the reason, once somebody wants the night stopped.

    Raises:
        SettingsError: the model cannot be used.
    """
    name = parse_planner(settings.planner)
    if name.kind == "rules":
        return rule_planner(desk)

    def pause(seconds: float) -> bool:
        """In slices, so that a request to stop is seen."""
        while seconds > 0 and stop_asked() is None:
            desk.wait(min(seconds, settings.poll_s))
            seconds -= settings.poll_s
        return stop_asked() is None

    patience = Patience(now=lambda: desk.now, pause=pause, outage_s=settings.planner_outage_s)
    model, price = make_model(name, settings, call=patience), pricing(name, settings)
    most = price(MAX_CALLS * MAX_INPUT_TOKENS, MAX_CALLS * settings.planner_max_tokens)

    def unaffordable() -> str | None:
        left = money_left_micro_usd(desk.state)
        if left is None or most is None or most <= left:
            return None
        return f"its next wake may cost ${most / 1e6:.2f}, and ${left / 1e6:.2f} are left of the budget"

    return Takeover(
        desk,
        AgentPlanner(desk, model, meter=patience, price=price),
        rule_planner(desk),
        patience=patience,
        unaffordable=unaffordable,
        stop_asked=stop_asked,
    )
