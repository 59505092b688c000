"""The question before money is spent: yes, no, or a change to the plan."""

from typing import Any, TextIO

from pydantic import ValidationError

from hfagent.agent.goal_numbers import MAX_LENGTH
from hfagent.agent.records import Plan, TrainConfig
from hfagent.agent.train_config import Method, method_fields


def ask(plan: Plan, stdin: TextIO, out: TextIO, *, context: int | None = None) -> Plan | bool:
    """Ask until the answer is one.

    Args:
        plan: what is asked about.
        stdin: answers, a line each.
        out: questions.
        context: tokens that the model can read; None while unknown.

    Returns:
        True to start, False not to (also an empty line and the end of the input), or the plan as edited, which must
        be shown and asked about again.
    """
    while True:
        answer = _line("submit? [y/N/edit] ", stdin, out)
        match (answer or "n").lower():
            case "y" | "yes":
                return True
            case "n" | "no":
                return False
            case "e" | "edit":
                return _edit(plan, stdin, out, longest=context or MAX_LENGTH)
        out.write(f"{answer!r} is no answer: y starts, n or nothing ends, edit changes the plan\n")


def yes(stdin: TextIO, out: TextIO) -> bool:
    """Ask for a yes until the answer is one or a no; nothing is a no."""
    while True:
        answer = _line("submit? [y/N] ", stdin, out)
        match (answer or "n").lower():
            case "y" | "yes":
                return True
            case "n" | "no":
                return False
        out.write(f"{answer!r} is no answer: y starts, n or nothing ends\n")


def editable(method: Method) -> tuple[str, ...]:
    """The hyperparameters that a person may change."""
    return tuple(name for name in TrainConfig.model_fields if name in method_fields(method) - {"method"})


def _edit(plan: Plan, stdin: TextIO, out: TextIO, *, longest: int) -> Plan:
    """Read `name=value` lines until an empty one; a line that does not fit says why and changes nothing."""
    names = editable(plan.method)
    for name in names:
        out.write(f"  {name}={_shown(getattr(plan.train, name))}\n")
    out.write("name=value changes one, an empty line ends\n")
    while text := _line("edit> ", stdin, out):
        name, equals, value = (part.strip() for part in text.partition("="))
        if name not in names or not equals:
            out.write(f"{text!r} changes nothing: write name=value with one of the names above\n")
            continue
        try:
            train = TrainConfig.model_validate({**plan.train.model_dump(), name: value or None})
        except ValidationError as error:
            out.write(f"{name}={value!r}: {error.errors()[0]['msg']}\n")
            continue
        if name == "max_length" and train.max_length > longest:
            out.write(f"{name}={value!r}: the model reads at most {longest} tokens\n")
            continue
        out.write(f"  {name}: {_shown(getattr(plan.train, name))} -> {_shown(getattr(train, name))}\n")
        plan = plan.model_copy(update={"train": train})
    return plan


def _shown(value: Any) -> str:
    """As it may be typed: nothing stands for None."""
    return "" if value is None else str(value)


def _line(prompt: str, stdin: TextIO, out: TextIO) -> str:
    out.write(prompt)
    out.flush()
    return stdin.readline().strip()
