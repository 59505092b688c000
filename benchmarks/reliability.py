"""What a night survives: it, or what it rests on, is killed; and each fault of the fault table.

    python benchmarks/reliability.py [--instants 500] [--seed 1]

Writes `docs/reliability.md`. A killed night is begun again until it has ended, and must then tell the facts, the claim
and the jobs of a night that nobody disturbed; so must one whose supervisors, jobs or endpoint are killed. The fault
table is the tests that have a fault as their docstring.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"
sys.path.insert(0, str(TESTS))

import endpoint  # noqa: E402
import process_night as real  # noqa: E402
from told import facts, without_lost  # noqa: E402
from world import SKILL, KilledError, World, at_desk, night, work  # noqa: E402

from hfagent.agent.events import Event, JobIntended  # noqa: E402
from hfagent.agent.ledger import is_confirmed, read  # noqa: E402
from hfagent.agent.planner_facts import PlannerCalled  # noqa: E402
from hfagent.tools.job_processes import descendants  # noqa: E402

JOB_S = 0.05
MAX_KILL_S = 0.35
KILLS_PER_JOB_KILL = 5
"""Kills of hfagent for each kill of a supervisor, and for each of a job's own process."""
FAULTS = (
    "test_disk.py", "test_clock.py", "test_signals.py", "test_old_ledgers.py", "test_local_jobs.py", "test_metrics.py",
    "test_metrics_http.py", "test_verify.py", "test_leases.py", "test_kills.py",
)  # fmt: skip


class Sweep(NamedTuple):
    """Nights that were killed, and how they ended."""

    nights: int
    kills: int
    same: int
    """Nights with the facts and the claim of an undisturbed one, each of its jobs started once, and again if lost."""
    seconds: float

    def row(self, name: str) -> str:
        """Of the table."""
        return f"| {name} | {self.kills} | {self.nights} | {self.same} | {self.seconds:.0f} s |"


def boundaries() -> Sweep:
    """A night of fakes, killed after each of its events in turn, and between each submit and its record."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.jsonl"
        night(whole, World(SKILL))
        expected, last = facts(whole), read(whole)[-1].seq
        jobs = sum(isinstance(event.fact, JobIntended) for event in read(whole))
        ways: list[Callable[[World, Any], None]] = [_after(seq) for seq in range(3, last)]
        ways += [_within_submit(number) for number in range(1, jobs + 1)]
        same = 0
        for number, way in enumerate(ways):
            path, world = Path(folder) / f"{number}.jsonl", World(SKILL)
            with at_desk(path, world) as desk:
                way(world, desk)
                try:
                    work(desk)
                except KilledError:
                    pass
                else:
                    raise AssertionError("the night was not killed")
            world.runner.__dict__.pop("submit", None)
            night(path, world)
            same += facts(path) == expected and len(world.runner.submits) == jobs
    return Sweep(len(ways), len(ways), same, time.monotonic() - begun)


def _after(seq: int) -> Callable[[World, Any], None]:
    def kill(event: Event) -> None:
        if event.seq == seq:
            raise KilledError

    return lambda world, desk: desk.ledger.subscribe(kill)


def _within_submit(number: int) -> Callable[[World, Any], None]:
    def way(world: World, desk: Any) -> None:
        submit = world.runner.submit

        def dying(spec: Any) -> Any:
            job = submit(spec)
            if len(world.runner.submits) == number:
                raise KilledError
            return job

        world.runner.submit = dying  # type: ignore[method-assign]

    return way


def instants(kills: int, seed: int) -> Sweep:
    """Nights of real processes, killed by SIGKILL at random instants until so many kills were made."""
    draw, begun = random.Random(seed), time.monotonic()  # noqa: S311 - no secret
    nights = made = same = 0
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        assert _process(whole, None) == 0
        expected, jobs = facts(whole / "night.jsonl"), real.starts(whole)
        while made < kills:
            place = Path(folder) / str(nights)
            while (code := _process(place, draw.uniform(0, MAX_KILL_S) if made < kills else None)) != 0:
                assert code == -signal.SIGKILL, code
                made += 1
            nights += 1
            alike = facts(place / "night.jsonl") == expected and real.starts(place) == jobs
            same += alike
            sys.stderr.write(f"{made} kills, {nights} nights, {same} the same, {time.monotonic() - begun:.0f} s\n")
    return Sweep(nights, made, same, time.monotonic() - begun)


def victims(kills: int, seed: int, *, supervisors: bool) -> Sweep:
    """Nights of which jobs' supervisors, or their own processes, are killed at random instants, once a job."""
    draw, begun = random.Random(seed), time.monotonic()  # noqa: S311 - no secret
    nights = made = same = 0
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        assert _process(whole, None) == 0
        expected = without_lost(whole / "night.jsonl")
        while made < kills:
            place, struck = Path(folder) / str(nights), set[str]()
            pid = _begun(place)
            while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
                time.sleep(draw.uniform(0, 2 * JOB_S))
                made += made < kills and _strike(place, struck, supervisor=supervisors)
            assert os.waitstatus_to_exitcode(ended[1]) == 0
            nights += 1
            same += without_lost(place / "night.jsonl") == expected and max(real.starts(place).values()) == 1
            sys.stderr.write(f"{made} kills of jobs, {nights} nights, {same} the same\n")
    return Sweep(nights, made, same, time.monotonic() - begun)


