"""Whether an answer follows IFEval's instructions, by the checks that lighteval carries."""

import contextlib
import importlib.util
import io
from collections.abc import Iterable
from functools import cache
from typing import Any

from hfagent.agent.errors import PackageMissing
from hfagent.tools.answer_text import after_reasoning
from hfagent.tools.problem import Instruction, InstructionsCheck

NEED_SENTENCES = ("length_constraints:number_sentences", "change_case:capital_word_frequency")
"""Instructions whose checks cut a text into sentences or words by nltk's data."""


def require(checks: Iterable[InstructionsCheck]) -> None:
    """Refuse before anything is generated what could not be judged.

    Raises:
        PackageMissing: a package, or the data of one, is not installed.
    """
    if missing := [name for name in ("lighteval", "langdetect", "nltk") if importlib.util.find_spec(name) is None]:
        raise PackageMissing(f"instructions are judged by {' and '.join(missing)}: pip install {' '.join(missing)}")
    _checkers()
    import nltk

    if any(instruction.id in NEED_SENTENCES for check in checks for instruction in check.instructions):
        try:
            nltk.data.find("tokenizers/punkt_tab")
        except LookupError as error:
            raise PackageMissing(
                "some instructions count sentences, for which nltk has a data file that is not here and could not be "
                "fetched: python -m nltk.downloader punkt_tab"
            ) from error


def broken(check: InstructionsCheck, answer: str) -> list[str]:
    """The ids of the instructions that are not followed, strictly; all of them where there is no answer."""
    text = after_reasoning(answer)
    return [one.id for one in check.instructions if not (text.strip() and _follows(one, check.prompt, text))]


def _follows(instruction: Instruction, prompt: str, text: str) -> bool:
    checker = _checkers()[instruction.id](instruction.id)
    checker.build_description(**{name: value for name, value in instruction.arguments.items() if value})
    if "prompt" in (checker.get_instruction_args() or {}):
        checker.build_description(prompt=prompt)
    return bool(checker.check_following(text))


@cache
def _checkers() -> dict[str, Any]:
    """Instruction id -> lighteval's class. Importing them asks nltk for its data, which says so at length."""
    with contextlib.redirect_stderr(io.StringIO()):
        import langdetect
        from lighteval.tasks.tasks.ifeval.instructions_registry import INSTRUCTION_DICT

    langdetect.DetectorFactory.seed = 0  # it draws otherwise, and a score would not repeat
    return dict(INSTRUCTION_DICT)
