"""Rules of the house that no other tool holds."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("agent", "tools", "job_templates")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
PURE = (
    "records", "errors", "events", "state", "policy", "verdict", "stats", "decide", "trend", "evidence", "estimate",
    "jobs", "job_ends", "lines", "summary", "plan", "goal", "proposals", "rules", "runs", "findings",
    "integrity", "claim", "setback", "watch", "remedy",
    "space", "hypotheses", "rungs", "envelope", "remaining", "sequential", "surrogate",
    "hardware", "clusters", "memory", "placement", "night_jobs", "estimate_view",
    "plan_benchmarks", "guards", "guard_facts",
    "stages", "pipeline_facts", "pipeline_state", "pipeline_rules", "pipeline_lines", "pipeline_report", "data_rules",
    "plan_training",
)  # fmt: skip
IMPURE_MODULES = {"time", "random", "os", "subprocess", "socket", "threading", "requests", "tempfile", "shutil"}
INNER = {"lighteval_tasks.py", "roomy_cache.py", "sft_trainer.py", "token_loss.py"}
"""Classes over a heavy library: the scripts import these modules once their arguments are parsed."""
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "trackio", "lighteval", "pandas", "matplotlib", "scipy"}


def imports(path: Path, *, top_level: bool) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_touch_neither_clock_nor_disk_nor_network(name: str) -> None:
    assert not imports(ROOT / "agent" / f"{name}.py", top_level=False) & IMPURE_MODULES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    assert path.name in INNER or not imports(path, top_level=True) & HEAVY


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350


def test_the_agent_reaches_the_tools_only_where_they_are_wired() -> None:
    wired = {
        "wiring.py", "hf_wiring.py", "cluster_wiring.py", "commands.py", "planner.py", "planning.py", "mcp_server.py",
        "understand.py",
    }  # fmt: skip
    reaching = {
        path.name for path in (ROOT / "agent").glob("*.py") if "hfagent.tools" in path.read_text(encoding="utf-8")
    }
    assert reaching <= wired


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_answer_at_once(flag: str) -> None:
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "hfagent", flag], capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - begun)
        assert "hfagent" in done.stdout
    assert min(times) < 0.3
