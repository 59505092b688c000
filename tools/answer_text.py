r"""The part of an answer that counts: after the reasoning, in the last `\boxed{...}`, on the last line."""

import re
import unicodedata

QUESTION_STOPS = ("\nQuestion:", "\nProblem:")
"""Where a model without a chat template goes on with a question of its own: its answer ends before it."""

_BRACE = re.compile(r"(\\(?:boxed|fbox)\s*)?\{|\}")
_ANSWER = re.compile(r"(?:####|\banswer(?:\s+is)?\s*:|\banswer\s+is\b)[ \t]*(\S[^\n]*)", re.IGNORECASE)
_AROUND = re.compile(r"^[\W_]+|[\W_]+$")
_QUOTES = " \t\r\n\"'`“”‘’"


def after_reasoning(text: str) -> str:
    """An answer without what stands between `<think>` and `</think>`; empty where the reasoning did not end."""
    text = text.rpartition("</think>")[2]
    return "" if "<think>" in text else text


def answered(text: str) -> str:
    """The answer to the question asked: after the reasoning, and before a question of the model's own."""
    text = after_reasoning(text)
    ends = [place for stop in QUESTION_STOPS if (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def last_box(text: str) -> str | None:
    r"""What stands in the last `\boxed{...}` that is closed."""
    opened: list[re.Match[str]] = []
    found = (-1, -1)
    for brace in _BRACE.finditer(text):
        if brace[0] != "}":
            opened.append(brace)
        elif opened and (begin := opened.pop())[1]:
            found = max(found, (begin.end(), brace.start()))
    return text[slice(*found)] if found[0] >= 0 else None


def without_macros(text: str) -> str:
    r"""LaTeX without `\text{...}` around its words."""
    return re.sub(r"\\(?:text|mbox|mathrm|textbf)\{([^{}]*)\}", r"\1", text)


def final_text(text: str) -> str:
    r"""The last `\boxed{...}`, else what follows the last `####` or "answer is", else the last line."""
    text = answered(text)
    if (box := last_box(text)) is not None:
        return without_macros(box)
    if marked := _ANSWER.findall(text):
        return str(marked[-1])
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def plain(text: str) -> str:
    """A text without case, and without spaces, quotes and punctuation around it, to be compared.

    One of symbols alone, such as `+`, keeps all but spaces and quotes.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join((_AROUND.sub("", text) or text.strip(_QUOTES)).split())
