"""What moves a score beside the weights: hashed, so that scores are compared only where it is the same."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hfagent.agent.records import BenchmarkRef
from hfagent.job_templates.generation import Decoding
from hfagent.tools.problem import Problem, problems_hash

HARNESS_FILES = (
    "agent/sequential.py",
    "job_templates/evaluate.py",
    "job_templates/generation.py",
    "job_templates/harness.py",
    "job_templates/lighteval_tasks.py",
    "job_templates/roomy_cache.py",
    "tools/answer_text.py",
    "tools/benchmarks.py",
    "tools/code_answer.py",
    "tools/instruction_answer.py",
    "tools/judging.py",
    "tools/latex_answer.py",
    "tools/number_answer.py",
    "tools/problem.py",
    "tools/sandbox.py",
    "tools/sandbox_child.py",
)
"""Those that decide what is asked, how it is answered and what counts as right."""
HARNESS_PACKAGES = ("lighteval", "transformers", "torch", "peft", "vllm")
CHECK_PACKAGES = {"latex": ("latex2sympy2_extended", "sympy"), "instructions": ("langdetect", "nltk")}
"""Further ones that judge, by the kind of check."""
GGUF_FILES, GGUF_PACKAGES = ("job_templates/gguf_generation.py", "tools/llama_cpp.py"), ("xllamacpp",)
"""Further ones where llama.cpp answers."""


def harness_parts(
    benchmark: BenchmarkRef, chosen: Sequence[Problem], decoding: Decoding, *, gguf: bool
) -> dict[str, Any]:
    """What moves a score, weights and machine apart: sources, packages, decoding, problems."""
    root = Path(__file__).resolve().parents[1]
    files = HARNESS_FILES + (GGUF_FILES if gguf else ())
    packages = HARNESS_PACKAGES + (GGUF_PACKAGES if gguf else ())
    packages += tuple(name for kind in sorted({p.check.kind for p in chosen}) for name in CHECK_PACKAGES.get(kind, ()))
    sources = {name: hashlib.sha256((root / name).read_bytes()).hexdigest()[:16] for name in files}
    versions = {name: _version(name) for name in packages}
    return {
        "sources": sources,
        "versions": versions,
        "python": platform.python_version(),
        "decoding": asdict(decoding),
        "problems": problems_hash(chosen),
        "revision": benchmark.revision,
    }


def digest(parts: dict[str, Any]) -> str:
    """16 hexadecimal digits that change with any part."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