def _strike(place: Path, struck: set[str], *, supervisor: bool) -> bool:
    """Kill a running job's supervisor or its own process, unless that was done to it; whether there was one."""
    for run in place.glob("jobs/*-a1/run.json"):
        if run.parent.name not in struck and not (run.parent / "exit.json").exists():
            above = int(json.loads(run.read_text())["pid"])
            victim = above if supervisor else next(iter(descendants(above)), None)
            with contextlib.suppress(ProcessLookupError):
                if victim is not None:
                    os.kill(victim, signal.SIGKILL)
                    struck.add(run.parent.name)
                    return True
    return False


def endpoints() -> Sweep:
    """Nights that a model plans, whose endpoint is killed at each request in turn."""
    begun, nights, same = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        rules, whole = Path(folder) / "rules.jsonl", Path(folder) / "whole.jsonl"
        night(rules, World(SKILL))
        expected = facts(rules)
        endpoint.planned(whole, -1, "asked", "never")
        assert facts(whole) == expected
        for number in range(sum(isinstance(event.fact, PlannerCalled) for event in read(whole))):
            for at, back in enumerate(endpoint.RETURNS):
                path = Path(folder) / f"{nights}.jsonl"
                endpoint.planned(path, number, endpoint.MOMENTS[(number + at) % len(endpoint.MOMENTS)], back)
                nights += 1
                same += facts(path) == expected
            sys.stderr.write(f"{nights} nights whose endpoint was killed, {same} the same\n")
    return Sweep(nights, nights, same, time.monotonic() - begun)


