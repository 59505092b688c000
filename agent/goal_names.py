"""The ids, paths and names that stand in a goal, and what each of them is. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hfagent.agent.goal_words import DATASET_NAMES, FAMILIES, PLAIN_PAIRS

Role = Literal["model", "teacher", "dataset", "benchmark", "place"]
"""A place is where something is written or pushed to: neither model nor data."""


@dataclass(frozen=True)
class Name:
    """A name in a text, spelled out in full."""

    name: str
    role: Role
    start: int
    end: int


_QUOTE = r"[\"'`*)\]]*"
_SUFFIX = r"jsonl|json|parquet|csv"
_SIZE = r"\d+(?:\.\d+)?[BM]"
_FAMILY = "|".join(family.prefix for family in FAMILIES)
_TOKEN = re.compile(
    rf"""
      https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<kind>datasets/|spaces/)?(?P<linked>[\w.-]+/[\w.-]*\w)[^\s"'`)\]>]*
    | (?P<link>https?://\S+)
    | (?P<embedded>embedded:[\w.-]*\w)
    | (?P<path>(?<![\w./])(?:\.\.?|~)?/[^\s,;"'`)]*[^\s,;"'`).] | [\w./-]+\.(?:{_SUFFIX})\b)
    | (?P<id>\b[A-Za-z0-9][\w.-]*/[\w.-]*\w)
    | (?P<bare>\b(?:{_FAMILY})(?!\.cpp)[\w.-]*\b)
    | (?P<before>\b[\w.-]*\w)(?={_QUOTE}\sdataset\b)
    | (?<=dataset\s)["'`*(\[]*(?P<after>[\w.-]*\w)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_JUDGED_BY = re.compile(
    r"(?:benchmarks?|evaluat\w+|measur\w+|judg\w+|scor\w+|test(?:ed|ing|s)?)"
    r"(?:\s+(?:it|them|the|model|models|results?|on|with|by|against|using|file|is|in))*:?\s+[\"'`*]*$",
    re.IGNORECASE,
)
"""What stands before a file of problems that a model is judged by."""
_AS_BENCHMARK = re.compile(rf"{_QUOTE}\s+(?:as\s+)?(?:(?:the|a|my|our)\s+)?benchmark", re.IGNORECASE)
_OTHER_FILES = re.compile(r"\.(?:md|txt|py|html|png|log|toml|ya?ml)$", re.IGNORECASE)

_DISTILLED = r"\bdistil(?:l(?:s|ing|ation)?|ation)?\b"
_FROM_TEACHER = re.compile(
    rf"(?:{_DISTILLED}(?:\s+(?:it|them|knowledge|from|with|using|by|the|model|teacher|is))*:?|\bteacher:?(?:\s+is)?)"
    r"\s+[\"'`*]*$",
    re.IGNORECASE,
)
"""What stands before the model that is learnt from."""
_AS_TEACHER = re.compile(rf"{_QUOTE}\s+(?:(?:as|is)\s+(?:(?:the|a|its)\s+)?)?teacher\b", re.IGNORECASE)
_INTO = re.compile(r"\binto\s+(?:the\s+)?(?:student\s+|model\s+)*[\"'`*]*$", re.IGNORECASE)

_NOUNS: dict[Role, str] = {
    "dataset": r"datasets?|data|corpus",
    "model": r"models?|checkpoint|base|students?",
    "benchmark": r"benchmarks?",
}
_OTHER_CUES: dict[Role, str] = {
    "dataset": r"on|from|over",
    "model": r"fine-?tun(?:e|es|ing)|tun(?:e|ing)|train(?:ing)?|sft|dpo|grpo|kto|improv(?:e|ing)|evaluate|of",
    "place": r"in|into|to|under|at",
}


def names(text: str) -> Iterator[Name]:
    """All names in order of appearance."""
    for match in _TOKEN.finditer(text):
        if known := _read(match):
            name, role = known
            if role in (None, "model"):
                role = _in_distillation(text, match.start(), match.end()) or role
            yield Name(name, role or _role(text, match.start(), match.end(), name), match.start(), match.end())


def half_model(text: str) -> str | None:
    """A model family without a size, which leaves open what model is meant."""
    bare = (match["bare"] for match in _TOKEN.finditer(text))
    return next((token for token in bare if token and not _has_size(token)), None)


def _read(match: re.Match[str]) -> tuple[str, Role | None] | None:
    """What a token names, and its role where the token itself tells; None where it names nothing."""
    token = match[0]
    if match["linked"]:
        roles: dict[str | None, Role] = {"datasets/": "dataset", "spaces/": "place"}
        return match["linked"], roles.get(match["kind"], "model")
    if match["bare"]:
        return (_full_id(token), "model") if _has_size(token) else None
    if last := match["before"] or match["after"]:
        if known := DATASET_NAMES.get(last.lower()):
            return known, "dataset"
        return (last, "dataset") if re.search(r"[\d_]", last) else None
    if match["link"] or _OTHER_FILES.search(token) or {part.lower() for part in token.split("/")} <= PLAIN_PAIRS:
        return None
    if not re.search(rf"\.(?:{_SUFFIX})$", token, re.IGNORECASE):
        return token, None
    judged = _JUDGED_BY.search(match.string[: match.start()]) or _AS_BENCHMARK.match(match.string[match.end() :])
    return token, "benchmark" if judged else "dataset"


def _in_distillation(text: str, start: int, end: int) -> Role | None:
    """Teacher or student, where the words around a name say so: "distill X into Y", "distillation from X"."""
    before = re.split(r"[\n;]|\.\s", text[:start])[-1]
    if _FROM_TEACHER.search(before) or _AS_TEACHER.match(text[end:]):
        return "teacher"
    if not re.search(_DISTILLED, before, re.IGNORECASE):
        return None
    if re.match(rf"{_QUOTE}\s+into\b", text[end:], re.IGNORECASE):
        return "teacher"
    return "model" if _INTO.search(before) else None


def _role(text: str, start: int, end: int, name: str) -> Role:
    """By the noun behind it, then the nearest cue among the three words before it; else it is a dataset.

    A preposition or verb gives way to the shape of a known model's name: "SFT on Qwen/Qwen3-0.6B".
    """
    follows = re.match(rf"{_QUOTE}\s+(\w+)", text[end:])
    if follows and (noun := _cue(follows[1], _NOUNS)):
        return noun
    clause = re.split(r"[\n;]|\.\s", text[:start])[-1]
    for word in reversed(re.findall(r"[\w-]+", clause)[-3:]):
        if noun := _cue(word, _NOUNS):
            return noun
        if cue := _cue(word, _OTHER_CUES):
            return "model" if _looks_like_model(name) else cue
    return "model" if _looks_like_model(name) else "dataset"


def _cue(word: str, cues: dict[Role, str]) -> Role | None:
    return next((role for role, pattern in cues.items() if re.fullmatch(pattern, word, re.IGNORECASE)), None)


def _looks_like_model(name: str) -> bool:
    last = re.split("[:/]", name)[-1]
    return re.match(_FAMILY, last, re.IGNORECASE) is not None and _has_size(last)


def _has_size(name: str) -> bool:
    return any(re.fullmatch(_SIZE, part, re.IGNORECASE) for part in name.split("-"))


def _full_id(bare: str) -> str:
    """The Hub's spelling, e.g. `Qwen/Qwen3-0.6B-Base` for `qwen3-0.6b-base`; what has capitals keeps them."""
    family = max((f for f in FAMILIES if bare.lower().startswith(f.prefix.lower())), key=lambda f: len(f.prefix))
    first, *parts = (family.prefix + bare[len(family.prefix) :]).split("-")
    for i, part in enumerate(parts):
        if re.fullmatch(_SIZE, part, re.IGNORECASE):
            parts[i] = part[:-1] + (family.unit if part[-1] in "Bb" else part[-1])
            parts[i] = parts[i].upper() if family.unit == "B" else parts[i]
        elif part.isalpha() and part.islower() and family.unit == "B":
            parts[i] = part.capitalize()
    return f"{family.org}/{'-'.join([first, *parts])}"
