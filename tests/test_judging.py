"""The one place that says whether an answer is right."""

from decimal import Decimal
from typing import Any

import pytest

from hfagent.agent.errors import PackageMissing
from hfagent.tools.judging import NO_SANDBOX, Judge, Judgement, is_complete, stops
from hfagent.tools.latex_answer import LatexComparer
from hfagent.tools.problem import (
    Check,
    CodeCheck,
    Instruction,
    InstructionsCheck,
    LatexCheck,
    NumberCheck,
    TextCheck,
)

NUMBER = NumberCheck(number=Decimal(42))
TEXT = TextCheck(answers=("Paris", "city of light"))
CODE = CodeCheck(prefix="def f():", entry_point="f", tests="assert f() == 1")


def found(check: Check, answer: str) -> Judgement:
    judge = Judge([check], workers=1)
    assert len(list(judge.judge([(check, answer), (check, answer)]))) == 1  # equal answers are judged once
    assert not list(judge.judge([(check, answer)]))
    return judge.judgement(check, answer)


def passes(check: Check, answer: str) -> bool:
    return found(check, answer).passed


@pytest.mark.parametrize(
    ("answer", "right"),
    [("The answer is: +", True), ("#### `+`", True), ("-", False), ("", False), ("plus", False), ("'", False)],
)
def test_an_answer_of_symbols_alone_is_compared_as_it_is(answer: str, right: bool) -> None:
    assert passes(TextCheck(answers=("+",)), answer) is right


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("6 * 7 = 42\n#### 42", "passed"),
        (r"\boxed{42.0}", "passed"),
        ("it is 41", "wrong"),
        ("I do not know", "no answer"),
        ("42\nQuestion: what is 3 + 4?\nAnswer: 7", "passed"),
    ],
)
def test_a_number_is_judged_by_the_one_that_the_answer_ends_with(answer: str, kind: str) -> None:
    assert found(NUMBER, answer).kind == kind


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("**Paris.**", True),
        ("Let me see.\nThe answer is: 'paris'", True),
        (r"\boxed{\text{Paris}}", True),
        (r"\boxed{City  of Light}", True),
        ("Paris\nor Rome", False),
        ("Paris is nice, Rome is nicer", False),
        ("<think>Paris</think>Rome", False),
        ("", False),
    ],
)
def test_a_text_is_judged_by_the_one_that_the_answer_ends_with(answer: str, right: bool) -> None:
    assert passes(TEXT, answer) is right


def test_code_runs_in_the_sandbox_and_other_checks_need_none() -> None:
    assert passes(CODE, "```python\ndef f():\n    return 1\n```")
    assert found(CODE, "    return 2").kind == "assertion"
    assert Judge([CODE], workers=1).sandbox != NO_SANDBOX
    assert Judge([NUMBER, TEXT], workers=1).sandbox == NO_SANDBOX


@pytest.fixture(scope="module")
def latex() -> LatexComparer:
    return LatexComparer()


@pytest.mark.parametrize(
    ("expected", "given", "equal"),
    [
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)", True),
        ("p - q", "-q + p", True),
        ("p - q", "q - p", False),
        (r"11\sqrt{2}", r"\sqrt{242}", True),
        (r"11\sqrt{2}", "15.5", False),
        (r"(-\infty, 3]", r"(-\infty, 3)", False),
        (r"\frac{14}{3}", "4.67", False),
        ("x^2+2x+1", "(x+1)^2", True),
        ("1,-2", "-2, 1", True),
        ("1,-2", "1", False),
        ("6 - 5i", "6 + 5i", False),
        (r"2\pi", "6.28", False),
        ("3", r"} \frac{", False),
    ],
)
def test_expressions_are_equal_by_what_they_mean(latex: LatexComparer, expected: str, given: str, equal: bool) -> None:
    assert latex.equal(expected, given) is equal


@pytest.mark.slow
def test_an_expression_that_keeps_sympy_busy_is_given_up(latex: LatexComparer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfagent.tools.latex_answer.COMPARE_S", 1.0)
    assert latex.equal("1", "9^{9^{9^{9^9}}}") is not True
    monkeypatch.undo()
    assert latex.equal("1+x", "x+1") is True


@pytest.mark.parametrize(
    ("expected", "answer", "kind"),
    [
        (r"\frac{1}{2}", r"so $\boxed{\dfrac{1}{2}}$", "passed"),
        (r"\frac{1}{2}", r"\boxed{0.5}", "passed"),
        (r"90^\circ", r"\boxed{90}", "passed"),
        (r"\text{Evelyn}", r"\boxed{Evelyn}", "passed"),
        ("2220", r"\boxed{2,220}", "passed"),
        ("5", r"\boxed{6}", "wrong"),
        ("5", "it is 5", "no answer"),
    ],
)
def test_an_expression_stands_in_a_box(expected: str, answer: str, kind: str) -> None:
    assert found(LatexCheck(expression=expected), answer).kind == kind


def rules(*instructions: tuple[str, dict[str, Any]]) -> InstructionsCheck:
    listed = tuple(Instruction(id=name, arguments=arguments) for name, arguments in instructions)
    return InstructionsCheck(instructions=listed, prompt="Write about a cat.")


def test_instructions_are_all_to_be_followed() -> None:
    check = rules(
        ("punctuation:no_comma", {"num_words": None}),
        ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}),
        ("combination:repeat_prompt", {"prompt_to_repeat": "Write about a cat."}),
    )
    assert passes(check, "Write about a cat. It sleeps")
    assert passes(check, "<think>one, two</think>Write about a cat. It sleeps")
    assert found(check, "Write about a cat. It sleeps, and eats").detail == "punctuation:no_comma"
    assert found(check, "").detail.count(",") == 2


def test_instructions_whose_data_is_not_here_are_refused_before_anything_is_asked() -> None:
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        with pytest.raises(PackageMissing, match=r"nltk\.downloader punkt_tab"):
            Judge([rules(("length_constraints:number_sentences", {}))], workers=1)
    else:
        assert passes(
            rules(("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"})), "A. B."
        )


@pytest.mark.parametrize(
    ("check", "answer", "chat", "done"),
    [
        (NUMBER, "#### 42", True, False),
        (NUMBER, "#### 42\n", True, True),
        (NUMBER, r"\boxed{42}", True, True),
        (NUMBER, "42\nQuestion:", True, False),
        (NUMBER, "42\nQuestion:", False, True),
        (LatexCheck(expression="x"), r"<think>\boxed{x}", True, False),
        (LatexCheck(expression="x"), r"\boxed{x}", True, True),
        (rules(("punctuation:no_comma", {})), r"\boxed{x}" "\nQuestion:", False, False),
    ],
)
def test_generation_ends_where_nothing_that_follows_counts(check: Check, answer: str, chat: bool, done: bool) -> None:
    assert is_complete(check, answer, chat=chat) is done


def test_an_engine_is_given_the_strings_of_the_kind_of_check() -> None:
    assert "\ndef " in stops(CODE)
    assert stops(NUMBER) == ("\nQuestion:", "\nProblem:")
    assert stops(rules(("punctuation:no_comma", {}))) == ()
