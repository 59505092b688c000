"""Training rows from answers that a model gave and something judged. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer."""

    text: str
    worth: float
    """Weighted sum of its rewards."""
    passed: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt's row, and the answers to it."""

    row: Mapping[str, Any]
    samples: tuple[Sample, ...]

    @property
    def solution(self) -> str | None:
        """The dataset's own answer, where it has one."""
        solution = self.row.get("solution")
        return solution if isinstance(solution, str) and solution.strip() else None

    @property
    def distinct(self) -> list[Sample]:
        """The answers without repeats and without empty ones, in their order."""
        return list({sample.text: sample for sample in self.samples if sample.text.strip()}.values())

    def answer(self, text: str) -> Any:
        """An answer in the form of the prompt: a text, or a list of one message."""
        return text if isinstance(self.row["prompt"], str) else [{"role": "assistant", "content": text}]


@dataclass(frozen=True, slots=True)
class Made:
    """Rows for a method, and what became of the prompts."""

    rows: list[Row]
    equal: int = 0
    """Prompts left out since their answers were all worth the same."""
    from_solutions: int = 0
    """Rows whose good answer is the dataset's own, since no answer of the model passed."""


def pairs(asked: Sequence[Asked], *, solutions: bool) -> Made:
    """The best answer of a prompt against the worst; of equals the one that came first."""
    rows, equal, own = [], 0, 0
    for one in asked:
        samples = one.distinct
        if not samples:
            equal += 1
            continue
        best, worst = max(samples, key=lambda s: s.worth), min(samples, key=lambda s: s.worth)
        chosen = best.text
        if solutions and one.solution is not None and not any(sample.passed for sample in samples):
            chosen, own = one.solution, own + 1
        elif best.worth == worst.worth:
            equal += 1
            continue
        rows.append({"prompt": one.row["prompt"], "chosen": one.answer(chosen), "rejected": one.answer(worst.text)})
    return Made(rows, equal, own)


def labelled(asked: Sequence[Asked], *, solutions: bool) -> Made:
    """Every answer with whether it passed; nothing where all answers have one label."""
    rows, own = [], 0
    for one in asked:
        samples = one.distinct
        rows += [
            {"prompt": one.row["prompt"], "completion": one.answer(sample.text), "label": sample.passed}
            for sample in samples
        ]
        if solutions and one.solution is not None and not any(sample.passed for sample in samples):
            rows.append({"prompt": one.row["prompt"], "completion": one.answer(one.solution), "label": True})
            own += 1
    return Made(rows, 0, own) if len({row["label"] for row in rows}) == 2 else Made([], len(asked))


def passing(asked: Sequence[Asked], *, solutions: bool) -> Made:
    """The shortest answer of a prompt that passed: what the model can do already, and no solution of others."""
    rows, seen = [], set[str]()
    for one in asked:
        texts = [sample.text for sample in one.distinct if sample.passed and sample.text not in seen]
        if texts:
            text = min(texts, key=len)
            seen.add(text)
            rows.append({"prompt": one.row["prompt"], "completion": one.answer(text)})
    return Made(rows)


def prompts(asked: Sequence[Asked], *, solutions: bool) -> Made:
    """The prompts with what judges answers to them; the answers are sampled while training."""
    return Made([dict(one.row) for one in asked])


MAKERS: dict[str, Callable[..., Made]] = {"sft": passing, "dpo": pairs, "kto": labelled, "grpo": prompts}
"""Method -> what makes its rows, called with the prompts and `solutions`: whether the dataset's own may be used."""
