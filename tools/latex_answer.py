"""Whether two LaTeX expressions mean the same, by lighteval's comparison in a process of its own.

An expression that a model wrote may keep sympy busy for ever or fill the memory, so the process is ended where it
takes too long, and its memory is limited. Doubt counts as unequal.
"""

import json
import re
import select
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress

from hfagent.agent.errors import EvaluationError, PackageMissing
from hfagent.tools.answer_text import without_macros

START_S = 120.0
"""lighteval takes 6 s to be imported, on a busy machine longer."""
COMPARE_S = 10.0
MEMORY_BYTES = 4 << 30
READY = "ready"
_DRESS = re.compile(
    r"\\(?:left|right|!|,|;|:|quad|displaystyle)(?![a-zA-Z])|\\?[$%]|\^\s*(?:\\circ|\{\s*\\circ\s*\})|\s|\.$"
)


def same_text(one: str, other: str) -> bool:
    """Whether two expressions differ by nothing but how they are dressed: spaces, sizes of brackets, signs of units."""
    return _undressed(one) == _undressed(other) != ""


def _undressed(text: str) -> str:
    return without_macros(_DRESS.sub("", re.sub(r"\\[dt]frac", r"\\frac", text)))


class LatexComparer:
    """Starts the process with the first comparison; it ends with this one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def equal(self, expected: str, found: str) -> bool | None:
        """Whether they are equal; None where that took too long, or the process died of it twice.

        Raises:
            PackageMissing: lighteval or its parser is not installed.
            EvaluationError: the process cannot be started.
        """
        with self._lock:
            for _ in range(2):  # somebody may have killed it, which says nothing of the expressions
                begun = time.monotonic()
                answer = self._asked(json.dumps([expected, found]))
                if answer is not None or time.monotonic() - begun >= COMPARE_S:
                    break
            return None if answer is None else answer == "true"

    def _asked(self, line: str) -> str | None:
        if self._process is None or self._process.poll() is not None:
            self._process = self._started()
        answer = _ask(self._process, line, COMPARE_S)
        if answer is None:
            self._process.kill()
            self._process.communicate()
        return answer

    def _started(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "hfagent.tools.latex_answer"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        said = _ask(process, None, START_S)
        if said == READY:
            weakref.finalize(self, process.kill)
            return process
        process.kill()
        process.communicate()
        if said is not None:
            raise PackageMissing(f"comparing LaTeX expressions needs lighteval 0.13 and its parser: {said}")
        raise EvaluationError(f"the comparison of LaTeX expressions did not start within {START_S:g} s: try again")


def _ask(process: subprocess.Popen[str], line: str | None, timeout_s: float) -> str | None:
    """The process's next line, after it is given one; None where it is silent or gone."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        if line is not None:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
        if select.select([process.stdout], [], [], timeout_s)[0]:
            return process.stdout.readline().strip() or None
    return None


def _serve() -> None:
    """Answer one pair a line."""
    import os
    import resource

    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, latex2sympy, normalize_latex
        from lighteval.metrics.utils.math_comparison import compare_gold_target, should_treat_as_complex
    except ImportError as error:
        said.write(f"{error}\n")
        said.flush()
        return
    config = NormalizationConfig(
        basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="none", equations=False
    )

    def parsed(text: str) -> object:
        normal = normalize_latex(text, config=config)
        real = not should_treat_as_complex(normal)
        return latex2sympy(normal, is_real=real, convert_degrees=False, normalization_config=None)

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    said.write(f"{READY}\n")
    said.flush()
    for line in sys.stdin:
        expected, found = json.loads(line)
        try:
            equal = bool(compare_gold_target([parsed(expected)], [parsed(found)]))
        except Exception:  # noqa: BLE001 - whatever a parser of foreign text raises
            equal = False
        said.write(f"{json.dumps(equal)}\n")
        said.flush()


if __name__ == "__main__":
    _serve()
