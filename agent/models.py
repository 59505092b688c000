"""The name of a planner becomes a smolagents model of a real endpoint."""

import math
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import urlsplit

from smolagents import InferenceClientModel, Model, OpenAIModel
from smolagents.models import REMOVE_PARAMETER

from hfagent.agent.errors import PlannerAway, SettingsError
from hfagent.agent.records import Record
from hfagent.agent.settings import Settings

FORMS = "rules, openai:<model>, hf:<model>, or the base url of an OpenAI-compatible endpoint"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "0.0.0.0")  # noqa: S104 - compared with, not bound
MAX_INPUT_TOKENS = 8000
"""Of one call; what is sent is bounded, see tests/test_models.py."""


class PlannerName(Record):
    """Who plans."""

    kind: Literal["rules", "openai", "hf", "url"]
    model: str | None = None
    """None asks the endpoint for its first one."""
    base_url: str | None = None

    @property
    def free(self) -> bool:
        """Whether its tokens cost nothing."""
        return self.kind == "rules" or (self.kind == "url" and urlsplit(self.base_url or "").hostname in LOCAL_HOSTS)


def parse_planner(text: str) -> PlannerName:
    """Read the setting: `rules`, `openai:gpt-5-mini`, `hf:Qwen/Qwen3-32B`, `http://localhost:8080/v1`, and
    `http://localhost:8080/v1#name` for one of several models.

    Raises:
        SettingsError: it is none of these.
    """
    if text == "rules":
        return PlannerName(kind="rules")
    kind, _, model = text.partition(":")
    if kind == "openai" and model:
        return PlannerName(kind="openai", model=model)
    if kind == "hf" and model:
        return PlannerName(kind="hf", model=model)
    try:
        url = urlsplit(text)
    except ValueError:
        url = urlsplit("")
    if url.scheme in ("http", "https") and url.hostname:
        return PlannerName(kind="url", base_url=url._replace(fragment="").geturl(), model=url.fragment or None)
    raise SettingsError(f"the planner is {text!r}: it must be {FORMS}")


def make_model(name: PlannerName, settings: Settings, *, call: Callable[..., Any]) -> Model:
    """The model behind a name.

    Args:
        name: who plans.
        settings: keys, and how long one answer may take.
        call: makes each request, see `patience.Patience`; every inner retry is off.

    Raises:
        SettingsError: a key is missing.
    """
    common: dict[str, Any] = {
        "retry": False,
        "flatten_messages_as_text": True,
        "max_tokens": settings.planner_max_tokens,
        "stop": REMOVE_PARAMETER,
    }
    if name.kind == "hf":
        if settings.hf_token is None:
            raise SettingsError("the planner hf:<model> needs a token: set the variable HF_TOKEN")
        token = settings.hf_token.get_secret_value()
        model = InferenceClientModel(model_id=name.model, token=token, timeout=settings.planner_timeout_s, **common)
    else:
        model = _openai(name, settings, common)
        if name.model is None:
            call = _naming(model, call)
    model.retryer = call
    return model


def _openai(name: PlannerName, settings: Settings, common: dict[str, Any]) -> Any:
    base_url = name.base_url or settings.openai_base_url
    if settings.openai_api_key is None and base_url is None:
        raise SettingsError("the planner openai:<model> needs a key: set the variable OPENAI_API_KEY")
    key = "none" if settings.openai_api_key is None else settings.openai_api_key.get_secret_value()
    if name.kind == "url" and not name.free and settings.openai_api_key is None:
        raise SettingsError(f"the endpoint {base_url!r} may need a key: set OPENAI_API_KEY, to `none` if it needs none")
    return OpenAIModel(
        model_id=name.model or str(base_url),
        api_base=base_url,
        api_key=key,
        client_kwargs={"max_retries": 0, "timeout": settings.planner_timeout_s},
        **common,
    )


def _naming(model: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, which asks for the endpoint's first model before its first request, as patiently as for an answer."""
    found: list[str] = []

    def named(function: Callable[..., Any], **kwargs: Any) -> Any:
        def asking(**request: Any) -> Any:
            if not found:
                found.append(_first_model(model))
                model.model_id = found[0]
            return function(**{**request, "model": found[0]})

        return call(asking, **kwargs)

    return named


def _first_model(model: Any) -> str:
    listed = [str(item.id) for item in model.client.models.list().data or ()]
    if not listed:
        url = model.client.base_url
        raise SettingsError(f"the endpoint {str(url)!r} offers no model: name one, {url}#<model>")
    return listed[0]


def pricing(name: PlannerName, settings: Settings, *, capped: bool) -> Callable[[int, int], int | None]:
    """Micro-dollars of so many tokens in and out: a dollar for a million is a micro-dollar each.

    Args:
        name: who plans.
        settings: the prices.
        capped: whether the project has a budget.

    Raises:
        SettingsError: there is a budget and no price: nobody would know when it is spent.
    """
    price_in, price_out = settings.planner_price_in, settings.planner_price_out
    if price_in is None or price_out is None:
        if name.free:
            return lambda tokens_in, tokens_out: 0
        if capped:
            raise SettingsError(
                "a budget counts the planner's tokens too: set planner_price_in and planner_price_out, dollars for a "
                "million tokens (0 for an endpoint that costs nothing)"
            )
        return lambda tokens_in, tokens_out: None
    return lambda tokens_in, tokens_out: math.ceil(tokens_in * price_in + tokens_out * price_out)


def check_answers(model: Model) -> None:
    """Ask the endpoint one word before a night rests on it.

    Raises:
        SettingsError: it does not answer.
    """
    from smolagents import ChatMessage, MessageRole

    question = ChatMessage(role=MessageRole.USER, content=[{"type": "text", "text": "Answer with the word ready."}])
    try:
        model.generate([question])
    except PlannerAway as error:
        raise SettingsError(f"the planner {model.model_id!r} cannot be used: {error}") from error
