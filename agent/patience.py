"""What stands between a planner and its endpoint: one retry policy, tidy answers, and a meter.

It takes the place of smolagents' own retries (`ApiModel.retryer`), so that every model class of it behaves alike.
"""

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any

from pydantic import Field
from smolagents.models import ChatMessageToolCall, ChatMessageToolCallFunction
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential_jitter

from hfagent.agent.errors import PlannerAway
from hfagent.agent.records import Record
from hfagent.agent.redact import redact

CHARS_PER_TOKEN = 3
"""Where an endpoint reports no usage: English text has about 4 characters a token, so this errs upwards."""
MAX_CALLS_A_TURN = 4
MAX_ANSWER_CHARS = 4000
MAX_MALFORMED = 3
"""Answers in a row that are no chat completion before the endpoint counts as away."""
MAX_WAIT_S = 60.0
TRANSIENT = frozenset({408, 409, 425, 429})
"""Status codes after which the same request may succeed; so may any from 500 on."""
ADAPTATIONS: tuple[tuple[str, Callable[[dict[str, Any]], dict[str, Any]]], ...] = (
    ("tool_choice", lambda kwargs: {**kwargs, "tool_choice": "auto"}),
    (
        "max_completion_tokens",
        lambda kwargs: {
            ("max_completion_tokens" if name == "max_tokens" else name): value for name, value in kwargs.items()
        },
    ),
)
"""What an endpoint's refusal (400, 422) may name, and the request that it takes instead."""


class MalformedAnswerError(ValueError):
    """An answer that is no chat completion."""


class Usage(Record):
    """Tokens of one call."""

    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    estimated: bool
    """Counted by characters, since the endpoint did not say."""


