"""What a sentence wants done with the model at the end: GGUF files, a push to the Hub. Pure."""

import re

from pydantic import ValidationError

from hfagent.agent.errors import PlanRejected, UsageError
from hfagent.agent.goal_words import denied
from hfagent.agent.records import Export

QUANTIZATIONS = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
DEFAULT_QUANTIZATION = "Q4_K_M"
_PUSH = re.compile(
    r"(?:,?\s*\b(?:and|then)\b)?[\s.,;]*\b(?:push|publish|upload)\w*\b(?:\s+(?:it|them|the\s+\w+|everything|publicly|privately))*\s+(?:up\s+)?"
    r"(?:in)?to\s+(?:the\s+hub\s+(?:as|at)\s+)?[\"'`]?([\w.-]*\w/[\w.-]*\w)[\"'`]?",
    re.IGNORECASE,
)
_ONLY_HUB = re.compile(r"\b(?:push|publish|upload)\b", re.IGNORECASE)
_GGUF = re.compile(
    r"(?:,?\s*\b(?:and|then)\b)?\s*\b(?:convert|export|quanti[sz]e)\w*\b[^.;\n]*?\bgguf\b[^.;\n]*|\bgguf\b",
    re.IGNORECASE,
)
_NAMED = re.compile(
    rf"(?<!\w)(?:{'|'.join(name.replace('_', '[_-]?') for name in QUANTIZATIONS)})(?!\w)", re.IGNORECASE
)
_PUBLIC_BEFORE = re.compile(r"\bpublicly\s+$", re.IGNORECASE)
_PUBLIC_WITHIN = re.compile(r"\bpublicly\b", re.IGNORECASE)
_PUBLIC_AFTER = re.compile(r"[\s,;.(]*(?:and\s+)?(?:as\s+)?(?:an?\s+)?public(?:ly)?\b", re.IGNORECASE)
"""Behind the repo: `push to ada/m, public`."""
_MAKE_PUBLIC = re.compile(r"\bmake\s+(?:it|them|the\s+\w+)\s+public\b", re.IGNORECASE)
_PRIVATE = re.compile(r"\bprivate(?:ly)?\b(?!\s+(?:data|rows|benchmark))", re.IGNORECASE)
_ANYWAY = re.compile(r"\b(?:publish|push)[ -]anyway\b|\bwhatever the (?:verdict|result)\b", re.IGNORECASE)


def read_export(text: str) -> tuple[Export | None, str]:
    """What is asked for, and the sentence without it; None where nothing is.

    A push that names no repo is left in the sentence: where to is for a person to say.
    """
    pushed = _wanted(_PUSH, text)
    rest = text if pushed is None else text.replace(pushed[0], " ", 1)
    gguf = _wanted(_GGUF, rest)
    if pushed is None and gguf is None:
        return None, text
    if gguf is not None:
        rest = rest.replace(gguf[0], " ", 1)
    export = Export(
        quantize=(_quantizations(text) or (DEFAULT_QUANTIZATION,)) if gguf is not None else (),
        push=None if pushed is None else pushed[1],
        public=pushed is not None and _public(text, pushed),
        anyway=_wanted(_ANYWAY, text) is not None,
    )
    return export, rest


def _quantizations(text: str) -> tuple[str, ...]:
    """Those that are named and wanted; `no F16 or Q8_0` denies both."""
    listed = _NAMED.sub(lambda found: f"it{' ' * (len(found[0]) - 2)}", text)  # a word that a denial reaches over
    wanted = {_letters(found[0]) for found in _NAMED.finditer(text) if not denied(listed, found.start())}
    return tuple(name for name in QUANTIZATIONS if _letters(name) in wanted)


def _letters(name: str) -> str:
    return re.sub(r"\W|_", "", name).lower()


def _public(text: str, pushed: re.Match[str]) -> bool:
    """Whether the push itself is to be seen by all; what is also called private is not."""
    if _PRIVATE.search(text):
        return False
    before = _PUBLIC_BEFORE.search(text[: _first_word(pushed)])
    return (
        (before is not None and not denied(text, before.start()))
        or _PUBLIC_WITHIN.search(pushed[0]) is not None
        or _PUBLIC_AFTER.match(text, pushed.end()) is not None
        or _wanted(_MAKE_PUBLIC, text) is not None
    )


def _wanted(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The first place that the sentence does not deny: `do not push`."""
    return next((found for found in pattern.finditer(text) if not denied(text, _first_word(found))), None)


def _first_word(found: re.Match[str]) -> int:
    return found.start() + len(found[0]) - len(found[0].lstrip(" ,.;\n"))


def asked_export(
    goal: str, said: Export | None, *, push: str | None, gguf: str | None, public: bool, anyway: bool
) -> Export | None:
    """What flags say over what the sentence says; None where neither wants anything.

    Raises:
        PlanRejected: no repo, or a push without saying where to.
        UsageError: an unknown quantization.
    """
    said = said or Export()
    try:
        found = Export(
            quantize=quantizations(gguf) if gguf is not None else said.quantize,
            push=push or said.push,
            public=public or said.public,
            anyway=anyway or said.anyway,
        )
    except ValidationError as error:
        raise PlanRejected(f"--push {push!r} is no repo: write it as user/name") from error
    if found.push is None and _wanted(_ONLY_HUB, read_export(goal)[1]):
        raise PlanRejected("the goal asks for a push and does not say where to: add `push to user/name`, or --push")
    return found if found.push or found.quantize else None


def quantizations(text: str) -> tuple[str, ...]:
    """The names in a list with commas, as llama.cpp spells them.

    Raises:
        UsageError: one that is not known.
    """
    known = {name.lower(): name for name in QUANTIZATIONS}
    asked = [part.strip() for part in text.split(",") if part.strip()]
    for name in asked:
        if name.lower() not in known:
            raise UsageError(f"unknown quantization {name!r}: there are {', '.join(QUANTIZATIONS)}")
    return tuple(known[name.lower()] for name in asked)
