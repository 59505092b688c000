"""What every job script shares: the machine's precision, the closing line, a clean end on SIGTERM."""

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

RESULT_PREFIX = "RESULT "
RESULT_FILE = "HFAGENT_RESULT_FILE"
"""Variable that names a file for the result, too: a log may be lost where jobs run elsewhere."""

SIGTERM_EXIT = 143
"""Exit code of a job that SIGTERM has ended: 128 + the signal."""


@dataclass(frozen=True)
class Precision:
    """Where and in what number format to compute."""

    device: str
    """`cuda`, `mps` or `cpu`."""
    dtype: str
    """`bfloat16`, `float16` or `float32`: a torch dtype's name."""
    hardware: str
    """The device's own name, e.g. `NVIDIA H100`; for a processor its instruction set."""


def pick_precision() -> Precision:
    """Ask the machine: CUDA bf16 from compute capability 8, fp16 below (a T4 only emulates bf16), MPS fp16,
    a processor with bf16 instructions bf16, any other fp32.
    """
    import torch

    if torch.cuda.is_available():
        major, _ = torch.cuda.get_device_capability()
        return Precision("cuda", "bfloat16" if major >= 8 else "float16", torch.cuda.get_device_name())
    if torch.backends.mps.is_available():
        return Precision("mps", "float16", "Apple MPS")
    capability = torch.backends.cpu.get_cpu_capability()
    # Private names (torch 2.13): absent ones count as "no", which costs speed and never correctness.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    has_bf16 = any(bool(getattr(torch.cpu, name, bool)()) for name in probes)
    return Precision("cpu", "bfloat16" if has_bf16 else "float32", f"CPU {capability}{' bf16' if has_bf16 else ''}")


def emit_result(payload: dict[str, Any]) -> None:
    """Print the closing line that the runner parses; the last one in a log counts."""
    text = json.dumps(payload, allow_nan=False)
    if path := os.environ.get(RESULT_FILE):
        Path(path).write_text(text, encoding="utf-8")
    sys.stdout.write(RESULT_PREFIX + text + "\n")
    sys.stdout.flush()


def on_sigterm(stop: Callable[[], None]) -> None:
    """Call `stop` when the job is asked to end (the runner's grace period is 20 s)."""

    def handler(signum: int, frame: FrameType | None) -> None:
        stop()

    signal.signal(signal.SIGTERM, handler)


def stop() -> NoReturn:
    """End the job as SIGTERM does."""
    raise SystemExit(SIGTERM_EXIT)


def say(line: str) -> None:
    """One line of progress, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
