"""What a training row says: its texts, the code in them, and the units by which texts are compared."""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from hfagent.agent.errors import DatasetError

NEAR = 3
"""A head and its body have at most two other texts between them."""
MAX_CALL_CHARS = 300
_FENCE = re.compile(r"(?:```|~~~)[^\n`]*\n(.*?)(?:```|~~~|\Z)", re.DOTALL)
_DEF = re.compile(r"\bdef\s+\w+\s*\(")
_WORD = re.compile(r"\w+")


def texts(row: Any, *, where: str) -> list[str]:
    """All texts of a row in order, from columns, chats and nested values; JSON in a text is opened.

    Raises:
        DatasetError: not a row, or no text in it although there is something: it cannot be vouched for.
    """
    if not isinstance(row, Mapping) or not row:
        raise DatasetError(f"{where} is {type(row).__name__} without columns: it cannot be checked; remove it")
    found: list[str] = []
    try:
        something = _collect(row, found)
    except RecursionError as error:
        raise DatasetError(f"{where} is nested too deeply to be checked; flatten it") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{where} holds bytes that are not UTF-8 text: it cannot be checked; remove them") from error
    if something and not found:
        raise DatasetError(
            f"{where} holds values but no text: it cannot be checked; give the texts and not their tokens"
        )
    return found


def _collect(value: Any, found: list[str]) -> bool:
    """Append the texts; whether there was anything at all."""
    match value:
        case bytes():
            return _collect(value.decode(), found)
        case str():
            return _collect_text(value, found)
        case Mapping():
            return sum(_collect(part, found) for part in value.values()) > 0
        case Sequence():
            return sum(_collect(part, found) for part in value) > 0
    return value is not None


def _collect_text(text: str, found: list[str]) -> bool:
    if not text.strip():
        return False
    if text.lstrip()[0] in "[{":
        before = len(found)
        with suppress(ValueError):
            _collect(json.loads(text), found)
        if len(found) > before:
            return True
    if "\n" not in text and r"\n" in text:  # a text whose line breaks were escaped once too often
        text = text.replace(r"\n", "\n").replace(r"\t", "\t").replace(r"\"", '"')
    found.append(text)
    return True


def code_pieces(found: Sequence[str]) -> list[str]:
    """The code in a row's texts: fenced blocks, what is around them, and heads joined with their bodies.

    A completion may be the indented body alone, while the head stands in the prompt.
    """
    pieces = [piece for text in found for piece in (*_FENCE.findall(text), _FENCE.sub("\n", text))]
    heads = [place for place, piece in enumerate(pieces) if _DEF.search(piece)]
    bodies = [place for place, piece in enumerate(pieces) if re.match(r"\s*\n?[ \t]+\S", piece)]
    return [pieces[head] for head in heads] + [
        f"{pieces[head].rstrip()}\n{pieces[body].lstrip(chr(10))}"
        for head in heads
        for body in bodies
        if 0 < abs(head - body) <= NEAR
    ]


def words(text: str) -> list[str]:
    """The words and numbers of a text in lower case; identifiers are one word, punctuation is left out."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def grams(units: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of `n` units, in order."""
    return [tuple(units[start : start + n]) for start in range(len(units) - n + 1)]


def snippet(text: str, limit: int) -> str:
    """The beginning of a text on one line."""
    return " ".join(text[: 4 * limit].split())[:limit]


def calls(text: str, name: str) -> frozenset[str]:
    """The arguments of all calls of a function in a text, without spaces; trivial ones of one character left out."""
    found = set()
    for match in re.finditer(rf"(?<![\w.]){re.escape(name)}\(", text):
        depth = 1
        for place in range(match.end(), min(match.end() + MAX_CALL_CHARS, len(text))):
            depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(text[place], 0)
            if depth == 0:
                found.add("".join(text[match.end() : place].split()).replace("'", '"'))
                break
    return frozenset(arguments for arguments in found if len(arguments) > 1)
