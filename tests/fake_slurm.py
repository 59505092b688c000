"""The command-line tools of Slurm 22.05, as far as hfagent calls them, over a folder of JSON. Nothing runs by itself.

    python tests/fake_slurm.py FOLDER TOOL ARGUMENTS...

Tests write to the same folder through `FakeSlurm`: they start jobs, end them, forget them, and break the tools.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

AWAY = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


class FakeSlurm:
    """A Slurm without machines.

    Args:
        folder: of the tools and of what they know.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"

    def install(self) -> None:
        """Make the tools."""
        self.bin.mkdir(parents=True)
        for tool in ("sbatch", "squeue", "scancel", "sinfo", "sacct"):
            path = self.bin / tool
            path.write_text(f'#!/bin/sh\nexec {sys.executable} -S {__file__} {self.folder} {tool} "$@"\n')
            path.chmod(0o755)
        self.write("jobs", [])

    def read(self, name: str, default: Any = None) -> Any:
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else default

    def write(self, name: str, value: Any) -> None:
        (self.folder / f"{name}.json").write_text(json.dumps(value))

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """All that it knows, in the order of their submits."""
        return list(self.read("jobs"))

    def calls(self, tool: str) -> list[list[str]]:
        """The arguments of each call of a tool."""
        path = self.folder / "calls"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [arguments for called, arguments in lines if called == tool]

    def change(self, number: int, **fields: Any) -> None:
        """Set fields of a job, e.g. its state."""
        self.write("jobs", [job | fields if job["number"] == number else job for job in self.jobs])

    def forget(self, *numbers: int) -> None:
        """Know no more of these jobs, as after `MinJobAge` or a crash."""
        self.write("jobs", [job for job in self.jobs if job["number"] not in numbers])

    def break_tool(self, tool: str, error: str = "", *, after: bool = False, sleep_s: float = 0.0) -> None:
        """Have a tool fail until `mend`, before it does its work or after."""
        self.write("faults", self.read("faults", {}) | {tool: {"error": error, "after": after, "sleep_s": sleep_s}})

    def mend(self) -> None:
        """No tool fails any more."""
        self.write("faults", {})

    def start(self, number: int) -> subprocess.Popen[bytes]:
        """Run a job's script as slurmd does."""
        job = next(job for job in self.jobs if job["number"] == number)
        self.change(number, state="RUNNING", reason="None")
        with (Path(job["chdir"]) / f"slurm-{number}.out").open("ab") as out:
            env = {name: value for name, value in job["env"].items() if name.startswith("SLURM_")}
            env |= {"PATH": os.environ["PATH"], "SLURM_JOB_ID": str(number), "CUDA_VISIBLE_DEVICES": "7"}
            script = Path(job["chdir"]) / ".script"
            script.write_text(job["script"])
            return subprocess.Popen(["sh", str(script)], stdout=out, stderr=out, env=env, cwd=job["chdir"])


def sbatch(slurm: FakeSlurm, arguments: list[str]) -> str:
    options = dict(argument[2:].partition("=")[::2] for argument in arguments)
    if "test-only" in options:
        sys.stderr.write("sbatch: Job 1 to start at 2026-01-01T00:00:00 using 1 processors on nodes n1\n")
        return ""
    number = slurm.read("next", 1)
    slurm.write("next", number + 1)
    job = {
        "number": number, "name": options["job-name"], "comment": options["comment"], "chdir": options["chdir"],
        "minutes": int(options["time"]), "script": sys.stdin.read(), "env": dict(os.environ),
        "state": "PENDING", "reason": "Resources",
    }  # fmt: skip
    slurm.write("jobs", [*slurm.jobs, job])
    return f"A word from the site\n{number};cluster\n"


def squeue(slurm: FakeSlurm, arguments: list[str]) -> str:
    if "--version" in arguments:
        return "slurm 22.05.8\n"
    assert "--format=%A|%T|%r|%j|%k" in arguments
    return "".join("{number}|{state}|{reason}|{name}|{comment}\n".format(**job) for job in slurm.jobs)


def scancel(slurm: FakeSlurm, arguments: list[str]) -> str:
    name = next(text.partition("=")[2] for text in arguments if text.startswith("--name="))
    waiting = "--state=PENDING" in arguments
    for job in slurm.jobs:
        same = job["name"] == name and str(job["number"]) in arguments
        if same and job["state"] in (("PENDING",) if waiting else ("PENDING", "RUNNING")):
            slurm.change(job["number"], state="CANCELLED", reason="None")
    return ""


def sinfo(slurm: FakeSlurm, arguments: list[str]) -> str:
    return "".join(f"{row}\n" for row in slurm.read("partitions", ["main*|up|(null)|infinite"]))


def sacct(slurm: FakeSlurm, arguments: list[str]) -> str:
    rows = slurm.read("accounting")
    if rows is None:
        sys.exit("Slurm accounting storage is disabled")
    return "".join(f"{row}\n" for row in rows)


def main(folder: str, tool: str, arguments: list[str]) -> None:
    slurm = FakeSlurm(Path(folder))
    with (slurm.folder / "calls").open("a") as calls:
        calls.write(json.dumps([tool, arguments]) + "\n")
    fault = slurm.read("faults", {}).get(tool)
    tools = {"sbatch": sbatch, "squeue": squeue, "scancel": scancel, "sinfo": sinfo, "sacct": sacct}
    said = "" if fault is not None and not fault["after"] else tools[tool](slurm, arguments)
    if fault is not None:
        time.sleep(fault["sleep_s"])
        sys.exit(f"{tool}: error: {fault['error']}")
    sys.stdout.write(said)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
