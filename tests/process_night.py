"""A night of real processes in seconds: real ledger, loop, supervisors and jobs; what the jobs find is made up.

    python tests/process_night.py FOLDER SECONDS

Begins the night of a folder, or resumes it, as the command line does; each job takes so many seconds.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from world import SKILL, World, make_plan

from hfagent.agent.clock import SystemClock
from hfagent.agent.ports import Ports
from hfagent.agent.records import Job, JobSpec, MetricPoint, Plan
from hfagent.agent.settings import Settings
from hfagent.tools.local_jobs import LocalJobRunner

SCRIPT = """
import sys, time
out = sys.argv[sys.argv.index("--output-dir") + 1]
with open(out + "/../starts", "a") as starts:
    starts.write("started\\n")
time.sleep({seconds})
print("RESULT", open(out + "/../../../results/" + out.split("/")[-2]).read(), flush=True)
"""
TEMPLATES = ("train_sft.py", "evaluate.py")


class PlannedJobs(LocalJobRunner):
    """Real jobs that sleep and then report what the fake world would."""

    def __init__(self, folder: Path, *, seconds: float, script: str = SCRIPT, trackio_dir: Path | None = None) -> None:
        self._results = folder / "results"
        templates = folder / "templates"
        for made in (self._results, templates):
            made.mkdir(parents=True, exist_ok=True)
        for name in TEMPLATES:
            _leave(templates / name, script.format(seconds=seconds))
        super().__init__(folder / "jobs", templates=templates, trackio_dir=trackio_dir, grace_s=1.0)
        self._world = World(SKILL)

    def submit(self, spec: JobSpec) -> Job:
        """Leave the result where the job finds it, and start it."""
        leave_result(self._results, spec, self._world)
        return super().submit(spec)


def leave_result(folder: Path, spec: JobSpec, world: World) -> None:
    """What the job is to report."""
    _leave(folder / spec.key, json.dumps(dict(world.behave(spec).result or {})))


def _leave(path: Path, text: str) -> None:
    """Write the file in one step: whoever does so may be killed, and a job may read it just now."""
    if not path.exists():
        new = path.with_name(f"{path.name}.{os.getpid()}")
        new.write_text(text)
        new.replace(path)


class KnownLosses:
    """The rows of a run that falls all the time, whenever they are asked for."""

    def points(self, project: str, run: str, *, after_step: int = -1) -> Sequence[MetricPoint]:
        """Rows after a step."""
        steps = 3 if run == "smoke" else 20 * (1 + run.count("-x"))
        return [
            MetricPoint(step=i, values={"train/loss": 2.0 - 0.05 * i + 0.001 * (-1) ** i, "train/learning_rate": 1e-3})
            for i in range(max(1, after_step + 1), steps + 1)
        ]

    def url(self, project: str, run: str) -> str:
        """A made-up address."""
        return f"fake://trackio/{project}/{run}"


def ports(folder: Path, *, seconds: float) -> Ports:
    """The outside of such a night."""
    return replace(
        World(SKILL).ports,
        runner=PlannedJobs(folder, seconds=seconds),
        tracker=KnownLosses(),
        clock=SystemClock(),
    )


def plan() -> Plan:
    """What it is to do."""
    return make_plan(backend="local")


def starts(folder: Path) -> dict[str, int]:
    """Key of a job -> how often its script was begun."""
    return {path.parent.name: len(path.read_text().split()) for path in sorted((folder / "jobs").glob("*/starts"))}


def main(folder: Path, seconds: float) -> int:
    """The night, to its end or to a signal; the exit code of the program."""
    from rich.console import Console

    from hfagent.agent.commands import _worked
    from hfagent.agent.night import begin, resume
    from hfagent.agent.wiring import Paths

    settings = Settings(reports_dir=folder, state_dir=folder / "state", poll_s=0.2)
    console, there = Console(stderr=True), ports(folder, seconds=seconds)
    paths = Paths(folder, plan().project)
    if paths.ledger.exists():
        return _worked(lambda: resume(paths, there, settings, console=console), paths, as_json=True)
    return _worked(lambda: begin(plan(), there, settings, ask=None, console=console), paths, as_json=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), float(sys.argv[2])))
