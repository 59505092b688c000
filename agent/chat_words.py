"""What a sentence in the chat asks for. Pure, by pattern: it works without a language model."""

import re
from typing import Literal

from pydantic import Field

from hfagent.agent.goal_names import names
from hfagent.agent.goal_words import METHOD_WORDS
from hfagent.agent.records import Method, Record

Kind = Literal[
    "check", "preprocess", "compare", "status", "why", "budget", "losses", "stop", "pause", "resume", "approve",
    "export", "yes", "no", "help", "quit", "goal",
]  # fmt: skip

_COLUMN = r"[\"'`‘’“”]?([\w.\-]+)[\"'`‘’“”]?"
_PAIR = rf"{_COLUMN}\s*(?:and|&|,|/)\s*{_COLUMN}"
_RENAME = re.compile(rf"\buse\s+{_PAIR}\s+(?:instead of|in place of|as|for)\s+{_PAIR}", re.IGNORECASE)
_RENAME_ONE = re.compile(
    rf"\b(?:use\s+{_COLUMN}\s+(?:instead of|in place of|as|for)|rename\s+{_COLUMN}\s+(?:to|as))\s+{_COLUMN}",
    re.IGNORECASE,
)
_PREPROCESS = r"\b(?:pre-?process|rename|map|convert the columns?|transform)\b"
_SUITS = r"\b(?:works?|usable|suitable|suits?|ready|compatible|valid|fits?|can (?:be used|train)|good|ok)\b"
PLAIN: tuple[tuple[Kind, str], ...] = (
    ("yes", r"(?:y|yes|yep|ok|okay|sure|go|go ahead|start|start it|do it|please do)[.!]?"),
    ("no", r"(?:n|no|nope|don't|do not|cancel that|never mind)[.!]?"),
    ("quit", r"(?:quit|exit|bye)[.!]?"),
    ("help", r"(?:help|what can you do|\?)[.?!]?"),
    ("pause", r"(?:please )?(?:pause|hold on|wait)(?: (?:it|the night|the run|training))?[.!]?"),
    ("resume", r"(?:please )?(?:resume|continue|go on|unpause)(?: (?:it|the night|the run|training))?[.!]?"),
    ("stop", r"(?:please )?(?:stop|abort|kill|cancel)(?: (?:it|the night|the run|everything|all))?[.!]?"),
    ("approve", r"(?:i )?approved?(?: it)?[.!]?"),
)
"""Whole sentences."""
ASKED: tuple[tuple[Kind, str], ...] = (
    ("export", r"\bgguf\b|\bpush(?:ed)?\b.*\b(?:to|hub)\b|\bpublish\b"),
    ("losses", r"\b(?:loss(?:es)?|learning|training) (?:curves?|plots?)\b|\b(?:show|plot|draw)\b.*\bloss(?:es)?\b"),
    ("why", r"^why\b|\b(?:reason|explain)\b.*\b(?:decision|decided|kept|discard\w*|extend\w*)\b"),
    ("budget", r"\b(?:cost|costs|spent|spend|money|budget|dollars?|how long|time (?:is )?left)\b.*\?|^how much\b"),
    (
        "compare",
        r"\b(?:outperform\w*|better than|beat(?:s|ing)?|worse than|compared? (?:to|with)|against) .*"
        r"\b(?:base|baseline|original)\b|\b(?:results?|scores?|evaluations?|verdicts?)\b.*\?|^(?:show|list|give)\b.*\b(?:results?|scores?|evaluations?)\b"
        r"|\bdid it (?:work|help|improve)\b|\bany (?:gain|improvement)\b",
    ),
    (
        "status",
        r"^(?:status|progress)\b|\bhow(?:'s| is| are| does| do)\b.*\?"
        r"|\bwhat(?:'s| is)\b.*\b(?:running|happening|going on|status)\b",
    ),
)
"""Questions, by what they hold."""


class Intent(Record):
    """What is asked for."""

    kind: Kind
    dataset: str | None = None
    model: str | None = None
    method: Method | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    """Of `preprocess`: the name that is wanted -> the name that stands for it, as the sentence has it."""


def read_intent(text: str) -> Intent:
    """The intent of a sentence; `goal` where it is none of the others."""
    line = text.strip()
    for kind, pattern in PLAIN:
        if re.fullmatch(pattern, line, re.IGNORECASE):
            return Intent(kind=kind)
    found = {name.role: name.name for name in names(line)}
    about = {
        "dataset": found.get("dataset"),
        "model": found.get("model"),
        "method": next(
            (m for m, words in METHOD_WORDS.items() if re.search(rf"\b(?:{words})\b", line, re.IGNORECASE)), None
        ),
    }
    if _has(_PREPROCESS, line) or _RENAME.search(line):
        columns = _columns(line)
        if columns:
            return Intent(kind="preprocess", columns=columns, **about)
    if about["dataset"] is not None and _is_check(line):
        return Intent(kind="check", **about)
    for kind, pattern in ASKED:
        if _has(pattern, line):
            return Intent(kind=kind, **about)
    return Intent(kind="goal", **about)


def _is_check(line: str) -> bool:
    if _has(r"^(?:please )?(?:check|validate|inspect|verify|look at)\b", line):
        return True
    return _has(r"^(?:is|are|does|do|can|will|would)\b", line) and _has(_SUITS, line)


def _has(pattern: str, line: str) -> bool:
    return re.search(pattern, line, re.IGNORECASE) is not None


def _columns(line: str) -> dict[str, str]:
    """Wanted name -> name that is there."""
    if match := _RENAME.search(line):
        new_a, new_b, old_a, old_b = match.groups()
        return {old_a: new_a, old_b: new_b}
    if match := _RENAME_ONE.search(line):
        first, second, third = match.groups()
        return {third: first or second}
    return {}
