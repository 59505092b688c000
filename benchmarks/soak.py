"""One long night in one process: does hfagent stay as small and as quick in the last quarter as in the first?

    python benchmarks/soak.py --minutes 60 [--folder FOLDER]

The night is real: planning, checks, loop, rules, search, policy, ledger, report, plots, terminal, supervisors,
subprocesses, Trackio. Only the two job scripts are small ones (`soak_jobs/`), which mostly sleep, so that hundreds
pass in an hour. Another process looks at it from outside, through /proc. Linux only. Writes `benchmarks/soak.md`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

from cloud_load import kibibytes, processor_s, terminal  # noqa: E402

PROJECT = "soak"
EVERY_S = 30.0
STEPS = 10
"""Of a training, a second each."""
PROBLEMS = 200
"""Of an evaluation on either set."""
CLOSING_S = 240.0
"""More than the search asks for at the end, so that it goes on for all the minutes that were asked for."""
BLOCK_S = 300.0
"""Samples of five minutes count as one: those of half a minute resemble their neighbours."""
MEMORY_A_JOB = 0.25
"""MB; a night of 100 jobs takes 25."""
TIMES = 1.5
"""How much more a job may cost in the last quarter than in the first."""
CPU = 10.0
"""Percent of a core, with a job every ten seconds."""
SIZES = ("ledger", "report", "plots", "search journal", "Trackio store", "job logs", "job folders", "all files")


def night(folder: Path, limits: Mapping[str, float], steps: int) -> None:
    """Work a night of small jobs within these limits of the plan, as the command line does."""
    from hfagent.agent.console import stderr_console
    from hfagent.agent.night import begin
    from hfagent.agent.plan import Flags
    from hfagent.agent.planning import plan_goal
    from hfagent.agent.records import Plan
    from hfagent.agent.settings import load
    from hfagent.agent.wiring import night_ports, preflight, trackio_dir
    from hfagent.tools.local_jobs import LocalJobRunner

    flags = {"looks_file": folder / "looks.jsonl", "cache_dir": folder / "cache"}
    settings = load(flags, cwd=folder, env={})
    plan = plan_goal("fine-tune ./model on ./rows.jsonl to improve code", Flags(project=PROJECT), settings)
    assert isinstance(plan, Plan)
    train = plan.train.model_copy(update={"max_steps": steps, "warmup_steps": 0, "eval_fraction": 0.0})
    search = plan.search.model_copy(update={"n": PROBLEMS})
    plan = plan.model_copy(update={"max_extensions": 1, **limits, "train": train, "search": search})
    preflight(settings, plan)
    runner = LocalJobRunner(
        settings.state_dir / "jobs", templates=HERE / "soak_jobs", trackio_dir=trackio_dir(settings)
    )
    ports = night_ports(settings)
    state = begin(plan, type(ports)(**{**vars(ports), "runner": runner}), settings, ask=None, console=stderr_console())
    assert state is not None
    assert state.ended is not None


def prepare(folder: Path) -> None:
    """A model of 30,000 weights and a few rows, so that the checks have something to check."""
    from tiny_model import write_tiny_model

    write_tiny_model(folder / "model")
    rows = [{"instruction": f"say w{at % 7} w{at % 11}", "output": f"w{at % 5} w{at % 3}"} for at in range(60)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def measured(folder: Path, minutes: float) -> list[dict[str, float]]:
    """The night in a process of its own, looked at every half a minute until it ends."""
    limits = {"max_trials": 10_000, "max_hours": (60 * minutes + CLOSING_S) / 3600}
    samples: list[dict[str, float]] = []
    begun = time.monotonic()
    with worked(folder, limits, STEPS) as process:
        while True:
            try:
                process.wait(EVERY_S * (len(samples) + 1) - (time.monotonic() - begun))
                return samples
            except subprocess.TimeoutExpired:
                samples.append({"at": time.monotonic() - begun, **sample(process.pid, folder)})
                (folder / "samples.json").write_text(json.dumps(samples), encoding="utf-8")


@contextmanager
def worked(folder: Path, limits: Mapping[str, float], steps: int) -> Iterator["subprocess.Popen[bytes]"]:
    """The night in a process of its own, on a terminal that nobody looks at; waited for at the end."""
    subprocess.run([sys.executable, __file__, "prepare", str(folder)], check=True, capture_output=True)
    command = [sys.executable, __file__, "night", str(folder), json.dumps(limits), str(steps)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with terminal() as screen, (folder / "errors.txt").open("wb") as errors:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=errors, stderr=screen)
        yield process
        assert process.wait() == 0, (folder / "errors.txt").read_text(encoding="utf-8")


def sample(pid: int, folder: Path) -> dict[str, float]:
    """What the process holds now, and what lies on the disk."""
    jobs = folder / ".hfagent" / "jobs"
    reports = folder / "training_reports"
    logs = list(jobs.glob("*/log.txt"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return {
        "jobs": len(list(jobs.glob("*/exit.json"))),
        "memory": kibibytes(pid, "VmRSS") / 1024,
        "own memory": kibibytes(pid, "RssAnon") / 1024,
        "open files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": kibibytes(pid, "Threads"),
        "children": len(children),
        "cpu": processor_s(pid),
        "ledger": size(reports / f"{PROJECT}.jsonl"),
        "report": size(reports / f"{PROJECT}.md"),
        "plots": size(reports / PROJECT),
        "search journal": size(reports / f"{PROJECT}.optuna.log"),
        "Trackio store": size(folder / ".hfagent" / "trackio"),
        "job logs": sum(map(size, logs)),
        "job folders": size(jobs),
        "all files": size(reports) + size(folder / ".hfagent"),
    }


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder; a file that goes meanwhile counts as nothing."""
    total = 0
    for file in [path] if path.is_file() else path.rglob("*"):
        try:
            total += 0 if file.is_symlink() or file.is_dir() else file.stat().st_size
        except FileNotFoundError:
            continue
    return total


