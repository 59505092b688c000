"""Trainings of a tiny model in a process of their own, as jobs are: trackio and signals are global."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RUN_ALL = """
import importlib, json, sys
for script, argv in json.loads(sys.argv[1]):
    print("ENDED", importlib.import_module(f"hfagent.job_templates.{script}").main(argv), flush=True)
"""


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def environment(place: Path) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    own = {"TRACKIO_DIR": str(place / "trackio"), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
    return {**os.environ, **own}


def run_all(place: Path, commands: Sequence[tuple[str, list[str]]]) -> list[dict[str, Any]]:
    """Exit code, output lines and RESULT of each; the last one holds what all of them wrote to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(commands)],
        env=environment(place), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = [{"lines": [], "result": None}]
    for line in done.stdout.splitlines():
        if line.startswith("ENDED "):
            found[-1]["code"] = int(line.split()[1])
            found.append({"lines": [], "result": None})
        elif line.startswith("RESULT "):
            found[-1]["result"] = json.loads(line.removeprefix("RESULT "))
        else:
            found[-1]["lines"].append(line)
    found[-1]["stderr"] = done.stderr
    return found


def losses(run: dict[str, Any]) -> dict[int, tuple[float, float]]:
    """Step -> loss and learning rate, from the progress lines."""
    words = [line.split() for line in run["lines"] if " loss " in line and line.startswith("step ")]
    return {int(w[1].split("/")[0]): (float(w[3]), float(w[5])) for w in words}
