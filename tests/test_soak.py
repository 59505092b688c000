"""Two weeks of nights in one process: memory, file handles and logs stay what they were."""

import gc
import io
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from world import SKILL, World, ended, make_plan, night

from hfagent.agent.console import THEME
from hfagent.agent.night import begin
from hfagent.agent.report import render
from hfagent.agent.settings import Settings

NIGHTS = 14
SETTLED = 4
"""Nights after which caches are full."""


def resident_kb() -> int:
    gc.collect()
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1])


def handles() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def shown_night(folder: Path, number: int) -> int:
    """As `hfagent` works it, with report and plots; characters on the terminal."""
    settings = Settings(reports_dir=folder, state_dir=folder / "state")
    out = io.StringIO()
    plan = make_plan(project=f"night-{number:02d}")
    state = begin(plan, World(SKILL).ports, settings, ask=None, console=Console(file=out, theme=THEME, width=200))
    assert state is not None
    assert ended(state) == "finished"
    return len(out.getvalue())


def bare_night(folder: Path, number: int) -> int:
    """Without the plots, which take most of the time."""
    state = night(folder / f"night-{number:02d}.jsonl", World(SKILL))
    assert ended(state) == "finished"
    return len(render(state))


@pytest.mark.parametrize("work", [bare_night, pytest.param(shown_night, marks=pytest.mark.slow)])
def test_fourteen_nights_in_a_row_leave_a_process_as_it_was(tmp_path: Path, work: Callable[[Path, int], int]) -> None:
    memory, open_files, sizes, shown = [], [], [], []
    for number in range(NIGHTS):
        shown.append(work(tmp_path, number))
        memory.append(resident_kb())
        open_files.append(handles())
        sizes.append((tmp_path / f"night-{number:02d}.jsonl").stat().st_size)
    assert open_files[SETTLED:] == [open_files[SETTLED]] * (NIGHTS - SETTLED)
    assert memory[-1] - memory[SETTLED] < 20_000, memory
    assert max(sizes) - min(sizes) < 200
    assert max(sizes) < 100_000
    assert max(shown) < 30_000
    assert {path.suffix for path in tmp_path.iterdir()} <= {".jsonl", ".md", ""}
