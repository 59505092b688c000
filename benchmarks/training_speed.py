"""How fast the SFT template trains beside TRL's own script, on the embedded model and on this machine.

    python benchmarks/training_speed.py [--repeats 3]

Writes `benchmarks/training_speed.md`. Two questions:

- at the same settings, bf16 weights and micro-batch included: does the template cost anything?
- the published recipe (micro-batch 1, 8 accumulated, up to 2048 tokens) as TRL's script runs it, against what hfagent
  does with the same rows, the same effective batch and the same number of steps.
"""

import argparse
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hfagent.agent.records import ModelRef
from hfagent.tools.embedded_model import EmbeddedModelStore
from hfagent.tools.procedural_python import tasks

HERE = Path(__file__).parent
STEPS, MIXED_STEPS, BATCH = 6, 4, 8
SHARED = {
    "learning_rate": 1e-3, "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0, "warmup_steps": 0, "seed": 0,
    "logging_steps": 1, "max_length": 2048,
}  # fmt: skip


def short_rows() -> list[dict[str, Any]]:
    """Rows of about 75 tokens."""
    return [{"messages": _turns([task])} for task in tasks("train", STEPS * BATCH, 0)]


def mixed_rows(rows: int = MIXED_STEPS * BATCH, turns: int = 8) -> list[dict[str, Any]]:
    """Conversations of one to so many turns of 75 tokens each."""
    drawn, left = random.Random(0), iter(tasks("train", turns * rows, 1))  # noqa: S311 - reproducible
    return [{"messages": _turns([next(left) for _ in range(drawn.randint(1, turns))])} for _ in range(rows)]


def _turns(asked: Sequence[Any]) -> list[dict[str, str]]:
    return [
        {"role": role, "content": content}
        for task in asked
        for role, content in (("user", task.prompt), ("assistant", f"```python\n{task.solution}```"))
    ]


def flags(values: dict[str, Any]) -> list[str]:
    """Each value as a flag of its name."""
    return [text for name, value in values.items() for text in (f"--{name}", str(value))]


def by_trl(model: str, data: Path, out: Path, settings: dict[str, Any]) -> float:
    """Seconds of training by TRL's script."""
    asked = {
        **SHARED, "model_name_or_path": model, "dataset_name": data.parent, "output_dir": out, "report_to": "none",
        "bf16": True, "use_cpu": True, "use_peft": True, "lora_target_modules": "all-linear", "save_strategy": "no",
        "lr_scheduler_type": "constant", "gradient_checkpointing": False, "disable_tqdm": True, **settings,
    }  # fmt: skip
    said = run(["-m", "trl.scripts.sft", *flags(asked)])
    return float(re.findall(r"'train_runtime': '?([\d.]+)", said)[-1])


def by_hfagent(model: str, data: Path, out: Path, settings: dict[str, Any]) -> float:
    """Seconds of training by the template, its metrics in Trackio and its checkpoint included."""
    asked = {
        **SHARED, "model": model, "dataset": data, "output_dir": out, "decay_fraction": 0, "eval_fraction": 0,
        "lr_scheduler_type": "constant_with_warmup", **settings,
    }  # fmt: skip
    said = run(["-m", "hfagent.job_templates.train_sft", *flags({k.replace("_", "-"): v for k, v in asked.items()})])
    result = next(line for line in reversed(said.splitlines()) if line.startswith("RESULT "))
    return float(json.loads(result.removeprefix("RESULT "))["seconds"])


def run(command: list[str]) -> str:
    """What a program says."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout[-1000:] + done.stderr[-3000:])
    return done.stdout


Runner = Callable[[str, Path, Path, dict[str, Any]], float]


def layout(micro: int) -> dict[str, Any]:
    """The effective batch in micro-batches of this size."""
    return {"per_device_train_batch_size": micro, "gradient_accumulation_steps": BATCH // micro}


COMPARED: tuple[tuple[str, tuple[Runner, dict[str, Any]], tuple[Runner, dict[str, Any]]], ...] = (
    (
        "the same settings: bf16 weights, micro-batch 8",
        (by_trl, {**layout(8), "dtype": "bfloat16"}),
        (by_hfagent, layout(8)),
    ),
    (
        "the same settings: bf16 weights, micro-batch 1, 8 accumulated",
        (by_trl, {**layout(1), "dtype": "bfloat16"}),
        (by_hfagent, layout(1)),
    ),
    (
        "the published recipe by TRL's script (fp32 weights, bf16 autocast, 1 x 8), equal data by hfagent (8 x 1)",
        (by_trl, layout(1)),
        (by_hfagent, layout(8)),
    ),
)


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; the medians are compared")
    args = parser.parse_args()
    model = str(EmbeddedModelStore().prepare(ModelRef(id="embedded:SmolLM2-135M-Instruct")))
    rows = [
        "| Rows | What is compared | TRL's script, s | hfagent, s | Times as fast |",
        "| --- | --- | --- | --- | --- |",
    ]
    mixed = f"mixed (75 to 600 tokens), {MIXED_STEPS} steps"
    for kind, made in ((f"short (75 tokens), {STEPS} steps", short_rows()), (mixed, mixed_rows())):
        for name, theirs, ours in COMPARED:
            found: dict[str, list[float]] = {"theirs": [], "ours": []}
            for _ in range(args.repeats):  # in turn, so that a slow minute of the machine meets both
                for who, (runner, settings) in (("theirs", theirs), ("ours", ours)):
                    with tempfile.TemporaryDirectory() as folder:
                        data = Path(folder) / "data" / "train.jsonl"
                        data.parent.mkdir()
                        data.write_text("".join(f"{json.dumps(row)}\n" for row in made), encoding="utf-8")
                        steps = {"max_steps": len(made) // BATCH}
                        found[who].append(runner(model, data, Path(folder) / "out", settings | steps))
            theirs_s, ours_s = statistics.median(found["theirs"]), statistics.median(found["ours"])
            rows.append(f"| {kind} | {name} | {theirs_s:.1f} | {ours_s:.1f} | {theirs_s / ours_s:.2f} |")
            sys.stdout.write(rows[-1] + "\n")
            sys.stdout.flush()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    head = [
        "# Speed of training",
        "",
        f"Made by `python benchmarks/training_speed.py --repeats {args.repeats}` at commit {commit.stdout.strip()}, "
        f"{platform.machine()}, {os.cpu_count()} processors. SmolLM2-135M-Instruct, LoRA r 16 on all linear layers, "
        f"steps of {BATCH} rows; seconds of `train()`, medians.",
        "",
    ]
    (HERE / "training_speed.md").write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