class Span(NamedTuple):
    """When a job ran, by its supervisor."""

    key: str
    start: float
    end: float


def spans(folder: Path) -> list[Span]:
    """The jobs of a night, one after the other."""
    found = []
    for path in (folder / ".hfagent" / "jobs").glob("*/exit.json"):
        end = json.loads(path.read_text(encoding="utf-8"))
        times = (datetime.fromisoformat(end[name]).timestamp() for name in ("started_at", "finished_at"))
        found.append(Span(path.parent.name, *times))
    return sorted(found, key=lambda span: span.start)


def slope(samples: Sequence[Mapping[str, float]], name: str) -> tuple[float, float, float]:
    """Change an hour after the first quarter, with its 95 % interval, by the means of blocks."""
    from scipy.stats import linregress, t

    first, last = samples[0]["at"] + (samples[-1]["at"] - samples[0]["at"]) / 4, samples[-1]["at"]
    count = max(3, round((last - first) / BLOCK_S))
    blocks: list[list[Mapping[str, float]]] = [[] for _ in range(count)]
    for seen in samples:
        if seen["at"] >= first:
            blocks[min(int((seen["at"] - first) / (last - first) * count), count - 1)].append(seen)
    filled = [block for block in blocks if block]
    hours = [mean(seen["at"] for seen in block) / 3600 for block in filled]
    fit = linregress(hours, [mean(seen[name] for seen in block) for block in filled])
    reach = t.ppf(0.975, len(filled) - 2) * fit.stderr
    return fit.slope, fit.slope - reach, fit.slope + reach


class Part(NamedTuple):
    """A part of the night, by the samples at both ends of it."""

    name: str
    first: Mapping[str, float]
    last: Mapping[str, float]

    def a_job(self, name: str) -> float:
        """What a job adds."""
        return (self.last[name] - self.first[name]) / max(self.last["jobs"] - self.first["jobs"], 1)

    @property
    def cpu(self) -> float:
        """Percent of a core."""
        return 100 * (self.last["cpu"] - self.first["cpu"]) / (self.last["at"] - self.first["at"])


def parts(samples: Sequence[Mapping[str, float]]) -> list[Part]:
    """First quarter, middle half and last quarter."""
    ends = [samples[round((len(samples) - 1) * share / 4)] for share in (0, 1, 3, 4)]
    names = ("First quarter", "Middle half", "Last quarter")
    return [Part(name, *pair) for name, pair in zip(names, pairwise(ends), strict=True)]


def gaps(jobs: Sequence[Span]) -> list[tuple[float, float]]:
    """Of each job but the first: seconds since the first one began, and those in which none ran before it."""
    return [(later.start - jobs[0].start, later.start - earlier.end) for earlier, later in pairwise(jobs)]


def judged(samples: Sequence[Mapping[str, float]], jobs: Sequence[Span]) -> list[tuple[str, str, str, bool]]:
    """What was to be shown, what was measured, the limit, whether it is held."""
    first, _, last = parts(samples)
    change, low, high = slope(samples, "own memory")
    hours = (samples[-1]["at"] - first.last["at"]) / 3600
    a_job, most = (rate * hours / (samples[-1]["jobs"] - first.last["jobs"]) for rate in (change, high))
    found = [
        (
            "Own memory, after the first quarter",
            f"{change:+.1f} MB an hour (95 % interval {low:+.1f} to {high:+.1f}), {1024 * a_job:.0f} KB a job, at most "
            f"{1024 * most:.0f}",
            f"{1024 * MEMORY_A_JOB:.0f} KB a job",
            most <= MEMORY_A_JOB,
        )
    ]
    for name in ("open files", "threads", "children"):
        early = median(seen[name] for seen in samples if seen["at"] <= first.last["at"])
        late = median(seen[name] for seen in samples if seen["at"] >= last.first["at"])
        found.append(
            (f"{name.capitalize()}, median of the last quarter", f"{late:g}", f"{early:g}, as at first", late <= early)
        )
    for name in SIZES:
        early, late = first.a_job(name), last.a_job(name)
        limit = max(early * TIMES, 1024)
        held = f"{limit / 1024:.1f} KB"
        found.append((f"A job adds to {name} in the last quarter", f"{late / 1024:.1f} KB", held, late <= limit))
    share = (jobs[-1].start - jobs[0].start) / 4
    between = gaps(jobs)
    early, late = median(s for at, s in between if at <= share), median(s for at, s in between if at >= 3 * share)
    found.append(
        (
            "Between two jobs, median of the last quarter",
            f"{late:.2f} s",
            f"{TIMES * early:.2f} s",
            late <= TIMES * early,
        )
    )
    found.append(("Processor, last quarter", f"{last.cpu:.1f} % of a core", f"{CPU:.0f} %", last.cpu <= CPU))
    return found