def _process(folder: Path, killed_after_s: float | None) -> int:
    """A night in a process of its own, begun or resumed; how it ended."""
    pid = _begun(folder)
    if killed_after_s is not None:
        time.sleep(killed_after_s)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _begun(folder: Path) -> int:
    """The process of a night, begun or resumed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            folder.mkdir(exist_ok=True)
            path = folder / "night.jsonl"
            there = World(SKILL)
            there.runner = real.PlannedJobs(folder, seconds=JOB_S)  # type: ignore[assignment]
            there.tracker = real.KnownLosses()  # type: ignore[assignment]
            there.clock = real.SystemClock()  # type: ignore[assignment]
            if path.exists() and not is_confirmed(path):
                path.unlink()  # as `hfagent resume` says: a plan that nobody confirmed is begun anew
            resumed = path.exists()
            with at_desk(path, there, backend="local") as desk:
                work(desk, poll_s=0.2, resumed_by=os.getpid() if resumed else None)
            code = 0
        except Exception:  # noqa: BLE001 - told, and then counted by the exit code
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


class Faults:
    """A plugin of pytest: outcomes by fault, from the first line of a test's docstring."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.outcomes: dict[str, Counter[str]] = {}

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Note what the test does."""
        said = getattr(getattr(item, "function", None), "__doc__", None)
        if said:
            self.names[item.nodeid] = said.strip().splitlines()[0].rstrip(".")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what is no fault."""
        items[:] = [item for item in items if item.nodeid in self.names]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count."""
        if report.when == "call" or report.outcome != "passed":
            name = self.names[report.nodeid]
            self.outcomes.setdefault(name, Counter())[report.outcome] += 1


def fault_table() -> dict[str, Counter[str]]:
    """Fault -> outcomes of its tests."""
    faults = Faults()
    pytest.main(["-q", "-p", "no:cacheprovider", *(str(TESTS / name) for name in FAULTS)], plugins=[faults])
    return faults.outcomes


def text(sweeps: dict[str, Sweep], random_: Sweep, faults: dict[str, Counter[str]], command: str) -> str:
    """The page."""
    here = platform.uname()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=True
    ).stdout.strip()
    lines = [
        "# Reliability",
        "",
        f"Made by `{command}` at commit {commit}, {here.system} {here.machine}, {os.cpu_count()} processors, Python "
        f"{platform.python_version()}. Nothing here needs a network or a GPU.",
        "",
        "## Kills",
        "",
        "A killed night is begun again until it ends. It is the same when it tells the facts, the claim and the jobs "
        "of a night that nobody disturbed, and each of its jobs was started once. A job whose supervisor or own "
        "process was killed is started once more; its lost attempt is left out of the comparison, and nothing else.",
        "",
        "| Night | Kills | Nights | The same | Wall clock |",
        "| --- | --- | --- | --- | --- |",
        *(sweep.row(name) for name, sweep in sweeps.items()),
        "",
        f"Zero losses in {random_.kills} kills of hfagent at random instants bound their share below "
        f"{100 * 3 / random_.kills:.1f} % (95 %)."
        if random_.same == random_.nights and random_.kills
        else "",
        "",
        "## Faults",
        "",
        "| Fault | Cases | Outcome |",
        "| --- | --- | --- |",
    ]
    for name, outcomes in faults.items():
        bad = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()) if outcome != "passed")
        lines.append(f"| {name} | {outcomes.total()} | {bad or 'as it should be'} |")
    return "\n".join([*lines, "", NOT_TESTED])


NOT_TESTED = """## Not shown here

- A real power loss: the ledger waits for the disk (`fsync`) at every line, and a torn line is simulated.
- Network file systems: locks and renames are those of a local disk.
- macOS and Windows.
- A ledger that was cut at its end, or written anew, together with the report beside it: `hfagent verify` finds that
  against a hash that was kept elsewhere (`--head`), and by nothing else.
- A training script that runs out of disk itself fails its run; the night goes on without it.
"""


def main() -> None:
    """Run it all and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instants", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "reliability.md")
    given = parser.parse_args()
    fewer = -(-given.instants // KILLS_PER_JOB_KILL)
    random_ = instants(given.instants, given.seed)
    sweeps = {
        "fakes, killed after each event and within each submit": boundaries(),
        "real processes, `kill -9` of hfagent at random instants": random_,
        "real processes, `kill -9` of jobs' supervisors at random instants": victims(
            fewer, given.seed, supervisors=True
        ),
        "real processes, `kill -9` of jobs' own processes at random instants": victims(
            fewer, given.seed, supervisors=False
        ),
        "planned by a model, `kill -9` of its endpoint before, amid or after its answer to each request; it is back "
        "before the rules take over, later, or never": endpoints(),
    }
    faults = fault_table()
    command = f"python benchmarks/reliability.py --instants {given.instants} --seed {given.seed}"
    given.out.write_text(text(sweeps, random_, faults, command), encoding="utf-8")


if __name__ == "__main__":
    main()
