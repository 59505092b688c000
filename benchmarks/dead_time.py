"""The time in which no job runs: a night of hfagent beside a shell script that starts the same jobs one by one.

    python benchmarks/dead_time.py [--trials 8] [--folder FOLDER]

The night is the one of `soak.py` with jobs of 5 seconds. Its jobs are then run again, with the same commands in the
same order, by a shell script. Linux only. Writes `benchmarks/dead_time.md`.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from soak import Span, revision, spans, worked  # noqa: E402

from hfagent.tools.job_home import JobHome  # noqa: E402

STEPS = 5
"""Seconds of a training; an evaluation takes as long."""
SMOKE_STEPS = 2
"""Of the run before all, by `soak_jobs/train_sft.py`."""
RUN_S = 300.0
NIGHT_S = 8 * 3600.0
LIMIT = 0.02
"""Share of such a night that may be lost."""


class Row(NamedTuple):
    """One way to run the jobs."""

    wall_s: float
    """From the start of the first job to the end of the last one."""
    jobs_s: float
    """In which one of them ran."""
    gaps: tuple[float, ...]
    """Between the end of each and the start of the next one."""


def row(jobs: Sequence[Span]) -> Row:
    """What the times of the jobs come to."""
    gaps = tuple(later.start - earlier.end for earlier, later in pairwise(jobs))
    return Row(jobs[-1].end - jobs[0].start, sum(job.end - job.start for job in jobs), gaps)


def looped(folder: Path, jobs: Sequence[Span]) -> list[Span]:
    """The same commands by a shell script, in another folder; `$EPOCHREALTIME` costs no process."""
    again = folder / "again"
    home = JobHome(folder / ".hfagent" / "jobs", templates=HERE / "soak_jobs", trackio_dir=again / "trackio")
    lines = []
    for job in jobs:
        run = json.loads((home.root / job.key / "run.json").read_text(encoding="utf-8"))
        out = again / job.key / "out"
        out.mkdir(parents=True)
        command = shlex.join([*run["command"][:-1], str(out)])
        lines += ["echo $EPOCHREALTIME", f"{command} > {shlex.quote(str(out.parent / 'log.txt'))} 2>&1"]
        lines += ["echo $EPOCHREALTIME"]
    script = again / "loop.sh"
    script.write_text("\n".join(["set -e", *lines]) + "\n", encoding="utf-8")
    env = home.environment(home.root / jobs[0].key)
    done = subprocess.run(["bash", str(script)], cwd=folder, env=env, stdout=subprocess.PIPE, text=True, check=True)
    times = [float(line) for line in done.stdout.split()]
    return [Span(job.key, *times[2 * at : 2 * at + 2]) for at, job in enumerate(jobs)]


def page(night: Row, loop: Row, *, known_s: float, once: Sequence[float], trials: int, commit: str) -> tuple[str, bool]:
    """The page, and whether the limit is held; `once` is before the first job and after the last one."""
    count = len(night.gaps) + 1
    lost = mean(night.gaps)
    runs = (NIGHT_S - sum(once)) / (RUN_S + lost)
    share = (runs * lost + sum(once)) / NIGHT_S
    rows = [
        ("First start to last end", *(f"{found.wall_s:.1f} s" for found in (loop, night))),
        ("In which a job ran", *(f"{found.jobs_s:.1f} s" for found in (loop, night))),
        ("In which none ran", *(f"{1 - found.jobs_s / found.wall_s:.2%}" for found in (loop, night))),
        ("Between two jobs, mean", *(f"{mean(found.gaps):.3f} s" for found in (loop, night))),
        ("Between two jobs, median", *(f"{median(found.gaps):.3f} s" for found in (loop, night))),
        ("Between two jobs, longest", *(f"{max(found.gaps):.3f} s" for found in (loop, night))),
        ("Own start and end of a job, mean", *(f"{(found.jobs_s - known_s) / count:.2f} s" for found in (loop, night))),
        ("Before the first job, once", "", f"{once[0]:.1f} s"),
        ("After the last one, once", "", f"{once[1]:.1f} s"),
    ]
    lines = [
        "# The time in which no job runs",
        "",
        f"Made by `python benchmarks/dead_time.py --trials {trials}` at commit {commit}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} processors that others used, too (load average now "
        f"{os.getloadavg()[0]:.1f}), Python {platform.python_version()}: {count} jobs that sleep {known_s:g} s in all, "
        "first by a night of hfagent, then the same commands in the same order by a shell script that starts each and "
        "waits.",
        "",
        "| | Shell script | hfagent |",
        "| --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "A job runs from the moment before its process is started to the moment after it has ended, by its "
        "supervisor's clock, or the shell's. So Python's start, imports, and Trackio's first and last words are the "
        "job's own time, on both sides: what a job took beyond its sleep is in the table. What hfagent adds is between "
        "two jobs: to notice the end, fold, compare, decide, plan, put the intent on disk, start the next supervisor.",
        "",
        f"In {NIGHT_S / 3600:g} hours of runs of {RUN_S / 60:g} minutes that is {runs * lost:.0f} s between "
        f"{runs:.0f} jobs, and {sum(once):.0f} s at both ends: **{share:.2%}** of the night (limit {LIMIT:.0%}: "
        f"{'held' if share <= LIMIT else 'missed'}). Real jobs load a model first (8 to 15 s on 2 cores), "
        "as they would have to in a shell script.",
    ]
    return "\n".join(lines) + "\n", share <= LIMIT


def main() -> int:
    """Measure and write; 1 where the limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="kept; the default is a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = (args.folder or Path(made)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        commit = revision()
        with worked(folder, {"max_trials": args.trials}, STEPS):
            begun = time.time()
        ended = time.time()
        jobs = spans(folder)
        once = (jobs[0].start - begun, ended - jobs[-1].end)
        known_s = sum(float(SMOKE_STEPS if "-smoke-" in job.key else STEPS) for job in jobs)
        night, loop = row(jobs), row(looped(folder, jobs))
    text, held = page(night, loop, known_s=known_s, once=once, trials=args.trials, commit=commit)
    (HERE / "dead_time.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
