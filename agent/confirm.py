"""The question before money is spent: yes, no, or a change to the plan."""

from typing import TextIO

from pydantic import ValidationError

from hfagent.agent.records import Plan, TrainConfig

EDITABLE = tuple(name for name in TrainConfig.model_fields if name not in ("method",))


def ask(plan: Plan, stdin: TextIO, out: TextIO) -> Plan | bool:
    """Ask once.

    Returns:
        True to start, False not to, or the plan as edited, which must be shown and asked about again.
    """
    answer = _line("submit? [y/N/edit] ", stdin, out).lower()
    if answer in ("e", "edit"):
        return _edit(plan, stdin, out)
    return answer in ("y", "yes")


def _edit(plan: Plan, stdin: TextIO, out: TextIO) -> Plan:
    """Read `name=value` lines until an empty one; a line that does not fit says why and changes nothing."""
    out.write(f"name=value, an empty line ends; names: {', '.join(EDITABLE)}\n")
    while text := _line("edit> ", stdin, out):
        name, _, value = (part.strip() for part in text.partition("="))
        if name not in EDITABLE:
            out.write(f"unknown name {name!r}\n")
            continue
        try:
            train = TrainConfig.model_validate({**plan.train.model_dump(), name: value or None})
        except ValidationError as error:
            out.write(f"{name}={value!r}: {error.errors()[0]['msg']}\n")
            continue
        plan = plan.model_copy(update={"train": train})
    return plan


def _line(prompt: str, stdin: TextIO, out: TextIO) -> str:
    out.write(prompt)
    out.flush()
    return stdin.readline().strip()
