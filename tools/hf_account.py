"""Whose account it is: the token, and the namespace that jobs and repos belong to."""

from dataclasses import dataclass, field
from typing import Any

from hfagent.agent.errors import SettingsError
from hfagent.agent.redact import learn
from hfagent.agent.settings import Settings
from hfagent.tools.hub_calls import api, ask


@dataclass(frozen=True)
class Account:
    """A token and what it is used for."""

    token: str = field(repr=False)
    namespace: str

    @property
    def api(self) -> Any:
        """The client."""
        return api(None, self.token)


def account(settings: Settings) -> Account:
    """The account of the settings; the token's own namespace where none is named.

    Raises:
        SettingsError: there is no token.
        AccountRefused: the Hub does not accept it.
        BackendAway: the Hub does not answer.
    """
    token = found_token(settings)
    if token is None:
        raise SettingsError(
            "jobs on hf need a token with the right to write: create one at hf.co/settings/tokens and set HF_TOKEN, "
            "or log in with `hf auth login`"
        )
    namespace = settings.namespace or ask(lambda: str(api(None, token).whoami(cache=True)["name"]))
    return Account(token, namespace)


def found_token(settings: Settings) -> str | None:
    """HF_TOKEN, else what `hf auth login` has stored; a line break at its end is that of the file it came from."""
    if settings.hf_token is not None:
        return settings.hf_token.get_secret_value().strip() or None
    from huggingface_hub import get_token

    token = get_token()
    if token is not None:
        learn(token)
    return token
