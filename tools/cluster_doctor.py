"""Whether a night can run on Slurm or Ray, asked before it begins: tools, cluster, what jobs ask for, shared disk."""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hfagent.agent.cluster_wiring import cluster_queue, has_gpu
from hfagent.agent.errors import AccountRefused, BackendAway, HfagentError, JobError, PackageMissing, SettingsError
from hfagent.agent.settings import Settings
from hfagent.tools import slurm_commands, slurm_info
from hfagent.tools.doctor import Check
from hfagent.tools.hf_rights import broken, note, ok
from hfagent.tools.slurm_jobs import SlurmQueue

COMMANDS = ("sbatch", "squeue", "scancel", "sinfo")
SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "wekafs", "panfs", "afs", "glusterfs", "9p", "virtiofs", "fuse")
"""How the types of file systems begin that several machines see."""


class Finding(NamedTuple):
    """A check, and what a night ends with where it is broken."""

    check: Check
    error: type[HfagentError] = SettingsError


def examine(settings: Settings) -> list[Check]:
    """All checks, in the order in which a night meets them."""
    return [finding.check for finding in findings(settings)]


def require(settings: Settings) -> None:
    """Refuse a night that could not run its jobs.

    Raises:
        SettingsError: a setting, a tool or a folder.
        PackageMissing: Ray's client.
        AccountRefused: the cluster refuses this account's jobs.
        BackendAway: it does not answer.
    """
    for check, error in findings(settings):
        if check.status == "broken":
            mend = f"; {check.mend}" if check.mend else ""
            all_of_it = f"`hfagent doctor --backend {settings.backend}` shows everything"
            raise error(f"jobs on {settings.backend} cannot run: {check.name}: {check.detail}{mend}; {all_of_it}")


def findings(settings: Settings) -> Iterator[Finding]:
    """The checks, each asked when it is wanted; those that need an answer of the cluster end where there is none."""
    yield from _slurm(settings) if settings.backend == "slurm" else _ray(settings)
    yield Finding(_disk(settings.state_dir, "state folder", "choose a folder that the machines share with --state-dir"))
    yield Finding(_disk(Path(sys.prefix), "python", "install hfagent on a disk that the machines share"))
    yield Finding(_disk(Path.cwd(), "working folder", "start hfagent in a folder that the machines share"))
    yield Finding(_locks(settings.state_dir))


# --- Slurm -----------------------------------------------------------------------------------------------------------


def _slurm(settings: Settings) -> Iterator[Finding]:
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        mend = "run hfagent where jobs are submitted, after `module load slurm` where that is needed"
        yield Finding(broken("slurm", f"no {', '.join(missing)} on PATH", mend))
        return
    try:
        found = slurm_info.partitions()
    except BackendAway as error:
        mend = "see `scontrol ping`, and SLURM_CONF where this machine needs it"
        yield Finding(broken("slurm", str(error), mend), BackendAway)
        return
    yield Finding(ok("slurm", slurm_commands.ask(["squeue", "--version"]).strip()))
    partition = _partition(found, settings.slurm_partition)
    yield Finding(partition)
    if partition.status == "broken":
        return
    yield Finding(_gpu(settings, found))
    yield _trial(settings)


def _partition(found: list[slurm_info.Partition], wanted: str | None) -> Check:
    rows = slurm_info.among(found, wanted)
    names = ", ".join(sorted({row.name for row in found})) or "none"
    if not rows:
        what = "there is no default one" if wanted is None else f"there is no {wanted!r}"
        return broken("partition", f"{what}; there are {names}", "set slurm_partition")
    if not any(row.up for row in rows):
        return broken("partition", f"{rows[0].name} takes no jobs", f"set slurm_partition to one of {names}")
    return ok("partition", f"{rows[0].name}, time limit {rows[0].limit}")


def _gpu(settings: Settings, found: list[slurm_info.Partition]) -> Check:
    devices = sorted({row.gres for row in slurm_info.among(found, settings.slurm_partition)} - {"(null)"})
    if has_gpu(settings):
        return ok("gpu", f"jobs ask for {settings.slurm_gres or 'gpu:1'}; there is {', '.join(devices) or 'nothing'}")
    return note("gpu", "jobs ask for none", "set slurm_gres, e.g. gpu:1, or another slurm_partition, to train on one")


def _trial(settings: Settings) -> Finding:
    """Whether Slurm would take a job with this account, partition, QOS and these devices."""
    mend = "set slurm_account, slurm_partition, slurm_qos, slurm_gres and slurm_options as `sbatch` needs them here"
    try:
        queue = cluster_queue(settings)
    except SettingsError as error:
        return Finding(broken("job", str(error), "correct it in hfagent.toml"))
    assert isinstance(queue, SlurmQueue)
    said = queue.trial()
    if said.code == 0:
        return Finding(ok("job", "Slurm would take one"))
    refusal = AccountRefused if slurm_commands.ACCOUNT.search(said.why) else SettingsError
    return Finding(broken("job", f"Slurm would refuse one: {said.why}", mend), refusal)


# --- Ray -------------------------------------------------------------------------------------------------------------


def _ray(settings: Settings) -> Iterator[Finding]:
    from hfagent.tools.ray_jobs import RayQueue

    try:
        queue = cluster_queue(settings)
        assert isinstance(queue, RayQueue)
        known = queue.size()
    except PackageMissing as error:
        yield Finding(broken("ray", str(error), 'pip install -c constraints.txt -e ".[ray]"'), PackageMissing)
        return
    except JobError as error:
        mend = "start it with `ray start --head`, or set ray_address to where its dashboard is"
        yield Finding(broken("ray", str(error), mend), type(error))
        return
    yield Finding(ok("ray", f"{queue.address} answers and knows {known} jobs"))
    if has_gpu(settings):
        yield Finding(ok("gpu", "jobs ask for one"))
    else:
        yield Finding(note("gpu", "jobs ask for none", "set cluster_gpu = true where the cluster has some"))


# --- the disk --------------------------------------------------------------------------------------------------------


def _disk(folder: Path, name: str, mend: str) -> Check:
    kind = file_system(folder)
    if kind is None:
        return note(f"{name} disk", f"{folder}: nobody knows whether the machines share it", mend)
    if kind.startswith(SHARED):
        return ok(f"{name} disk", f"{folder}, on {kind}")
    return note(f"{name} disk", f"{folder} is on {kind}, which one machine sees: fine where jobs run on it alone", mend)


def file_system(folder: Path) -> str | None:
    """The type of the file system that a folder is on; None where the machine does not tell."""
    try:
        mounts = [line.split(" ")[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return None
    real = os.path.realpath(folder)
    on = [(point, kind) for point, kind in mounts if real == point or real.startswith(point.rstrip("/") + "/")]
    return max(on, key=lambda mount: len(mount[0]), default=("", None))[1]


def _locks(folder: Path) -> Check:
    """Metrics are in SQLite, which needs locks that hold on every machine."""
    mend = "choose another --state-dir, or mount the disk with locks (Lustre: -o flock)"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return broken("locks", f"{folder} takes no locks: {error.strerror or error}", mend)
    return ok("locks", f"{folder} takes them")
