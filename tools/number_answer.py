r"""The number that an answer ends with, as people and models write it: `\boxed{42}`, `#### 42`, or the last one."""

import re
from collections.abc import Iterator
from decimal import Decimal

from hfagent.tools.answer_text import answered, last_box

TOLERANCE = Decimal("1e-9")
"""Relative difference of two numbers, not both whole, that is rounding: 1/3 and 0.333333333333."""

_DECIMAL = r"[0-9]+(?:\.[0-9]+)?"
_GROUPED = r"[0-9]{1,3}(?:(?:,|\{,\}|\\,)[0-9]{3})+(?![0-9])(?:\.[0-9]+)?"
_POWER_OF_TEN = r"[eE][+-]?[0-9]{1,3}(?![0-9])|\s*(?:\\times|×|\*)\s*10\^\{?-?[0-9]{1,3}\}?"
_NUMBER = re.compile(
    # A minus after a word, a number or a bracket takes away. Digits inside a word or after a point are none.
    r"(?P<minus>(?<![\w)\]}.])[-−](?:\\?[$€£])?|\\?[$€£][-−])?(?<![\w.])"
    rf"(?:(?:(?P<whole>[0-9]+)\s*)?\\[dt]?frac\s*"
    rf"(?:\{{\s*(?P<top>{_DECIMAL})\s*\}}\s*\{{\s*(?P<bottom>{_DECIMAL})\s*\}}|(?P<top1>[0-9])\s*(?P<bottom1>[0-9]))"
    r"|(?:(?P<whole2>[0-9]+)\s+)?(?P<top2>[0-9]+)\s*/\s*(?P<bottom2>[0-9]+)(?![0-9./])"
    rf"|(?P<plain>(?:{_GROUPED}|{_DECIMAL}|\.[0-9]+)(?:{_POWER_OF_TEN})?))"
)
_MARKED = re.compile(r"####[ \t]*(?=[-−$€£.\\0-9])(?![0-9]+(?:[.:)][ \t]|\)))([^\n]*)(\n)?")
_NO_PLAIN_NUMBER = re.compile(r"\\sqrt|\\pi|√|π|\^(?!\s*\{?\s*\\circ)")


def final_number(text: str) -> Decimal | None:
    r"""The answer's number; None where it gives none, or more than one as its final answer.

    The last `\boxed{...}` counts, else the last line `#### ...` as in GSM8K, else the last number of what was
    `answered`. Units, signs of money, separators of thousands and text around the number are left out; a percentage is
    its number.
    """
    text = answered(text)
    if (box := last_box(text)) is not None:
        return _only_number(box.rpartition("=")[2])
    if marked := _MARKED.findall(text):
        return next(_numbers(marked[-1][0]), None)
    return next(reversed(list(_numbers(text))), None)


def as_number(text: str) -> Decimal | None:
    """The number that a text is, all of it: with a sign of money or percent at most."""
    match = _NUMBER.fullmatch(text.strip().strip("$€£% "))
    return _value(match) if match else None


def numbers_equal(a: Decimal, b: Decimal) -> bool:
    """Whether two numbers are the same, up to rounding where one of them is not whole."""
    if a == b or (a == a.to_integral_value() and b == b.to_integral_value()):
        return a == b
    return abs(a - b) <= TOLERANCE * max(abs(a), abs(b))


def has_final_number(text: str) -> bool:
    """Whether an answer that is still being written has given its number: in a closed box or on a finished line."""
    text = answered(text)
    return last_box(text) is not None or any(marked[2] for marked in _MARKED.finditer(text))


def _only_number(text: str) -> Decimal | None:
    matches = list(_NUMBER.finditer(text))
    if len(matches) != 1 or _NO_PLAIN_NUMBER.search(_NUMBER.sub("", text)):
        return None
    return _value(matches[0])


def _numbers(text: str) -> Iterator[Decimal]:
    for match in _NUMBER.finditer(text):
        if (value := _value(match)) is not None:
            yield value


def _value(match: re.Match[str]) -> Decimal | None:
    """None for a division by zero."""
    value = _plain(match["plain"]) if match["plain"] else _fraction(match)
    return -value if value is not None and match["minus"] else value


def _fraction(match: re.Match[str]) -> Decimal | None:
    top, bottom = (Decimal(match[name] or match[f"{name}1"] or match[f"{name}2"]) for name in ("top", "bottom"))
    return Decimal(match["whole"] or match["whole2"] or 0) + top / bottom if bottom else None


def _plain(text: str) -> Decimal:
    digits = re.sub(r"\{,\}|\\,|,|\s", "", text)
    return Decimal(re.sub(r"(?:\\times|×|\*)10\^\{?(-?[0-9]+)\}?", r"e\1", digits))
