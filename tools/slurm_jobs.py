"""Slurm as a queue, by its command-line tools; accounting is used where there is any.

A job is found by its name, the key, and its comment, the job's folder; its number is never trusted, for Slurm gives the
numbers of jobs that it has lost to others.
"""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from hfagent.agent.errors import BackendAway, JobError, SettingsError
from hfagent.tools import slurm_commands, slurm_states
from hfagent.tools.cluster_jobs import Entry, Start

SETTLE_S = 60.0
"""How long Slurm may take to show a job whose submit got no answer: its messages time out after 10 s, unless a site has
set more."""
MARGIN_S = 60.0
"""Between the supervisor's time limit and Slurm's."""
OURS = (
    "--job-name", "-J", "--comment", "--output", "-o", "--error", "-e", "--time", "-t", "--requeue", "--array", "-a",
    "--wrap", "--chdir", "-D", "--parsable", "--export", "--nodes", "-N", "--ntasks", "-n", "--wait", "-W",
)  # fmt: skip
"""Options of sbatch that hfagent sets, or that would break its jobs."""


class Wants(NamedTuple):
    """What a job asks of Slurm."""

    gres: str | None = None
    """As in sbatch, e.g. `gpu:1`."""
    cpus: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    options: str = ""
    """More options of sbatch, as in a shell."""

    def arguments(self) -> list[str]:
        """As options of sbatch.

        Raises:
            SettingsError: options that cannot be read, or that are not a person's to set.
        """
        named = {
            "--gres": self.gres, "--cpus-per-task": self.cpus, "--partition": self.partition,
            "--account": self.account, "--qos": self.qos,
        }  # fmt: skip
        try:
            more = shlex.split(self.options)
        except ValueError as error:
            raise SettingsError(f"slurm_options is {self.options!r}: {error}") from error
        refused = [word for word in more if word.partition("=")[0] in OURS]
        if refused:
            raise SettingsError(f"slurm_options holds {refused[0]!r}, which hfagent sets itself: leave it out")
        return [*(f"{name}={value}" for name, value in named.items() if value is not None), *more]


class SlurmQueue:
    """A `Queue` over sbatch, squeue and scancel.

    Args:
        wants: what each job asks for.
        settle_s: see `JobRunner`.
    """

    name = "slurm"

    def __init__(self, wants: Wants, *, settle_s: float = SETTLE_S) -> None:
        self._wants = wants.arguments()
        self.settle_s = settle_s

    def enqueue(self, start: Start) -> str:
        """Submit a batch script that becomes the job's supervisor."""
        minutes = math.ceil((start.limit_s + MARGIN_S) / 60)
        command = [
            "sbatch", "--parsable", "--no-requeue", "--export=ALL", "--nodes=1", "--ntasks=1",
            f"--job-name={start.key}", f"--comment={slurm_states.comment(str(start.folder))}",
            f"--chdir={start.folder}", "--output=slurm-%j.out", f"--time={minutes}", *self._wants,
        ]  # fmt: skip
        # sbatch hands all SLURM_* variables to the job, whatever --export says.
        return slurm_commands.submit(command, f"#!/bin/sh\nunset SLURM_JWT\nexec {shlex.join(start.command)}\n")

    def trial(self) -> slurm_commands.Said:
        """What Slurm says to a job that asks for the same and is not submitted."""
        return slurm_commands.call(["sbatch", "--test-only", *self._wants], given="#!/bin/sh\ntrue\n")

    def entries(self, root: Path) -> Mapping[str, Entry]:
        """All of this user's jobs in one squeue."""
        lines = slurm_states.parse(
            slurm_commands.ask(["squeue", "--me", "--noheader", "--states=all", f"--format={slurm_states.FORMAT}"])
        )
        found, extra = slurm_states.chosen(lines, str(root))
        for line in extra:
            self.drop(line.name, str(line.number), running=False)
        return {name: slurm_states.entry(line) for name, line in found.items()}

    def remembered(self, folder: Path) -> Entry | None:
        """What the accounting knows of a job that Slurm has forgotten, where there is accounting."""
        options = ["-X", "-n", "-P", "--starttime=now-30days", "--format=JobIDRaw,State,WorkDir"]
        try:
            said = slurm_commands.call(["sacct", f"--name={folder.name}", *options])
        except BackendAway:  # where it is not installed, nothing is remembered
            return None
        rows = [row for line in said.out.splitlines() if (row := line.split("|", maxsplit=2))[2:] == [str(folder)]]
        if said.code != 0 or not rows:
            return None
        number, state, _ = rows[-1]
        return slurm_states.entry(slurm_states.Line(int(number), state.split()[0], "", folder.name, ""))

    def drop(self, key: str, number: str, *, running: bool) -> None:
        """Cancel the job of this number if it has this name."""
        states = [] if running else ["--state=PENDING"]
        said = slurm_commands.call(["scancel", f"--name={key}", *states, number])
        if said.code != 0 and slurm_commands.UNSURE.search(said.error):
            raise BackendAway(f"Slurm does not answer: scancel: {said.why}")
        # A job that has just ended, or that is not there, is cancelled enough.
        if said.code != 0 and "invalid job id" not in said.error.lower():
            raise JobError(f"Slurm does not cancel {key!r}: {said.why}")
