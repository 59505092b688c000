"""The numbers of a goal: rows, epochs, hyperparameters, and limits of time, money and trials. Pure, by pattern."""

import re
from collections.abc import Iterable
from typing import TypeVar

from hfagent.agent.errors import UsageError
from hfagent.agent.records import Record

MAX_LENGTH = 131_072
"""Tokens of a row, at most: no small model reads more, and a larger number is a slip."""

T = TypeVar("T", bound=str | float)

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_FACTORS = {"": 1.0, "k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6}
_LARGE = rf"(?<![\w.,])({_NUMBER})\s?(k|m|thousand|million)?"
_IS = r"(?: of| to| is)?\s*[:=]?\s*"
_ROWS = (
    rf"{_LARGE}[ -](?:\w+\s)?(?:examples?|rows?|samples?|pairs|conversations|records)\b(?! (?:per|for each|a) )",
    rf"\b(?:on|only|first)\s+(?:the\s+|only\s+|first\s+|just\s+|about\s+)*({_NUMBER})\s?(k|m|thousand|million)"
    r"(?=\s*(?:[.,;)]|$)|\s+(?:to|and|for|with|of|from)\b)",
)
_MONEY = (
    rf"\$\s?({_NUMBER})(k?)(?![\d,]*\d)",
    rf"(?<![\w.,$])({_NUMBER})(k?)\s?(?:\$|(?:us )?dollars?\b|usd\b|bucks\b)",
    rf"\busd\s?({_NUMBER})(k?)\b",
    rf"\bbudget{_IS}({_NUMBER})(k?)(?=\s*(?:[.,;)]\s|[.,;)]?$)|\s+(?:and|or|to|for)\b)",
)
_OTHER_MONEY = r"[€£]\s?\d+|\d+\s?(?:[€£]|(?:euros?|eur|pounds?|gbp|cents?)\b)"
_PER_HOUR = rf"(?:\$\s?{_NUMBER}|{_NUMBER}\s?(?:\$|dollars?|usd))\s?(?:/|per |an? )\s?h(?:our|r)?\b"
_WORDS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "eight": 8, "ten": 10, "twelve": 12}
_HOURS = {"h": 1.0, "m": 1 / 60, "d": 24.0}
_TIME = re.compile(
    rf"(?<![\w.,$])(?P<n>{_NUMBER}|half an|an?|{'|'.join(_WORDS)})[- ]?"
    r"(?P<unit>hours?|hrs?|h|minutes?|mins?|days?)(?![a-z])"
    r"(?:[\s,]*(?:and\s+)?(?P<more>\d+)\s?(?:minutes?|mins?|m)(?![a-z]))?"
    r"(?!\s+ago|\s+old|\s+of (?:data|audio|video|speech|logs|chats?)\b)",
    re.IGNORECASE,
)
_LIMIT_WORD = r"(?:in|within|for|under|most|than|max|maximum|maximum of|limit|limit of|limit:|about)\s+"
_NO_LIMIT = r"\b(?:every|each|per|last|past|previous)\s+"
_LEAST = r"(?:\bat least|(?<!no )(?<!not )\b(?:more|longer) than|\bminimum(?: of)?)\s+"
_VAGUE_TIME = (
    r"\b(?:a few|several|some|a couple of|many) (?:hours|minutes|days)\b|\bweekend\b|"
    r"\b(?:until|till?|by|before) (?:\d{1,2}:\d\d|\d{1,2}\s?(?:am|pm|o'?clock)|noon|midnight)\b"
)
_OVERNIGHT = r"\bover[- ]?night\b|\btonight\b|\b(?:by|until|till?|in) (?:the |tomorrow )?morning\b"


class GoalNumbers(Record):
    """Numbers that a sentence says; None where it is silent."""

    max_rows: int | None = None
    num_train_epochs: float | None = None
    max_steps: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    """Rows of an optimizer step."""
    max_length: int | None = None
    """Tokens of a row."""
    lora_r: int | None = None
    seed: int | None = None
    max_trials: int | None = None
    max_jobs: int | None = None
    """Jobs at a time."""
    target_points: float | None = None
    """Gain in points at which the search may end."""
    max_hours: float | None = None
    max_gpu_hours: float | None = None
    overnight: bool = False
    """A night is asked for, without a number of hours."""
    budget_usd: float | None = None


def read_numbers(text: str) -> GoalNumbers:
    """Read the sentence without the names of models and datasets.

    Raises:
        UsageError: two numbers for one thing, one out of range, or a limit that cannot be kept.
    """
    hours = _hours(text)
    return GoalNumbers(
        max_rows=_rows(text),
        num_train_epochs=_epochs(text),
        max_steps=_whole(
            "number of steps",
            rf"(?:\b(?:for|most|max|maximum)\s+({_NUMBER})[ -]steps?\b|"
            rf"({_NUMBER})[ -](?:training|optimi[sz]er)[ -]steps?\b|\bmax[_ ]steps{_IS}(\d+))",
            text,
        ),
        learning_rate=_positive(
            "learning rate", _floats(rf"\b(?:learning[- _]rate|lr){_IS}({_NUMBER}(?:e-?\d+)?)", text)
        ),
        batch_size=_whole("batch size", rf"\bbatch(?:[- _]size|es)?{_IS}({_NUMBER})", text),
        max_length=_max_length(text),
        lora_r=_whole("LoRA rank", rf"(?:\blora[-_ ]?r(?:ank)?|\brank){_IS}(\d+)|\br\s?=\s?(\d+)", text),
        seed=_seed(text),
        max_trials=_whole(
            "number of trials",
            rf"({_NUMBER})\s(?:trials?|(?:different )?(?:configurations|sets of hyper-?parameters))\b",
            text,
        ),
        max_jobs=_whole(
            "number of jobs at a time",
            rf"({_NUMBER})\s(?:jobs?|runs?|trainings?)\s(?:at (?:a time|once)|in parallel|side by side)\b",
            text,
        ),
        target_points=_target(text),
        max_hours=hours,
        max_gpu_hours=_positive("limit in GPU hours", _floats(rf"({_NUMBER})[- ]?gpu[- ]?h(?:ou)?rs?\b", text)),
        overnight=hours is None and re.search(_OVERNIGHT, text, re.IGNORECASE) is not None,
        budget_usd=_budget(text),
    )


