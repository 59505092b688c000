"""Ends an evaluation that can hardly reach its goal: to beat a reference, another model on the same problems."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hfagent.agent.errors import UsageError
from hfagent.agent.sequential import Futility, FutilityGoal, futile

REFERENCE_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
UNKNOWN = "."


@dataclass
class FutilityWatch:
    """Compares what was answered so far with a reference."""

    reference: dict[str, float]
    """Problem id -> fraction of samples passed."""
    goal: FutilityGoal
    lead: float
    alpha: float
    found: Futility | None = None
    """Why the evaluation was ended."""

    def futile(self, fractions: Mapping[str, float]) -> bool:
        """Whether to end the evaluation after these problems."""
        differences = [value - self.reference[name] for name, value in fractions.items() if name in self.reference]
        self.found = futile(differences, len(self.reference), goal=self.goal, lead=self.lead, alpha=self.alpha)
        return self.found is not None


def parse_reference(text: str, ids: Sequence[str], *, num_samples: int) -> dict[str, float]:
    """Problem id -> fraction of samples passed, for the problems that the reference knows.

    Raises:
        UsageError: not one character for each problem, no digit, or more passes than samples.
    """
    if num_samples >= len(REFERENCE_DIGITS):
        raise UsageError(
            f"--reference counts up to {len(REFERENCE_DIGITS) - 1} samples a problem, not {num_samples}: "
            "leave it out, or ask for fewer --num-samples"
        )
    if len(text) != len(ids):
        raise UsageError(
            f"--reference has {len(text)} characters for {len(ids)} problems: give one for each, "
            "in the benchmark's order"
        )
    allowed = REFERENCE_DIGITS[: num_samples + 1]
    if wrong := sorted(set(text) - set(allowed + UNKNOWN)):
        raise UsageError(
            f"--reference contains {wrong[0]!r}: passes of {num_samples} samples are {allowed[0]} to {allowed[-1]}, "
            f"and {UNKNOWN!r} is unknown"
        )
    return {name: allowed.index(digit) / num_samples for name, digit in zip(ids, text, strict=True) if digit != UNKNOWN}
