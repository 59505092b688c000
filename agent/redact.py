"""Secrets are cut out of whatever is written, printed or sent to a model."""

import json
import os
import re
from functools import lru_cache
from typing import Any

MASK = "***"
_NAMES = (b"_API_KEY", b"_ACCESS_KEY", b"_TOKEN", b"_JWT", b"_SECRET", b"_PASSWORD", b"HFAGENT_NOTIFY")
"""Ends of the names of variables that hold secrets; as bytes, which need no decoding: each event is looked at."""
_SHAPES = (
    r"\bhf_(?:[A-Za-z0-9]{30,}|(?:oauth|jwt)_[\w.-]{20,})"
    r"|\bsk-(?=[\w-]*[0-9])(?=[\w-]*[A-Z])[\w-]{20,}"
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{12,}"
)
"""Tokens of Hugging Face, keys of OpenAI and its likes, and what stands in an Authorization header. Names of datasets
and folders may begin alike, so a key has digits and capitals."""
_MIN_CHARS = 8
_LEARNT: set[str] = set()


def learn(secret: str) -> None:
    """Mask from here on a secret that this process has read elsewhere than in a variable, e.g. in a file."""
    _LEARNT.add(secret)


def redact(text: str) -> str:
    """The text without tokens: by their shape, and by the values of this process's variables and files that hold some.

    A value that is short, or a mere word, is no secret: it would be cut out of every sentence.
    """
    return _pattern(_values()).sub(MASK, text)


def redact_all(value: Any) -> Any:
    """The same structure with every text in it redacted; keys stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_all(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(item) for item in value]
    return value


def holds_secret(line: str) -> bool:
    """Whether a line of JSON may hold one."""
    return _pattern(_values()).search(line) is not None


def _values() -> tuple[str, ...]:
    values = [os.environ[os.fsdecode(name)] for name in os.environb if name.endswith(_NAMES)] + list(_LEARNT)
    found = {
        part for value in values for part in (value, *value.split()) if len(part) >= _MIN_CHARS and not part.isalpha()
    }
    return tuple(sorted(found, key=len, reverse=True))


@lru_cache(maxsize=4)
def _pattern(values: tuple[str, ...]) -> re.Pattern[str]:
    spelled = dict.fromkeys(form for value in values for form in (value, json.dumps(value)[1:-1]))
    return re.compile("|".join([*map(re.escape, spelled), _SHAPES]))
