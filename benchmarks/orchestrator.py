"""What hfagent itself costs: folding long ledgers, large projects, its start, and the time between two jobs.

    python benchmarks/orchestrator.py

Writes `benchmarks/orchestrator.md`. Times are of this process (CPU) or on the wall, as said in each row.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from nights import PLAN, Night  # noqa: E402

from hfagent.agent.chain import BEGIN, link  # noqa: E402
from hfagent.agent.events import Event, MetricsLogged, to_line  # noqa: E402
from hfagent.agent.folding import fold  # noqa: E402
from hfagent.agent.ledger import read  # noqa: E402
from hfagent.agent.records import MetricPoint, RunSpec  # noqa: E402
from hfagent.agent.report import render  # noqa: E402

TRIES = 3


class Row(NamedTuple):
    """One measurement."""

    what: str
    seconds: float
    limit_s: float | None
    how: str


def long_ledger(runs: int, rows: int) -> list[Event]:
    """Training runs one after the other, each of whose rows is an event."""
    night = Night(PLAN)
    night.prepare()
    for number in range(1, runs + 1):
        name = f"sft-{number:02d}"
        key = night.begin(RunSpec(name=name, kind="train", why="a benchmark", train=PLAN.train))
        for step in range(1, rows + 1):
            night.at += timedelta(seconds=2)
            values: dict[str, float | None] = {"train/loss": 2.0, "train/learning_rate": 1e-3, "train/grad_norm": 0.5}
            night.add(MetricsLogged(run=name, points=(MetricPoint(step=step, values=values),)))
        night.end(key, seconds=60, result={"adapter": f"/models/{name}"})
        night.decide("discard", name, "discard", "a benchmark")
    return night.events


def write(events: Sequence[Event], path: Path) -> None:
    """The ledger as hfagent writes it, without waiting for the disk."""
    head = BEGIN
    with path.open("wb") as file:
        for event in events:
            line = to_line(event, prev=head).encode()
            head = link(line)
            file.write(line + b"\n")


def best(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """The fastest of a few tries."""
    times = []
    for _ in range(TRIES):
        begun = clock()
        work()
        times.append(clock() - begun)
    return min(times)


def ledgers() -> list[Row]:
    """Long ledgers and large projects."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{PLAN.project}.jsonl"
        for runs, steps in ((1000, 95), (7, 14_000)):
            events = long_ledger(runs, steps)
            write(events, path)
            what = f"{len(events):,} events, {runs:,} runs"
            rows.append(Row(f"fold of {what}", best(partial(fold, events)), 1.0, "CPU"))
            size = path.stat().st_size / 1e6
            rows.append(Row(f"read of {what}, {size:.0f} MB, with its chain", best(partial(read, path)), None, "CPU"))
            if runs < 1000:
                continue
            state = fold(events)
            assert state is not None
            rows.append(Row(f"report of {runs:,} runs", best(partial(render, state)), None, "CPU"))
        write(long_ledger(1000, 5), path)
        status = [sys.executable, "-m", "hfagent", "status", "--json", "--reports-dir", folder]
        seconds = best(lambda: subprocess.run(status, check=True, capture_output=True), time.perf_counter)
        rows.append(Row("`hfagent status` of 1,000 runs", seconds, None, "wall"))
    return rows


def starts() -> list[Row]:
    """From the call to the first word, and to the first event."""
    help_ = [sys.executable, "-m", "hfagent", "--help"]
    answer = best(lambda: subprocess.run(help_, check=True, capture_output=True), time.perf_counter)
    first = best_first()
    return [
        Row("`hfagent --help`", answer, 0.3, "wall"),
        Row("first event of a night", first[0], 1.0, "wall"),
        Row("the same, what it computes", first[1], None, "CPU"),
    ]


def best_first() -> tuple[float, float]:
    """Seconds from `hfagent "goal" --yes` to the first line of its ledger: on the wall, and of the CPU."""
    found = []
    for _ in range(TRIES):
        with tempfile.TemporaryDirectory() as folder:
            goal = ["improve code solving with SFT", "--yes", "--quick", "--project", "first"]
            begun = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "hfagent", *goal], cwd=folder, env={**os.environ, "HF_HUB_OFFLINE": "1"},
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            path = Path(folder) / "training_reports" / "first.jsonl"
            while process.poll() is None and not (path.exists() and path.stat().st_size):
                time.sleep(0.002)
            wall = time.perf_counter() - begun
            process.kill()
            used = os.wait4(process.pid, 0)[2]
            found.append((wall, used.ru_utime + used.ru_stime))
    return min(found)


def between_jobs() -> list[Row]:
    """From the end of a job to the next one's intent on disk, with report and plots, on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        night = HERE.parent / "tests" / "process_night.py"
        subprocess.run([sys.executable, str(night), folder, "0.3"], check=True, capture_output=True)
        path = Path(folder) / "night.jsonl"
        ends = {
            file.parent.name: datetime.fromisoformat(json.loads(file.read_text())["finished_at"])
            for file in (Path(folder) / "jobs").glob("*/exit.json")
        }
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    waits, last = [], None
    for line in lines:
        if line["kind"] == "job_ended":
            last = ends[line["key"]]
        elif line["kind"] == "job_intended" and last is not None:
            waits.append((datetime.fromisoformat(line["at"]) - last).total_seconds())
    return [
        Row(f"end of a job to the next one, median of {len(waits)}", median(waits), 0.3, "wall"),
        Row("the same, longest", max(waits), None, "wall"),
    ]


def main() -> None:
    """Measure and write the table."""
    rows = [*starts(), *between_jobs(), *ledgers()]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=True
    ).stdout.strip()
    here, load = platform.uname(), os.getloadavg()[0]
    lines = [
        "# What the orchestrator costs",
        "",
        f"Made by `python benchmarks/orchestrator.py` at commit {commit}, {here.system} {here.machine}, "
        f"{os.cpu_count()} processors, Python {platform.python_version()}, load average {load:.1f}. Best of {TRIES}, "
        "unless a row says so.",
        "",
        "| What | Seconds | Limit | Clock |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        limit = "" if row.limit_s is None else f"{row.limit_s:g}" + ("" if row.seconds <= row.limit_s else ", missed")
        lines.append(f"| {row.what} | {row.seconds:.2f} | {limit} | {row.how} |")
    (HERE / "orchestrator.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
