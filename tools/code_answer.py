"""The program that shows whether an answer to a code problem is right."""

import re

from hfagent.tools.problem import CodeCheck

CONTINUATION_STOPS = ("\ndef ", "\nclass ", "\nif ", "\nprint(", "\nassert ", "\nfor ", "\n#", "\n@", "\n```")
"""For an engine that knows only fixed strings: where a function body has certainly ended."""


def program(check: CodeCheck, answer: str) -> str:
    """The program to run for an answer: it ends normally if and only if the answer is right.

    The answer may be prose with a fenced block, a whole function, or the continuation of the prefix.
    """
    code = extract_code(answer, check.entry_point)
    if re.search(rf"^def {check.entry_point}\b", code, re.MULTILINE):
        # What stands above the function: imports and helpers that the answer may rely on.
        above = check.prefix.rpartition(f"def {check.entry_point}")[0]
        code = above + code
    else:
        code = f"{check.prefix}\n" + cut_continuation(code).lstrip("\n")
    return f"{code}\n\n{check.tests}"


def is_complete(answer: str, *, chat: bool) -> bool:
    """Whether generation may stop: a chat answer has closed its first block of code, a continuation has left the body.

    Blocks inside a model's reasoning do not count.
    """
    if not chat:
        return cut_continuation(answer) != answer
    if "<think>" in answer:
        answer = answer.partition("</think>")[2]
    return re.search(r"```[^\n`]*\n.*?```", answer, re.DOTALL) is not None


def extract_code(answer: str, entry_point: str) -> str:
    """The fenced block that defines the function, else the first block, else the answer as it is.

    A block that was not closed goes to the end: generation may have been cut there.
    """
    blocks = re.findall(r"```[^\n`]*\n(.*?)(?:```|\Z)", answer, re.DOTALL)
    defining = [block for block in blocks if re.search(rf"^def {entry_point}\b", block, re.MULTILINE)]
    return str((defining or blocks or [answer])[0])


def cut_continuation(text: str) -> str:
    """A function body up to the first line that begins something else at the margin."""
    end = re.search(r"\n(?=[^\s)\]}])", text)
    return text[: end.start()] if end else text