class Patience:
    """Calls an endpoint until it answers, for so long as the settings allow."""

    def __init__(
        self,
        *,
        now: Callable[[], datetime],
        pause: Callable[[float], bool],
        outage_s: float,
        used: Callable[[Usage], None] = lambda usage: None,
    ):
        """Make one.

        Args:
            now: the clock.
            pause: waits so many seconds; False once nobody wants to wait any longer.
            outage_s: the longest time without an answer.
            used: told of each answer's tokens, before anything is made of it.
        """
        self.outage_s = outage_s
        self._used = used
        self._now = now
        self._pause = pause
        self._adapted: list[Callable[[dict[str, Any]], dict[str, Any]]] = []
        self._stopped = False

    def __call__(self, function: Callable[..., Any], **kwargs: Any) -> Any:
        """The tidied answer.

        Raises:
            PlannerAway: no answer in time, or none that could ever come.
        """
        begun, self._stopped = self._now(), False
        retrying = Retrying(
            retry=retry_if_exception(_transient),
            stop=lambda tries: self._over(tries, begun),
            wait=_wait_s,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(self._ask, function, kwargs)
        except Exception as error:
            waited = (self._now() - begun).total_seconds()
            after = f" for {waited:.0f} s" if waited >= 1 else ""
            raise PlannerAway(f"no answer{after}: {redact(_told(error))}") from error

    def _ask(self, function: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
        for adapt in self._adapted:
            kwargs = adapt(kwargs)
        try:
            response = function(**kwargs)
        except Exception as error:
            other = self._adaptation(error)
            if other is None:
                raise
            self._adapted.append(other)
            return self._ask(function, kwargs)
        answer, usage = tidied(response, kwargs)
        self._used(usage)
        return answer

    def _adaptation(self, error: Exception) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
        if _status(error) not in (400, 422):
            return None
        text = str(error)
        return next((adapt for word, adapt in ADAPTATIONS if word in text and adapt not in self._adapted), None)

    def _over(self, tries: RetryCallState, begun: datetime) -> bool:
        error = tries.outcome.exception() if tries.outcome is not None else None
        if isinstance(error, MalformedAnswerError) and tries.attempt_number >= MAX_MALFORMED:
            return True
        return self._stopped or (self._now() - begun).total_seconds() + tries.upcoming_sleep > self.outage_s

    def _sleep(self, seconds: float) -> None:
        self._stopped = not self._pause(seconds)


def tidied(response: Any, kwargs: dict[str, Any]) -> tuple[Any, Usage]:
    """The answer as smolagents reads it, whatever the endpoint made of it.

    Ids of calls are new and in order: smolagents sorts by them, and of two equal ones it drops the first. A final
    answer beside other calls waits for the next turn. Text and number of calls are bounded.

    Raises:
        MalformedAnswerError: it is no chat completion.
    """
    choices = getattr(response, "choices", None)
    message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
    if message is None:
        raise MalformedAnswerError(f"the answer is no chat completion: {str(response)[:200]!r}")
    content = _text(getattr(message, "content", None))
    calls = _calls(getattr(message, "tool_calls", None))
    usage = getattr(response, "usage", None)
    counts = (getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None))
    if all(isinstance(count, int) and count >= 0 for count in counts):
        used = Usage(input_tokens=counts[0], output_tokens=counts[1], estimated=False)
    else:
        sent = len(str(kwargs.get("messages", ""))) + len(str(kwargs.get("tools", "")))
        got = len(content) + sum(len(call.function.arguments) for call in calls)
        used = Usage(input_tokens=_tokens(sent), output_tokens=_tokens(got), estimated=True)
    answer = SimpleNamespace(
        choices=[SimpleNamespace(message=SimpleNamespace(role="assistant", content=content, tool_calls=calls or None))],
        usage=SimpleNamespace(prompt_tokens=used.input_tokens, completion_tokens=used.output_tokens),
    )
    return answer, used


def _text(content: Any) -> str:
    if isinstance(content, list):
        content = "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)[:MAX_ANSWER_CHARS] if content else ""


def _calls(calls: Any) -> list[ChatMessageToolCall]:
    found = []
    for call in calls if isinstance(calls, list) else []:
        function = getattr(call, "function", None)
        name, arguments = getattr(function, "name", None), getattr(function, "arguments", None)
        if isinstance(name, str) and name:
            found.append((name, arguments if isinstance(arguments, str | dict) else "{}"))
    if len(found) > 1:
        found = [item for item in found if item[0] != "final_answer"] or found[:1]
    return [
        ChatMessageToolCall(
            id=f"c{number}",
            type="function",
            function=ChatMessageToolCallFunction(
                name=name[:64], arguments=arguments[:MAX_ANSWER_CHARS] if isinstance(arguments, str) else arguments
            ),
        )
        for number, (name, arguments) in enumerate(found[:MAX_CALLS_A_TURN])
    ]


def _tokens(chars: int) -> int:
    return math.ceil(chars / CHARS_PER_TOKEN)


def _transient(error: BaseException) -> bool:
    if isinstance(error, MalformedAnswerError | ConnectionError | TimeoutError):
        return True
    status = _status(error)
    if status is None:
        # Of openai and of httpx2, which huggingface_hub hands through.
        names = {kind.__name__ for kind in type(error).__mro__}
        return bool(names & {"APIConnectionError", "TransportError", "InferenceTimeoutError"})
    if getattr(error, "code", None) == "insufficient_quota":
        return False
    return status in TRANSIENT or status >= 500


def _status(error: BaseException) -> int | None:
    found = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) else None


def _wait_s(tries: RetryCallState) -> float:
    """As long as the endpoint asks for, else longer from time to time."""
    error = tries.outcome.exception() if tries.outcome is not None else None
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    asked = _retry_after_s(headers.get("retry-after"))
    return asked if asked is not None else wait_exponential_jitter(initial=1.0, max=MAX_WAIT_S, jitter=1.0)(tries)


def _retry_after_s(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max((at - datetime.now(at.tzinfo)) / timedelta(seconds=1), 0.0)


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
