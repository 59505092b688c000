"""Stands for an evaluation in `benchmarks/soak.py`: answers a tenth of the problems at a time, then a result."""

import argparse
import hashlib
import json
import time
from pathlib import Path

from hfagent.job_templates.runtime import emit_result, say

BASE_SKILL = 0.1
PARTS = 10
SECONDS = 5.0


def outcomes(n: int, solved: float, salt: str) -> dict[str, float]:
    """So many problems, of which a better model solves those of a worse one and some more."""
    ranks = [int(hashlib.sha256(f"{salt}{at}".encode()).hexdigest()[:8], 16) / 16**8 for at in range(n)]
    return {f"procedural_python/{at:04d}": float(rank < solved) for at, rank in enumerate(ranks)}


def main() -> None:
    """Take the time of an evaluation and score the skill that the training left."""
    parser = argparse.ArgumentParser()
    for flag in ("--adapter", "--benchmark", "--set"):
        parser.add_argument(flag, default="")
    parser.add_argument("--n", type=int, required=True)
    args, _ = parser.parse_known_args()
    solved = json.loads(Path(args.adapter, "skill.json").read_text(encoding="utf-8")) if args.adapter else BASE_SKILL
    for part in range(1, PARTS + 1):
        time.sleep(SECONDS / PARTS)
        say(f"answered {part * args.n // PARTS}/{args.n}")
    found = outcomes(args.n, solved, args.set)
    emit_result(
        {
            "benchmark": {"name": args.benchmark, "set": args.set, "n": args.n}, "metric": "pass@1",
            "value": sum(found.values()) / args.n, "n": args.n, "outcomes": found, "harness": f"soak-{args.set}",
            "sandbox": "none", "errors": {"assertion": int(args.n - sum(found.values()))},
        }
    )  # fmt: skip


if __name__ == "__main__":
    main()
