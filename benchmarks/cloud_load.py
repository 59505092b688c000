"""What a night costs while its jobs run elsewhere: requests, memory and processor time of `hfagent` beside 100 jobs.

    python benchmarks/cloud_load.py [--jobs 100] [--seconds 90]

The jobs are those of the emulator of the tests, in a process of its own. Linux only. Writes `benchmarks/cloud_load.md`.
"""

import argparse
import fcntl
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
PROJECT = "load"
SETTLED_S = 40.0
"""After the start, until all jobs are attached and their starts are recorded."""
LIMITS = {"requests": 2.0, "memory": 150.0, "cpu": 1.0}


def serve(root: str) -> None:
    """The emulator; its jobs run until it is ended."""
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    from tests.emulator.jobs import Behavior, Jobs
    from tests.emulator.server import Emulator

    jobs = Jobs(lambda body: Behavior(idle_s=3600.0))

    async def asked(request: Request) -> JSONResponse:
        return JSONResponse([seen.path for seen in emulator.requests if seen.path != "/asked"])

    with Emulator(Path(root), extra=lambda hub: [Route("/asked", asked), *jobs.routes(hub)]) as emulator:
        token = emulator.hub.add_user("ada")
        variables = emulator.variables(token) | {"HFAGENT_JOB_MOUNT": str(emulator.hub.bucket_folder("ada", "hfagent"))}
        print(json.dumps(variables), flush=True)  # noqa: T201 - read by the other process
        sys.stdin.read()


def launch(root: str, number: int) -> None:
    """A confirmed project with so many jobs."""
    from hfagent.agent.events import PlanConfirmed, PlanMade
    from hfagent.agent.job_desk import JobDesk
    from hfagent.agent.ledger import open_ledger
    from hfagent.agent.records import JobSpec, Plan, RunSpec
    from hfagent.agent.settings import load
    from hfagent.agent.wiring import as_planned, night_ports

    benchmark = {"name": "procedural_python", "n": 80}
    plan = Plan.model_validate(
        {
            "project": PROJECT, "goal": "a benchmark", "task_area": "code", "method": "sft", "backend": "hf",
            "model": {"id": "embedded:SmolLM2-135M-Instruct"}, "dataset": {"id": "embedded:procedural-python"},
            "search": benchmark | {"set": "search"}, "confirm": benchmark | {"set": "confirm"}, "train": {},
            "evaluation": {}, "flavor": "cpu-basic", "price_micro_usd_per_hour": 10_020, "namespace": "ada",
            "trackio_url": "https://ada-trackio.hf.space", "trackio_space": "ada/trackio",
        }
    )  # fmt: skip
    settings = as_planned(load({}, cwd=Path(root), env=os.environ), plan)
    ports = night_ports(settings)
    with open_ledger(settings.reports_dir / f"{PROJECT}.jsonl", ports.clock) as book:
        book.append(PlanMade(plan=plan, versions={}))
        book.append(PlanConfirmed(by="--yes"))
        desk = JobDesk(book, ports)
        for at in range(number):
            run = RunSpec(name=f"r{at}", kind="evaluate", why="a benchmark", set="search")
            job = JobSpec(
                key=f"{plan.label}-{run.name}-a1", project=PROJECT, run=run.name, kind=run.kind, template="evaluate.py",
                args=(), flavor=plan.flavor, timeout_s=3600, price_micro_usd_per_hour=plan.price_micro_usd_per_hour,
            )  # fmt: skip
            desk.start(run, job)


def measured(number: int, seconds: float) -> dict[str, float]:
    """Requests a look, megabytes, and percent of a core, of a process that goes on with the project on a terminal."""
    with tempfile.TemporaryDirectory() as root, started("serve", f"{root}/hub") as server:
        assert server.stdout is not None
        env = {**os.environ, **json.loads(server.stdout.readline())}
        command = [sys.executable, __file__, "launch", root, str(number)]
        subprocess.run(command, env=env, check=True)
        resume = [sys.executable, "-m", "hfagent", "resume", PROJECT]
        with terminal() as screen, subprocess.Popen(resume, cwd=root, env=env, stdout=screen, stderr=screen) as night:
            time.sleep(SETTLED_S)
            ledger = Path(root, "training_reports", f"{PROJECT}.jsonl").read_text(encoding="utf-8")
            assert ledger.count('"kind":"job_started"') == number, "not all jobs are attached: raise SETTLED_S"
            used, asked, begun = processor_s(night.pid), requests(env), time.monotonic()
            time.sleep(seconds)
            took, paths = time.monotonic() - begun, requests(env)[len(asked) :]
            used = processor_s(night.pid) - used
            memory = {name: kibibytes(night.pid, name) / 1024 for name in ("VmRSS", "VmHWM")}
            night.terminate()
        looks = paths.count("/api/jobs/ada")
    return {
        "looks": looks,
        "requests": len(paths) / max(looks, 1),
        "memory": memory["VmRSS"],
        "peak": memory["VmHWM"],
        "cpu": 100 * used / took,
    }


@contextmanager
def started(role: str, *args: str) -> Iterator["subprocess.Popen[str]"]:
    """This script in another process, until its stdin ends."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, __file__, role, *args], stdin=pipe, stdout=pipe, text=True) as process:
        yield process


@contextmanager
def terminal() -> Iterator[int]:
    """A terminal that nobody looks at."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))

    def read() -> None:
        with suppress(OSError):  # the other end is closed
            while os.read(ours, 1 << 16):
                pass

    threading.Thread(target=read, daemon=True).start()
    try:
        yield theirs
    finally:
        os.close(theirs)


def requests(env: Mapping[str, str]) -> list[str]:
    """The paths that the emulator was asked for so far."""
    with urllib.request.urlopen(f"{env['HF_ENDPOINT']}/asked") as answer:  # noqa: S310 - on loopback
        return list(json.load(answer))


def processor_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kibibytes(pid: int, name: str) -> int:
    """A line of a process's memory."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def table(found: Mapping[str, float], args: argparse.Namespace) -> str:
    """The page."""
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, cwd=HERE, check=False).stdout.strip() or "unknown"
    rows: list[tuple[str, str, str]] = [
        ("Requests to the Hub a look, every 15 s", f"{found['requests']:.1f}", f"{LIMITS['requests']:.0f}"),
        ("Memory (RSS)", f"{found['memory']:.0f} MB, at most {found['peak']:.0f} MB", f"{LIMITS['memory']:.0f} MB"),
        ("Processor", f"{found['cpu']:.2f} % of a core", f"{LIMITS['cpu']:.0f} %"),
    ]
    lines = [
        "# A night beside many jobs elsewhere",
        "",
        f"Made by `python benchmarks/cloud_load.py --jobs {args.jobs} --seconds {args.seconds:g}` at commit {commit}, "
        f"on {os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}: `hfagent resume` on a "
        f"terminal, with {args.jobs} running evaluations of one project on the emulator, over {found['looks']:.0f} "
        "looks. A training asks its metrics server twice a look on top.",
        "",
        "| What | Measured | Limit |",
        "| --- | --- | --- |",
        *(f"| {name} | {value} | {limit} |" for name, value, limit in rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> Any:
    """Measure and write, or play one of the other processes; 1 where a limit is missed."""
    if sys.argv[1:2] == ["serve"]:
        return serve(sys.argv[2])
    if sys.argv[1:2] == ["launch"]:
        return launch(sys.argv[2], int(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=90.0)
    args = parser.parse_args()
    found = measured(args.jobs, args.seconds)
    text = table(found, args)
    (HERE / "cloud_load.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return int(any(found[name] > limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
