from decimal import Decimal

import pytest

from hfagent.tools.number_answer import final_number, has_final_number, numbers_equal


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 3 + 4 = 7 apples.", "7"),
        ("16 - 3 - 4 = 9 eggs, so $9 * 2 = $<<9*2=18>>18\n#### 18", "18"),
        ("#### 1,234,567", "1234567"),
        ("#### $-1,200.50 per day in 2 weeks", "-1200.5"),
        ("#### 10\nHe paid in 3 days.", "10"),
        ("#### 2. Add them up\nThe sum is 9.", "9"),  # a heading
        ("#### Step 1\nThe sum is 9", "9"),
        (r"Thus \boxed{42}, which is more than 7.", "42"),
        (r"\boxed{1} or rather $\boxed{\frac{3}{4}}$.", "0.75"),
        (r"\boxed{x = -\frac{1}{2}}", "-0.5"),
        (r"\boxed{\dfrac12}", "0.5"),
        (r"\boxed{2\frac{1}{2}\text{ hours}}", "2.5"),
        (r"\boxed{\$1{,}200}", "1200"),
        (r"\boxed{90^\circ}", "90"),
        (r"\boxed{50\%}", "50"),
        (r"\boxed{1.5 \times 10^{3}}", "1500"),
        (r"\boxed{\text{the rest is cut", None),
        (r"\boxed{\text{no number}} and 5", None),
        (r"\boxed{3, 4}", None),
        (r"\boxed{2^{10}}", None),
        (r"\boxed{5\pi}", None),
        (r"\boxed{\sqrt{2}}", None),
        ("The temperature is −5 degrees", "-5"),
        ("It is -$5", "-5"),
        ("from 10-5", "5"),
        ("10 - 5", "5"),
        ("(3)-4", "4"),
        ("a half is 1/2", "0.5"),
        ("1 1/2 cups", "1.5"),
        ("about .75", "0.75"),
        ("42.", "42"),
        ("1e3", "1000"),
        ("the list 1,2,3", "3"),
        ("1,2345", "2345"),
        ("5km", "5"),
        ("there are 12 of H2O and x_1", "12"),
        ("4 of 8/0", "4"),
        ("<think>It is 5.</think>It is 6.", "6"),
        ("<think>It is 5, or 6", None),
        ("no number", None),
        ("", None),
    ],
)
def test_the_final_number_is_the_one_that_a_reader_would_take(text: str, number: str | None) -> None:
    assert final_number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ("42", "42.000", True),
        ("123456789012345", "123456789012346", False),
        ("0.333333333333", "0.3333333333333333", True),
        ("0.33", "0.3333333333333333", False),
        ("0", "0.0000000001", False),
        ("-5", "5", False),
    ],
)
def test_numbers_are_equal_up_to_rounding_alone(a: str, b: str, equal: bool) -> None:
    assert numbers_equal(Decimal(a), Decimal(b)) is equal
    assert numbers_equal(Decimal(b), Decimal(a)) is equal


@pytest.mark.parametrize(
    "text", ["1e999999999", "9" * 5000, "1/" + "9" * 400, "1" + ",000" * 900, "-" * 9000, "{" * 9000]
)
def test_no_answer_breaks_the_reading(text: str) -> None:
    number = final_number(text)
    assert number is None or isinstance(numbers_equal(number, Decimal(1)), bool)


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("#### 4", False),
        ("#### 42\n", True),
        (r"so \boxed{4", False),
        (r"so \boxed{42}", True),
        ("#### Step 1\n", False),
    ],
)
def test_generation_may_end_once_the_number_is_written_out(text: str, done: bool) -> None:
    assert has_final_number(text) is done
