"""Whether verdicts keep their word: brute-force simulation of the test's error rate and of the interval's coverage.

    python benchmarks/verdict.py [--runs 4000] [--seed 0]

Writes `benchmarks/verdict.md`.
"""

import argparse
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

from hfagent.agent.stats import wilson
from hfagent.agent.verdict import compare

Outcomes = Mapping[str, float]
HERE = Path(__file__).parent
SIZES = (30, 80, 164, 500)
CHANGED = (0.1, 0.2, 0.4)
"""Share of the problems that change between two models of equal skill."""
GAINS = (0.0, 0.05)
SAMPLES = (4, 10)


def one_sample(n: int, changed: float, gain: float) -> Callable[[random.Random], tuple[Outcomes, Outcomes]]:
    """Problems answered once: some change from wrong to right, some back."""

    def draw(rng: random.Random) -> tuple[Outcomes, Outcomes]:
        moves = rng.choices((1, -1, 0), ((changed + gain) / 2, (changed - gain) / 2, 1 - changed), k=n)
        base = {str(i): float(move < 0) for i, move in enumerate(moves)}
        return base, {str(i): float(move > 0) for i, move in enumerate(moves)}

    return draw


def many_samples(n: int, k: int, gain: float) -> Callable[[random.Random], tuple[Outcomes, Outcomes]]:
    """Problems answered k times, each with a chance of its own."""

    def draw(rng: random.Random) -> tuple[Outcomes, Outcomes]:
        chances = [rng.uniform(0, 1 - gain) for _ in range(n)]
        base = {str(i): sum(rng.random() < p for _ in range(k)) / k for i, p in enumerate(chances)}
        return base, {str(i): sum(rng.random() < p + gain for _ in range(k)) / k for i, p in enumerate(chances)}

    return draw


def row(
    name: str, draw: Callable[[random.Random], tuple[Outcomes, Outcomes]], *, gain: float, runs: int, seed: int
) -> str:
    """A table row: how often a gain was claimed, and how often the interval held the true gain."""
    rng = random.Random(f"{seed} {name}")  # noqa: S311 - a simulation
    found = [compare(*draw(rng)) for _ in range(runs)]
    better = sum(verdict.label == "better" for verdict in found)
    held = sum(verdict.ci_low <= gain <= verdict.ci_high for verdict in found)
    cells = [
        f"{share / runs:.1%} ({low:.1%} to {high:.1%})"
        for share in (better, held)
        for low, high in [wilson(share, runs)]
    ]
    return f"| {name} | {100 * gain:g} points | {cells[0]} | {cells[1]} |"


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, cwd=HERE, check=False).stdout.strip() or "unknown"
    lines = [
        "# Verdicts against brute force",
        "",
        f"Made by `python benchmarks/verdict.py --runs {args.runs} --seed {args.seed}` at commit {commit}; in brackets "
        f"95 % intervals of {args.runs} simulated comparisons.",
        "",
        "| Problems | True gain | Labelled better (at most 5 % without a gain) | 95 % interval holds the truth |",
        "| --- | --- | --- | --- |",
    ]
    for gain in GAINS:
        cells = [
            (f"{n}, {changed:.0%} change, one sample", one_sample(n, changed, gain), args.runs)
            for n, changed in product(SIZES, CHANGED)
        ]
        cells += [(f"164, {k} samples", many_samples(164, k, gain), args.runs // 4) for k in SAMPLES]
        lines += [row(name, draw, gain=gain, runs=runs, seed=args.seed) for name, draw, runs in cells]
    text = "\n".join(lines) + "\n"
    (HERE / "verdict.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
