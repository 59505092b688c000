"""Whether an answer is right, for every kind of check: the one place that evaluations and rewards share."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hfagent.tools import code_answer, instruction_answer
from hfagent.tools.answer_text import QUESTION_STOPS, answered, final_text, last_box, plain
from hfagent.tools.latex_answer import LatexComparer, same_text
from hfagent.tools.number_answer import as_number, final_number, has_final_number, numbers_equal
from hfagent.tools.problem import Check, CodeCheck, InstructionsCheck, LatexCheck, NumberCheck, TextCheck
from hfagent.tools.sandbox import Sandbox

NO_SANDBOX = "none (no program is run)"
DETAIL_CHARS = 500


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found about one answer."""

    passed: bool
    kind: str
    """`passed`, how a program failed, `wrong`, `no answer`, or `timeout` of a comparison."""
    detail: str
    """What went wrong, or was found instead; may contain text that the answer chose."""


class Judge:
    """Judges answers and remembers how, so that equal ones are judged once. Any thread may ask.

    Args:
        checks: those that answers will be judged by.
        workers: programs run at a time.
        unsafe: run programs even where no sandbox works.

    Raises:
        EvaluationError: programs are to be run, and no sandbox works here.
        PackageMissing: a check needs a package that is not installed.
    """

    def __init__(self, checks: Sequence[Check], *, workers: int, unsafe: bool = False) -> None:
        instructions = [check for check in checks if isinstance(check, InstructionsCheck)]
        if instructions:
            instruction_answer.require(instructions)
        runs_code = any(isinstance(check, CodeCheck) for check in checks)
        self._sandbox = Sandbox.choose(unsafe=unsafe) if runs_code else None
        self._workers = workers
        self._latex = LatexComparer()
        self._known: dict[tuple[str, str], Judgement] = {}

    @property
    def sandbox(self) -> str:
        """Its name, for results."""
        return self._sandbox.name if self._sandbox else NO_SANDBOX

    def judge(self, answers: Iterable[tuple[Check, str]]) -> Iterator[None]:
        """Judge these, one a step."""
        new = {key: pair for pair in answers if (key := _key(*pair)) not in self._known}
        programs = {key: program(*pair) for key, pair in new.items() if isinstance(pair[0], CodeCheck)}
        if programs:
            assert self._sandbox is not None
            outcomes = self._sandbox.run_many(list(programs.values()), workers=self._workers)
            for key, outcome in zip(programs, outcomes, strict=True):
                self._known[key] = Judgement(outcome.passed, outcome.kind, outcome.detail)
                yield
        for key, pair in new.items():
            if key not in programs:
                self._known[key] = self._compared(*pair)
                yield

    def judgement(self, check: Check, answer: str) -> Judgement:
        """What was found about an answer that was judged."""
        return self._known[_key(check, answer)]

    def _compared(self, check: Check, answer: str) -> Judgement:
        match check:
            case NumberCheck():
                number = final_number(answer)
                return _judgement(number is not None and numbers_equal(number, check.number), number)
            case TextCheck():
                text = plain(final_text(answer))
                return _judgement(text != "" and text in map(plain, check.answers), text or None)
            case LatexCheck():
                return self._same_expression(check.expression, last_box(answered(answer)))
            case InstructionsCheck():
                broken = instruction_answer.broken(check, answer)
                return _judgement(not broken, ", ".join(broken))
        raise TypeError(f"{check.kind} is judged by a program")

    def _same_expression(self, expected: str, found: str | None) -> Judgement:
        if not found or same_text(expected, found):
            return _judgement(bool(found), found)
        one, other = as_number(expected), as_number(found)
        if one is not None and other is not None:
            return _judgement(numbers_equal(one, other), found)
        equal = self._latex.equal(expected, found)
        return _judgement(bool(equal), found, failure="wrong" if equal is not None else "timeout")


def program(check: Check, answer: str) -> str:
    """The program that is run to judge an answer; empty where none is."""
    return code_answer.program(check, answer) if isinstance(check, CodeCheck) else ""


def is_complete(check: Check, answer: str, *, chat: bool) -> bool:
    """Whether generation may stop, since nothing that follows would count."""
    match check:
        case CodeCheck():
            return code_answer.is_complete(answer, chat=chat)
        case InstructionsCheck():
            return False
        case NumberCheck():
            given = has_final_number(answer)
        case TextCheck() | LatexCheck():
            given = last_box(answered(answer)) is not None
    return given or (not chat and any(stop in answer for stop in QUESTION_STOPS))


def stops(check: Check) -> tuple[str, ...]:
    """For an engine that knows only fixed strings: where a continuation has certainly answered."""
    match check:
        case CodeCheck():
            return code_answer.CONTINUATION_STOPS
        case InstructionsCheck():
            return ()
        case _:
            return QUESTION_STOPS


def _key(check: Check, answer: str) -> tuple[str, str]:
    """Answers that give the same program are one."""
    return ("code", program(check, answer)) if isinstance(check, CodeCheck) else (check.model_dump_json(), answer)


def _judgement(passed: bool, found: object, *, failure: str = "wrong") -> Judgement:  # noqa: FBT001
    """Where nothing was found, there was no answer."""
    if passed or found is None:
        return Judgement(passed=passed, kind="passed" if passed else "no answer", detail="")
    return Judgement(passed=False, kind=failure, detail=str(found)[:DETAIL_CHARS])
