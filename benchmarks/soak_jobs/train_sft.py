"""Stands for a training in `benchmarks/soak.py`: a row a second in Trackio, a progress line, checkpoints, a result."""

import argparse
import hashlib
import json
import random
import time
from pathlib import Path

from hfagent.job_templates.runtime import emit_result, say

RISE, SPREAD, MOST = 0.003, 0.006, 0.9


def skill(run: str) -> float:
    """What the trained model solves: more from set to set, with chance in it, and a little more when it is extended."""
    number = int(run.split("-")[1]) if run.startswith("sft-") else 0
    chance = int(hashlib.sha256(run.encode()).hexdigest()[:8], 16) / 16**8 - 0.5
    return min(MOST, 0.12 + RISE * number + 2 * SPREAD * chance + 0.01 * run.count("-x"))


def main() -> None:
    """Log a loss that falls, and leave what a training leaves."""
    parser = argparse.ArgumentParser()
    for flag in ("--model", "--project", "--run-name", "--resume-from-checkpoint"):
        parser.add_argument(flag, default="")
    parser.add_argument("--max-steps", type=int, required=True)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--output-dir", type=Path, required=True)
    args, _ = parser.parse_known_args()
    import trackio

    first = int(args.resume_from_checkpoint.rpartition("-")[2] or 0)
    total = first + 2 if args.smoke else args.max_steps
    noise = random.Random(args.run_name)  # noqa: S311 - of a loss
    trackio.init(project=args.project, name=args.run_name, embed=False, auto_log_gpu=False)
    for step in range(first + 1, total + 1):
        time.sleep(1)
        loss = 2.0 * step**-0.3 * (1 + 0.005 * noise.gauss(0, 1))
        row = {"train/loss": loss, "train/learning_rate": 1e-3, "train/grad_norm": 0.5, "train/global_step": step}
        trackio.log(row)
        say(f"step {step}/{total} loss {loss:.4f} lr 0.001 1.00 s/step")
    trackio.finish()
    checkpoint, adapter = args.output_dir / f"checkpoint-{total}", args.output_dir / "adapter"
    for folder in (checkpoint, adapter):
        folder.mkdir()
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": total}), encoding="utf-8")
    (adapter / "skill.json").write_text(json.dumps(skill(args.run_name)), encoding="utf-8")
    emit_result(
        {
            "adapter": str(adapter), "checkpoint": str(checkpoint), "stable_checkpoint": str(checkpoint),
            "steps": total, "base_model": args.model, "adapter_base_model": args.model, "base_fingerprint": "b",
            "weight_change": 0.1, "seconds": float(total - first), "trackio_run": args.run_name,
        }
    )  # fmt: skip


if __name__ == "__main__":
    main()
