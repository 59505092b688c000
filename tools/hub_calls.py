"""Calls of the Hub's API as hfagent makes them: with one patience, and with errors that say what is to be done."""

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from hfagent.agent.errors import AccountRefused, BackendAway, JobError, OutOfCredit

T = TypeVar("T")
ATTEMPTS = 4
LONGEST_WAIT_S = 20.0
"""Between two attempts, also where the Hub asks for more: the loop asks again anyway."""
NOT_THE_HUB = "what answers is not the Hub, or speaks another version of it"
NO_ANSWER = (json.JSONDecodeError, KeyError)
"""What the client makes of it."""
TIMEOUT_S = 60.0
"""Without a byte of an answer: the client's own requests wait for ever, and a night with them."""
FOREVER = frozenset({408, 425, 429})
"""Statuses below 500 that pass by themselves."""


def ask(call: Callable[[], T], *, attempts: int = ATTEMPTS, sleep: Callable[[float], None] | None = None) -> T:
    """The answer to a request that may be repeated; a few times where the Hub is busy or does not answer.

    Args:
        call: makes the request.
        attempts: 1 where the client repeats it by itself, for half a minute.
        sleep: between two attempts; None is the clock's.

    Raises:
        BackendAway: still no answer.
        AccountRefused, JobError: an answer that repeating does not change.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_attempt

    patient: dict[str, Any] = {} if sleep is None else {"sleep": sleep}
    retrying = Retrying(
        retry=retry_if_exception(may_pass), wait=_wait_s, stop=stop_after_attempt(attempts), reraise=True, **patient
    )
    with explained():
        return retrying(call)


@contextmanager
def explained() -> Iterator[None]:
    """Errors of the client as errors of hfagent."""
    try:
        yield
    except http_error() as error:
        raise explain(error) from error
    except NO_ANSWER as error:
        raise BackendAway(f"{NOT_THE_HUB} ({type(error).__name__}): check HF_ENDPOINT and proxies") from error


def may_pass(error: BaseException) -> bool:
    """Whether the same request may get another answer later."""
    status = status_of(error)
    return isinstance(error, http_error()) if status is None else status >= 500 or status in FOREVER


def taken_for_sure_not(error: BaseException) -> bool:
    """Whether the Hub has answered that it did nothing: only then may a request with an effect be repeated at once."""
    status = status_of(error)
    return status is not None and status < 500 and status != 408


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an error; None where no answer came."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def explain(error: Exception) -> JobError:
    """The error in hfagent's terms: what, the Hub's own words, and what to do."""
    status = status_of(error)
    if status is None:
        return BackendAway(f"the Hub does not answer: {type(error).__name__}: {error}".rstrip(": "))
    said = getattr(error, "server_message", None) or first_line(error)
    if may_pass(error):
        return BackendAway(f"the Hub answers with status {status}: {said}")
    if status == 401:
        return AccountRefused(
            f"the Hub does not accept the token ({said}): it is missing, wrong or expired; set HF_TOKEN to a valid one"
        )
    if status == 402:
        return OutOfCredit(f"the account has no credit for jobs ({said}): add some at hf.co/settings/billing")
    if status == 403:
        return AccountRefused(
            f"the token may not do this ({said}): it needs the right to write and to run jobs in this namespace"
        )
    return JobError(f"the Hub refuses: {said} (status {status})")


def first_line(error: BaseException) -> str:
    """Of its text; its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def http_error() -> type[Exception]:
    """The class of all errors of the client's HTTP library, those without an answer included."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")


def _wait_s(state: Any) -> float:
    """Seconds to the next attempt: as long as the Hub says, else 1, 2, 4."""
    error = state.outcome.exception()
    response = getattr(error, "response", None)
    said = response.headers.get("retry-after", "") if response is not None else ""
    wait_s = float(said) if said.replace(".", "", 1).isdigit() else 2.0 ** (state.attempt_number - 1)
    return min(wait_s, LONGEST_WAIT_S)


def bound(timeout_s: float) -> None:
    """Let every request of the client that sets no limit of its own fail after so long without an answer."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def client() -> Any:
        made = default_client_factory()
        made.timeout = timeout_s
        return made

    set_client_factory(client)


@functools.cache
def api(endpoint: str | None, token: str | None) -> Any:
    """One client an account; no request of this process waits for ever once there is one."""
    from huggingface_hub import HfApi

    bound(TIMEOUT_S)
    return HfApi(endpoint=endpoint, token=token, library_name="hfagent")
