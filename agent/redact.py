"""Secrets are cut out of whatever is written, printed or sent to a model."""

import os
import re
from functools import lru_cache

MASK = "***"
_NAMES = re.compile(r"(?:_API_KEY|_TOKEN|_SECRET|_PASSWORD|^HFAGENT_NOTIFY)$")
_SHAPES = r"\bhf_[A-Za-z0-9]{16,}|\bsk-[A-Za-z0-9_-]{16,}|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{12,}"
"""Tokens of Hugging Face, keys of OpenAI and its likes, and what stands in an Authorization header."""
_MIN_CHARS = 8
"""Shorter values of such variables are words, e.g. `none`."""


def redact(text: str) -> str:
    """The text without tokens: by their shape, and by the values of this process's variables that hold secrets."""
    values = (value for name, value in os.environ.items() if _NAMES.search(name) and len(value) >= _MIN_CHARS)
    return _pattern(tuple(sorted(values))).sub(MASK, text)


@lru_cache(maxsize=4)
def _pattern(values: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join([*map(re.escape, values), _SHAPES]))
