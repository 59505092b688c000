"""Markdown that text from outside cannot break: prose, code spans, links, tables, units. Pure."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from urllib.parse import quote

TBD = "TBD"
"""A fact that is not known yet."""
NONE = "–"
"""A fact that does not exist."""

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
# Control characters and those that reorder or hide text (bidirectional marks, zero width, byte order mark).
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+")
_SPACES = re.compile(r" {2,}")
_ENTITIES = {"&": "&amp;", "<": "&lt;", "$": "&#36;"}
_SPECIAL = re.compile(r"[\\`*\[\]|~&<$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# What starts a heading, a quotation, a list or a rule at the beginning of a line.
_LEADING = re.compile(r"^(?:([#>=]|[+-](?=[\s-]|$))|(\d{1,9})([.)])(?=\s|$))")
# A comment in the source could pose as one of the report's own markers.
_NOT_PLAIN_CODE = re.compile(r"[`|]|<!--")
_PUNCTUATION = re.compile(r"[^\w\s]|_")
_LINKED_SCHEMES = ("https://", "http://", "file://")


def plain(text: str, *, limit: int | None = None) -> str:
    """One line without terminal colours and unseen characters, cut after `limit` characters."""
    line = _SPACES.sub(" ", _UNSEEN.sub(" ", _ANSI.sub("", text))).strip()
    return line if limit is None or len(line) <= limit else line[: limit - 1].rstrip() + "…"


def prose(text: str, *, limit: int = 400) -> str:
    """The text as one line of words, in a table cell, a list item or a paragraph; nothing in it is markup."""
    line = _SPECIAL.sub(lambda found: _ENTITIES.get(found[0], "\\" + found[0]), plain(text, limit=limit))
    return _LEADING.sub(lambda found: f"\\{found[1]}" if found[1] else f"{found[2]}\\{found[3]}", line)


def code(text: str, *, limit: int = 400) -> str:
    """The text as a code span that also fits into a table cell."""
    line = plain(text, limit=limit)
    if not line:
        return NONE
    if _NOT_PLAIN_CODE.search(line):
        # A backslash before a pipe is read differently by different renderers; entities are not.
        return f"<code>{_PUNCTUATION.sub(lambda found: f'&#{ord(found[0])};', line)}</code>"
    return f"`{line}`"


def link(label: str, url: str) -> str:
    """A link whose label is Markdown already; an address that is neither a web page nor a file is shown as code."""
    line = plain(url)
    if not line.startswith(_LINKED_SCHEMES):
        return code(line)
    return f"[{label}]({path(line)})"


def path(text: str) -> str:
    """A link's target with everything quoted that would end it."""
    return quote(text, safe="/:?#@!$&'*+,;=%~-._")


def fenced(text: str, *, language: str) -> list[str]:
    """A code block of a language with JSON's string escapes, whose fence is longer than any in the text."""
    text = text.replace("<!--", r"\u003c!--")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return [f"{fence}{language}", *text.split("\n"), fence]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table; cells are Markdown already."""
    return [_row(header), _row(["---"] * len(header)), *(_row(row) for row in rows)]


def anchor(heading: str) -> str:
    """The fragment that GitHub gives a heading of plain text."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def utc(at: datetime | None) -> str:
    """Date and time to the second; TBD for None."""
    return TBD if at is None else at.strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(seconds: float) -> str:
    """Rounded to what a reader needs: `8.4 s`, `51 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def dollars(micro_usd: int | None) -> str:
    """Cents where they suffice, more digits below one cent; None is unknown."""
    if micro_usd is None:
        return "unknown"
    digits = 4 if 0 < micro_usd < 10_000 else 2
    return f"${micro_usd / 1e6:.{digits}f}"


def value(thing: object) -> str:
    """A configuration value or a measured number, up to six digits."""
    if thing is None:
        return "none"
    if isinstance(thing, bool):
        return "yes" if thing else "no"
    if isinstance(thing, float):
        return f"{thing:.6g}"
    return prose(str(thing))


def times(count: int) -> str:
    """`once`, `2 times`."""
    return "once" if count == 1 else f"{count} times"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
