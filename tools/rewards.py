"""Rewards of completions, for GRPO and for data that a model makes: by name, or by a person's own function."""

import ast
import importlib
import inspect
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hfagent.agent.errors import HfagentError, UsageError
from hfagent.tools.code_answer import extract_code, program
from hfagent.tools.judging import Judge
from hfagent.tools.number_answer import final_number
from hfagent.tools.problem import Check, CodeCheck, NumberCheck

Function = Callable[..., Sequence[float]]
"""Called with the keywords `prompts`, `completions`, `completion_ids` and the dataset's other columns."""
FENCED = r"```[^\n`]*\n.+?```"
SOFT_SHARE = 0.5
"""Of the tokens that a completion may have, from which `length` takes something off."""


@dataclass(frozen=True)
class Reward:
    """One reward: exactly one finite number for each completion, or an error that names it."""

    name: str
    weight: float
    function: Function = field(repr=False)
    columns: tuple[str, ...] = ()
    """What it needs of a dataset."""
    most: float | None = None
    """What it can give at most; None where only its author knows."""

    @property
    def __name__(self) -> str:
        """As TRL names its metrics."""
        return self.name.replace(":", ".")

    def __call__(self, **given: Any) -> list[float]:
        """The rewards, as TRL asks for them.

        Raises:
            UsageError: it fails, or gives anything but one finite number for each completion.
        """
        count = len(given["completions"])
        try:
            values = list(self.function(**given))
        except HfagentError:
            raise
        except Exception as error:
            raise UsageError(f"the reward {self.name!r} failed: {type(error).__name__}: {error}") from error
        if len(values) != count:
            raise UsageError(f"the reward {self.name!r} gave {len(values)} numbers for {count} completions")
        for index, value in enumerate(values):
            if isinstance(value, str) or not _is_finite(value):
                raise UsageError(
                    f"the reward {self.name!r} gave {value!r} for completion {index}: it must be a finite number"
                )
        return [float(value) for value in values]


def load(text: str, *, unsafe: bool = False, max_tokens: int | None = None) -> tuple[Reward, ...]:
    """The rewards that a text like `tests_pass:1,syntax:0.2` names, or `package.module:function:0.5`.

    Args:
        text: Names with weights, which are 1 where none is given.
        unsafe: Run answers where no sandbox works.
        max_tokens: Of a completion; the limit of `length`.

    Raises:
        UsageError: an unknown name, a weight that is no number, a function that cannot be imported.
        EvaluationError: answers are to be run, and no sandbox works.
    """
    found = [_split(part.strip()) for part in text.split(",") if part.strip()]
    if not found:
        raise UsageError(f"{text!r} names no reward: there are {', '.join(NAMES)}, or package.module:function")
    rewards = []
    for name, weight in found:
        if name in NAMES:
            known = NAMES[name]
            rewards.append(Reward(name, weight, known.make(_Means(unsafe, max_tokens)), known.columns, known.most))
        else:
            rewards.append(Reward(name, weight, _imported(name)))
    return tuple(rewards)


def check(rewards: Sequence[Reward], rows: Sequence[Mapping[str, Any]]) -> None:
    """Look at what every row has for the rewards, and ask each once, for an empty completion of the first row.

    Raises:
        UsageError: the dataset lacks a column, a row holds nothing to judge by, or a reward fails.
    """
    row = rows[0]
    prompt = row["prompt"]
    empty: Any = [{"role": "assistant", "content": ""}] if isinstance(prompt, list) else ""
    others = {name: [value] for name, value in row.items() if name != "prompt"}
    for reward in rewards:
        missing = [name for name in reward.columns if name not in row]
        if missing:
            raise UsageError(
                f"the reward {reward.name!r} needs the columns {', '.join(reward.columns)}; "
                f"the rows have {', '.join(map(repr, row))}"
            )
        flaws = [flaw for one in rows if (flaw := _row_flaw(reward, one))]
        if flaws:
            raise UsageError(
                f"the reward {reward.name!r} cannot judge answers to {len(flaws)} of {len(rows)} rows, the first since "
                f"{flaws[0]}"
            )
        reward(prompts=[prompt], completions=[empty], completion_ids=[[]], **others)


def _row_flaw(reward: Reward, row: Mapping[str, Any]) -> str | None:
    """Why a reward of ours would fail at a row; a person's own is not known."""
    known = NAMES.get(reward.name)
    for name in () if known is None else (*known.columns, *known.optional):
        readable, needed = READ[name]
        if name in row and not readable(row[name]):
            return f"{name} is {row[name]!r}, not {needed}"
    return None


def total(rewards: Sequence[Reward], **given: Any) -> list[float]:
    """The weighted sum for each completion."""
    columns = [[reward.weight * value for value in reward(**given)] for reward in rewards]
    return [sum(values) for values in zip(*columns, strict=True)]


def text_of(completion: Any) -> str:
    """A completion's text, be it a text or a list of messages."""
    if isinstance(completion, str):
        return completion
    return "\n".join(turn.get("content") or "" for turn in completion)


@dataclass(frozen=True)
class _Means:
    """What the functions may need."""

    unsafe: bool
    max_tokens: int | None


def _tests_pass(means: _Means) -> Function:
    """1 where all hidden tests pass, judged as an evaluation does."""
    judge = Judge([_code("", "f")], workers=os.cpu_count() or 1, unsafe=means.unsafe)

    def tests_pass(
        completions: Sequence[Any], tests: Sequence[Any], entry_point: Sequence[str], **columns: Any
    ) -> list[float]:
        prefixes = columns.get("prefix") or [""] * len(completions)
        checks = [_code(*row) for row in zip(tests, entry_point, prefixes, strict=True)]
        return _judged(judge, checks, completions)

    return tests_pass


