"""Slurm's command-line tools as hfagent calls them: bounded in time, in English, deaf to a person's own formats."""

import os
import re
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from hfagent.agent.errors import AccountRefused, BackendAway, JobError, NothingSent

ASK_S = 30.0
SUBMIT_S = 60.0
"""After so long a command is ended; Slurm itself waits 10 s for each of its messages."""
PASSED_ON = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "KRB5CCNAME", "LD_LIBRARY_PATH", "SLURM_CONF",
        "SLURM_JWT", "SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS", "SBATCH_RESERVATION", "SBATCH_CONSTRAINT",
    }
)  # fmt: skip
"""Slurm's other variables shape tables, make arrays of jobs, or belong to a job that hfagent runs in."""
UNSURE = re.compile(
    "unable to contact|timed out|zero bytes|connection|communication|temporarily unable|try again|standby|"
    "resource temporarily|plugin initialization|munge|credential",
    re.IGNORECASE,
)
"""Words of errors after which nobody knows what slurmctld has done, or that pass."""
ACCOUNT = re.compile("account|qos|association|permission|access|not permitted|user id|group", re.IGNORECASE)
"""Words of refusals that only a person can mend."""


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    error: str

    @property
    def why(self) -> str:
        """Its last words."""
        lines = [line.partition("error: ")[2] or line for line in self.error.splitlines() if line.strip()]
        return (lines or [f"exit code {self.code}"])[-1].strip()


def call(command: Sequence[str], *, given: str = "", timeout_s: float = ASK_S) -> Said:
    """Run a command of Slurm's.

    Raises:
        NothingSent: it cannot be run.
        BackendAway: it gives no answer in time.
    """
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, errors="replace",
            env=environment(), timeout=timeout_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise BackendAway(f"Slurm does not answer: {command[0]} took more than {timeout_s:.0f} s") from error
    except OSError as error:
        raise NothingSent(f"{command[0]} cannot be run: {error.strerror or error}") from error
    return Said(done.returncode, done.stdout, done.stderr)


def ask(command: Sequence[str]) -> str:
    """What a question is answered.

    Raises:
        BackendAway: no answer.
    """
    said = call(command)
    if said.code != 0:
        raise BackendAway(f"Slurm does not answer: {command[0]}: {said.why}")
    return said.out


def submit(command: Sequence[str], script: str) -> str:
    """Hand a script to sbatch; the job's number.

    Raises:
        BackendAway: whether Slurm has taken it is not known.
        AccountRefused, JobError: it has not.
    """
    said = call(command, given=script, timeout_s=SUBMIT_S)
    number = said.out.strip().rpartition("\n")[2].partition(";")[0]  # a site's words may come before, its name after
    if said.code == 0 and number.isdecimal():
        return number
    if said.code <= 0 or UNSURE.search(said.error):
        raise BackendAway(f"no clear answer from sbatch: {said.why if said.code else repr(said.out)}")
    if ACCOUNT.search(said.why):
        raise AccountRefused(f"Slurm refuses the job: {said.why}; set slurm_account, slurm_partition or slurm_qos")
    raise JobError(f"Slurm refuses the job: {said.why}")


def environment() -> dict[str, str]:
    """The variables that the commands see. sbatch hands all of them to the job, so of secrets there is only SLURM_JWT,
    by which Slurm knows whose commands they are where there is no munge; the job's script drops it.
    """
    return {name: value for name, value in os.environ.items() if name in PASSED_ON} | {"LC_ALL": "C"}