def page(samples: Sequence[Mapping[str, float]], folder: Path, *, minutes: float, commit: str) -> tuple[str, bool]:
    """The page, and whether all limits are held."""
    from hfagent.agent.folding import fold
    from hfagent.agent.ledger import read

    state = fold(read(folder / "training_reports" / f"{PROJECT}.jsonl"))
    assert state is not None
    assert state.ended is not None
    jobs, found = spans(folder), parts(samples)
    verdicts = judged(samples, jobs)
    took, between = (jobs[-1].end - jobs[0].start) / 60, gaps(jobs)
    extended = sum(run.spec.parent is not None for run in state.trained)
    rows = [
        ("Minutes since the start", [f"{part.last['at'] / 60:.0f}" for part in found]),
        ("Jobs so far", [f"{part.last['jobs']:.0f}" for part in found]),
        ("Memory (RSS), MB", [f"{part.last['memory']:.0f}" for part in found]),
        ("Own memory (without files mapped), MB", [f"{part.last['own memory']:.0f}" for part in found]),
        *((name.capitalize(), [f"{part.last[name]:.0f}" for part in found]) for name in ("open files", "threads")),
        ("Processor, % of a core in this part", [f"{part.cpu:.1f}" for part in found]),
        ("Between two jobs in this part, median s", [_between(between, samples, part) for part in found]),
        *((f"{name[0].upper()}{name[1:]}, KB", [f"{part.last[name] / 1024:.0f}" for part in found]) for name in SIZES),
    ]
    lines = [
        "# One night of hundreds of jobs in one process",
        "",
        f"Made by `python benchmarks/soak.py --minutes {minutes:g}` at commit {commit}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} processors that others used, too (load average now "
        f"{os.getloadavg()[0]:.1f}), Python {platform.python_version()}. The night took {took:.0f} minutes with "
        f"{len(jobs)} jobs one after the other: {len(state.trained)} trainings, {extended} of them extensions, of "
        f"{len(state.trials)} sets of hyperparameters, and {len(jobs) - len(state.trained)} others; it ended as "
        f"`{state.ended.state}`. All but the two job scripts is what `hfagent` runs: planning, checks, loop, rules, "
        "search, ledger, report, plots, terminal, supervisors, subprocesses, Trackio. A training logs a row a "
        f"second for {STEPS} s, an evaluation takes 5 s for {PROBLEMS} problems. Looked at from another process every "
        f"{EVERY_S:.0f} s; a size is the one at the end of the part.",
        "",
        f"| What | {' | '.join(part.name for part in found)} |",
        "| --- | --- | --- | --- |",
        *(f"| {name} | {' | '.join(values)} |" for name, values in rows),
        "",
        "| Judged | Measured | Limit | |",
        "| --- | --- | --- | --- |",
        *(f"| {what} | {value} | {limit} | {'held' if held else 'missed'} |" for what, value, limit, held in verdicts),
        "",
        f"The slope is of the means of blocks of {BLOCK_S / 60:.0f} minutes. Memory is not meant to stay the same: a "
        "night holds its events and state, 60 KB a job here (by `tracemalloc`), most of it the answers of evaluations. "
        "What files a job may add is "
        f"{TIMES:g} times what one added in the first quarter, or 1 KB: they grow with the jobs and not faster.",
    ]
    return "\n".join(lines) + "\n", all(held for *_, held in verdicts)


def _between(between: Sequence[tuple[float, float]], samples: Sequence[Mapping[str, float]], part: Part) -> str:
    whole = samples[-1]["at"] - samples[0]["at"]
    share = [(part.first["at"] - samples[0]["at"]) / whole, (part.last["at"] - samples[0]["at"]) / whole]
    last = between[-1][0]
    inside = [seconds for at, seconds in between if share[0] * last <= at <= share[1] * last]
    return f"{median(inside):.2f}"


def revision() -> str:
    """The commit that is measured."""
    git = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, cwd=HERE, check=False).stdout.strip() or "unknown"


def main() -> Any:
    """Measure and write, or play one of the other processes."""
    if sys.argv[1:2] == ["night"]:
        return night(Path(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4]))
    if sys.argv[1:2] == ["prepare"]:
        return prepare(Path(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--folder", type=Path, help="kept; the default is a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = (args.folder or Path(made)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        commit = revision()
        text, held = page(measured(folder, args.minutes), folder, minutes=args.minutes, commit=commit)
    (HERE / "soak.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