def _judged(judge: Judge, checks: Sequence[Check], completions: Sequence[Any]) -> list[float]:
    pairs = list(zip(checks, map(text_of, completions), strict=True))
    list(judge.judge(pairs))
    return [float(judge.judgement(*pair).passed) for pair in pairs]


def _code(tests: Any, entry_point: str, prefix: str | None = "") -> CodeCheck:
    source = tests if isinstance(tests, str) else "\n".join(tests)
    return CodeCheck(prefix=prefix or "", entry_point=entry_point, tests=source)


def _syntax(means: _Means) -> Function:
    """1 where the answer parses as Python and defines the function that is asked for."""

    def syntax(completions: Sequence[Any], entry_point: Sequence[str], **columns: Any) -> list[float]:
        prefixes = columns.get("prefix") or [""] * len(completions)
        rows = zip(completions, entry_point, prefixes, strict=True)
        return [float(_defines(completion, name, prefix or "")) for completion, name, prefix in rows]

    return syntax


def _defines(completion: Any, name: str, prefix: str) -> bool:
    answer = text_of(completion)
    code = extract_code(answer, name)
    whole = re.search(rf"^def {name}\b", code, re.MULTILINE) is not None
    if not whole and (not isinstance(completion, str) or not answer.strip()):
        return False  # only a text continues the prefix, and an empty one leaves a function without a body
    source = code if whole else program(_code("", name, prefix), answer)
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body)


def _number_equal(means: _Means) -> Function:
    """1 where the number that a completion ends with is that of the column `answer`."""
    judge = Judge([], workers=1)

    def number_equal(completions: Sequence[Any], answer: Sequence[Any], **columns: Any) -> list[float]:
        return _judged(judge, [_number(value) for value in answer], completions)

    return number_equal


def _number(answer: Any) -> NumberCheck:
    number = final_number(str(answer))
    if number is None:
        raise UsageError(f"the reward 'number_equal' needs a number in the column 'answer', not {answer!r}")
    return NumberCheck(number=number)


def _format(means: _Means) -> Function:
    """1 where the answer holds a whole fenced block, or what the column `pattern` asks for."""

    def well_formed(completions: Sequence[Any], **columns: Any) -> list[float]:
        patterns = columns.get("pattern") or [FENCED] * len(completions)
        rows = zip(completions, patterns, strict=True)
        return [float(re.search(pattern, text_of(one), re.DOTALL) is not None) for one, pattern in rows]

    return well_formed


def _length(means: _Means) -> Function:
    """0 up to half of the tokens that a completion may have, then falling to -1 at all of them."""
    if means.max_tokens is None:
        raise UsageError("the reward 'length' needs a limit: give --max-completion-length")
    soft, hard = SOFT_SHARE * means.max_tokens, means.max_tokens

    def length(completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], **columns: Any) -> list[float]:
        return [-min(max(len(ids) - soft, 0.0) / (hard - soft), 1.0) for ids in completion_ids]

    return length


def _is_source(value: Any) -> bool:
    lines = value if isinstance(value, list) and value else [value]
    return all(isinstance(line, str) for line in lines)


def _is_pattern(value: Any) -> bool:
    try:
        re.compile(value)
    except (re.error, TypeError):
        return False
    return True


READ: dict[str, tuple[Callable[[Any], bool], str]] = {
    "tests": (_is_source, "a text, or a list of them"),
    "entry_point": (lambda value: isinstance(value, str) and bool(value.strip()), "the name of a function"),
    "answer": (lambda value: final_number(str(value)) is not None, "a number, or a text that ends with one"),
    "pattern": (_is_pattern, "a regular expression"),
}
"""Column -> whether our rewards can read a value of it, and what they can read."""


class Known(NamedTuple):
    """A reward that has a name here."""

    make: Callable[[_Means], Function]
    columns: tuple[str, ...] = ()
    """What it needs of a dataset."""
    optional: tuple[str, ...] = ()
    """What it reads where it is there."""
    most: float = 1.0
    """What it can give at most."""


NAMES: dict[str, Known] = {
    "tests_pass": Known(_tests_pass, ("tests", "entry_point")),
    "syntax": Known(_syntax, ("entry_point",)),
    "number_equal": Known(_number_equal, ("answer",)),
    "format": Known(_format, optional=("pattern",)),
    "length": Known(_length, most=0.0),
}


def _split(part: str) -> tuple[str, float]:
    """Name and weight: the weight stands behind the last colon, where that is a number."""
    name, colon, last = part.rpartition(":")
    if not colon:
        return part, 1.0
    try:
        weight = float(last)
    except ValueError:
        if name in NAMES:
            raise UsageError(f"the weight {last!r} of the reward {name!r} is no number: write {name}:0.5") from None
        return part, 1.0
    if not math.isfinite(weight):
        raise UsageError(f"the weight {last!r} of the reward {name!r} is not finite: write {name}:0.5")
    return name, weight


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False


def _imported(name: str) -> Function:
    module, colon, attribute = name.partition(":")
    if not colon or not attribute:
        raise UsageError(f"there is no reward {name!r}: there are {', '.join(NAMES)}, or package.module:function")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever a person's own module does
        why = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise UsageError(
            f"the reward {name!r} cannot be imported: {why.partition(chr(10))[0]}; write package.module:function"
        ) from error
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise UsageError(f"the reward {name!r} is no plain function")
    return function  # type: ignore[no-any-return]
