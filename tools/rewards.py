"""Rewards of completions, for GRPO and for data that a model makes: by name, or by a person's own function."""

import ast
import importlib
import inspect
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
            made, columns = NAMES[name]
            rewards.append(Reward(name, weight, made(_Means(unsafe, max_tokens)), columns))
        else:
            rewards.append(Reward(name, weight, _imported(name)))
    return tuple(rewards)


def check(rewards: Sequence[Reward], row: Mapping[str, Any]) -> None:
    """Ask every reward once, for an empty completion of a row.

    Raises:
        UsageError: the dataset lacks a column, or a reward fails.
    """
    prompt = row["prompt"]
    empty: Any = [{"role": "assistant", "content": ""}] if isinstance(prompt, list) else ""
    others = {name: [value] for name, value in row.items() if name != "prompt"}
    for reward in rewards:
        missing = [name for name in reward.columns if row.get(name) is None]
        if missing:
            raise UsageError(
                f"the reward {reward.name!r} needs the columns {', '.join(reward.columns)}; "
                f"the rows have {', '.join(map(repr, row))}"
            )
        reward(prompts=[prompt], completions=[empty], completion_ids=[[]], **others)


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


NAMES: dict[str, tuple[Callable[[_Means], Function], tuple[str, ...]]] = {
    "tests_pass": (_tests_pass, ("tests", "entry_point")),
    "syntax": (_syntax, ("entry_point",)),
    "number_equal": (_number_equal, ("answer",)),
    "format": (_format, ()),
    "length": (_length, ()),
}
"""Name -> what makes the function, and the columns that it needs."""


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
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the reward {name!r} cannot be imported: {error}; write package.module:function") from error
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise UsageError(f"the reward {name!r} is no plain function")
    return function  # type: ignore[no-any-return]
