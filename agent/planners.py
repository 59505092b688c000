"""Who plans by the settings: the rules, or a model with the rules behind it."""

from collections.abc import Callable
from datetime import UTC, datetime

from smolagents import Model

from hfagent.agent.desk import Desk
from hfagent.agent.envelope import money_left_micro_usd, time_left_s
from hfagent.agent.models import (
    MAX_INPUT_TOKENS,
    check_answers,
    make_model,
    parse_planner,
    pricing,
)
from hfagent.agent.patience import Patience, Usage
from hfagent.agent.pipeline_facts import Pipeline
from hfagent.agent.planner import MAX_CALLS, AgentPlanner, rule_planner
from hfagent.agent.planner_facts import PlannerCalled
from hfagent.agent.ports import Planner
from hfagent.agent.records import Plan
from hfagent.agent.settings import Settings
from hfagent.agent.takeover import Takeover


def require_price(settings: Settings, plan: Plan | Pipeline) -> None:
    """Look whether the planner's tokens can be counted against the plan's budget.

    Raises:
        SettingsError: they cannot: no price is set.
    """
    pricing(parse_planner(settings.planner), settings, capped=plan.budget_micro_usd is not None)


def require_planner(settings: Settings) -> None:
    """Look whether the planner works, before a night rests on it.

    Raises:
        SettingsError: a wrong name, no key, or an endpoint that does not answer.
    """
    name = parse_planner(settings.planner)
    if name.kind != "rules":
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
        """In slices, so that a request to stop is seen, and the end of the time."""
        while seconds > 0 and going():
            desk.wait(min(seconds, settings.look_s))
            seconds -= settings.look_s
        return going()

    def going() -> bool:
        left_s = time_left_s(desk.state, desk.now)
        return stop_asked() is None and (left_s is None or left_s > 0)

    def book(usage: Usage) -> None:
        cost = price(usage.input_tokens, usage.output_tokens)
        desk.append(PlannerCalled(planner=str(model.model_id), cost_micro_usd=cost, **usage.model_dump()))

    patience = Patience(now=lambda: desk.now, pause=pause, outage_s=settings.planner_outage_s, used=book)
    model = make_model(name, settings, call=patience)
    price = pricing(name, settings, capped=desk.state.plan.budget_micro_usd is not None)
    most = price(MAX_CALLS * MAX_INPUT_TOKENS, MAX_CALLS * settings.planner_max_tokens)

    def unaffordable() -> str | None:
        limit, tokens = desk.state.plan.max_planner_tokens, desk.state.tokens or 0
        if limit is not None and tokens + MAX_CALLS * (MAX_INPUT_TOKENS + settings.planner_max_tokens) > limit:
            return f"its next wake may pass the limit of {limit:,} tokens, of which {tokens:,} are used"
        left = money_left_micro_usd(desk.state)
        if left is None or most is None or most <= left:
            return None
        return f"its next wake may cost ${most / 1e6:.2f}, and ${left / 1e6:.2f} are left of the budget"

    return Takeover(
        desk,
        AgentPlanner(desk, model),
        rule_planner(desk),
        patience=patience,
        unaffordable=unaffordable,
        stop_asked=stop_asked,
    )