def _rows(text: str) -> int | None:
    text = re.sub(r"\b(?:an?|one)(?= (?:hundred|thousand|million)\b)", "1", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(\d+) hundred\b", r"\g<1>00", text, flags=re.IGNORECASE).replace("_", ",")
    found = [match for pattern in _ROWS for match in re.findall(pattern, text, re.IGNORECASE)]
    rows = _positive("number of rows", [_value(number) * _FACTORS[factor.lower()] for number, factor in found])
    return None if rows is None else max(1, round(rows))


def _epochs(text: str) -> float | None:
    text = re.sub(r"\b(?:one|an|a single)(?=[- ]epoch)", "1", text, flags=re.IGNORECASE)
    pattern = rf"({_NUMBER})[- ](?:training )?epochs?\b|\b(?:num[_ ](?:train[_ ])?)?epochs\s?[:=]\s?({_NUMBER})"
    return _positive("number of epochs", _floats(pattern, text))


def _max_length(text: str) -> int | None:
    pattern = rf"\b(?:max(?:imum)?[- _](?:sequence[- _])?length|sequence[- _]length|context length){_IS}(\d[\d,]*k?)"
    found = [_value(n.rstrip("kK,")) * (1024 if n[-1] in "kK" else 1) for n in re.findall(pattern, text, re.IGNORECASE)]
    length = _positive("maximum length", found)
    if length is not None and not 8 <= length <= MAX_LENGTH:
        raise UsageError(f"a maximum length of {length:.0f} tokens cannot be: it must be from 8 to {MAX_LENGTH}")
    return None if length is None else int(length)


def _seed(text: str) -> int | None:
    seed = one("seed", _floats(rf"\bseed{_IS}(\d+)\b", text))
    return None if seed is None else int(seed)


def _target(text: str) -> float | None:
    pattern = (
        rf"\b(?:by|gain of|improvement of)\s+(?:at least |about )?({_NUMBER})\s?"
        r"(?:(?:percentage )?points?\b|pp\b|%|percent\b)"
    )
    points = _positive("target", _floats(pattern, text))
    if points is not None and points > 100:
        raise UsageError(f"a gain of {points:g} points cannot be reached: it must be at most 100")
    return points


def _hours(text: str) -> float | None:
    if match := re.search(_VAGUE_TIME, text, re.IGNORECASE):
        raise UsageError(f"{match[0]!r} is not a time that can be kept: give hours, e.g. 'at most 8 hours'")
    found = []
    for match in _TIME.finditer(text):
        before = text[: match.start()]
        word = match["n"].lower()
        if _ends(_NO_LIMIT, before) or (word in ("a", "an") and not _ends(_LIMIT_WORD, before)):
            continue
        if _ends(_LEAST, before):
            raise UsageError(f"'at least {match[0]}' cannot be kept: only a limit can, e.g. 'at most {match[0]}'")
        count = {"a": 1.0, "an": 1.0, "half an": 0.5}.get(word) or _WORDS.get(word) or _value(word)
        found.append(round(count * _HOURS[match["unit"][0].lower()] + int(match["more"] or 0) / 60, 4))
    return _positive("time limit in hours", found)


def _budget(text: str) -> float | None:
    if match := re.search(_PER_HOUR, text, re.IGNORECASE):
        raise UsageError(f"{match[0]!r} is a price, not a limit: give the most that all may cost, e.g. 'at most $10'")
    if match := re.search(_OTHER_MONEY, text, re.IGNORECASE):
        raise UsageError(f"the budget is counted in dollars, not {match[0]!r}: write e.g. 'at most $10'")
    found = [match for pattern in _MONEY for match in re.findall(pattern, text, re.IGNORECASE)]
    return one("budget in dollars", [_value(number) * _FACTORS[factor.lower()] for number, factor in found])


def _ends(pattern: str, text: str) -> bool:
    return re.search(rf"{pattern}$", text, re.IGNORECASE) is not None


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _floats(pattern: str, text: str) -> list[float]:
    """The first filled group of each match."""
    return [
        _value(next(group for group in match.groups() if group is not None))
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]


def _whole(what: str, pattern: str, text: str) -> int | None:
    value = _positive(what, _floats(pattern, text))
    if value is not None and value != int(value):
        raise UsageError(f"a {what} of {value:g} cannot be: it must be a whole number")
    return None if value is None else int(value)


def _positive(what: str, values: Iterable[float]) -> float | None:
    value = one(what, values)
    if value is not None and value <= 0:
        raise UsageError(f"a {what} of {value:g} trains nothing: it must be above 0")
    return value


def one(what: str, values: Iterable[T]) -> T | None:
    """The only value; None without any.

    Raises:
        UsageError: there are several.
    """
    distinct = list(dict.fromkeys(values))
    if len(distinct) > 1:
        listed = ", ".join(v if isinstance(v, str) else f"{v:g}" for v in distinct)
        raise UsageError(f"the goal names more than one {what}: {listed}; keep one of them")
    return distinct[0] if distinct else None
