"""Jobs on a cluster that shares a disk with this machine: their folders tell what they do, a queue when they begin.

The folder is believed before the queue is: a job that has written its end has ended, whatever the queue says, and one
that shows signs of life runs although the queue does not answer or has forgotten it. The queue is asked about jobs that
have not begun, and about those that fell silent.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from hfagent.agent.errors import BackendAway, JobError, NoRoom, NothingSent, SettingsError
from hfagent.agent.records import Job, JobSpec
from hfagent.tools import cluster_folder, job_folder
from hfagent.tools.cluster_folder import End
from hfagent.tools.job_home import MEND, JobHome, end_of_log, left

GRACE_S = 20.0
"""From the request to end to the kill; below the 30 s after which Slurm kills."""
CANCEL_S = 120.0
FORCE_S = 60.0
"""After so long a cancelled job is ended by the queue: its supervisor does not see the request, or is stuck."""
FRESH_S = 1.0
"""Age up to which one look at the queue answers for every job."""
BEAT_FRESH_S = 45.0
"""A supervisor that was seen so recently lives: 9 beats, and less than a network disk may hold back an older one."""
LATE_S = 90.0
"""How long a job's last words may take to arrive once the queue says that it is over: network disks take a minute."""
LOST_S = 120.0
"""Silence after which a job that the queue does not know is lost: network disks hold back signs for a minute."""
POLL_S = 0.5
"""Between two looks at the folders in `wait`."""


@dataclass(frozen=True)
class Start:
    """What a queue is to start."""

    key: str
    folder: Path
    command: tuple[str, ...]
    limit_s: float
    """When the queue may end the job; its supervisor does so before."""


@dataclass(frozen=True)
class Entry:
    """A job as the queue sees it."""

    number: str
    phase: Literal["waiting", "running", "over"]
    reason: str = ""
    """Why it waits, or how it ended."""
    unbegun: End | None = None
    """Over: how it counts where nothing of it had begun; None begins it again."""
    begun: End | None = None
    """Over: how it counts where it had begun and left no word."""
    known_cause: bool = False
    """Over: the queue knows better than the job why a signal came."""


class Queue(Protocol):
    """What decides when a job begins. Every method raises `BackendAway` where there is no answer."""

    name: str
    settle_s: float

    def enqueue(self, start: Start) -> str:
        """Have a job started; its number.

        Raises:
            AccountRefused, JobError: it was refused for sure.
        """
        ...

    def entries(self, root: Path) -> Mapping[str, Entry]:
        """The jobs of a folder by their keys, those that ended lately included. Second ones of a key are taken out."""
        ...

    def remembered(self, folder: Path) -> Entry | None:
        """What is known of a job that is not among them any more; None where nothing is."""
        ...

    def drop(self, key: str, number: str, *, running: bool) -> None:
        """Take a job that waits out of the queue; one that runs is ended too where that is asked for."""
        ...


class ClusterJobRunner:
    """A `JobRunner` over a queue and a shared disk.

    Args:
        queue: Slurm's or Ray's.
        root: folder of the job folders, the same path on every machine.
        templates: folder of the job scripts; None takes the package's own.
        trackio_dir: where jobs log their metrics.
        environment: variables that jobs get beside those of this process.
        poll_s: between two looks at the queue in `wait`.
        grace_s: from the request to end to the kill.
        late_s: see `LATE_S`.
        lost_s: see `LOST_S`.
    """

    cancel_s = CANCEL_S

    def __init__(
        self,
        queue: Queue,
        root: Path,
        *,
        templates: Path | None = None,
        trackio_dir: Path | None = None,
        environment: Mapping[str, str] | None = None,
        poll_s: float = 15.0,
        grace_s: float = GRACE_S,
        late_s: float = LATE_S,
        lost_s: float = LOST_S,
    ) -> None:
        self.name = queue.name
        self.settle_s = queue.settle_s
        self._queue = queue
        self._prefix = f"{queue.name}-"
        self._home = JobHome(root, templates=templates, trackio_dir=trackio_dir)
        self._added = dict(environment or {})
        self._poll_s = poll_s
        self._grace_s = grace_s
        self._late_s = late_s
        self._lost_s = lost_s
        self._seen: tuple[float, Mapping[str, Entry]] = (float("-inf"), {})

    def submit(self, spec: JobSpec) -> Job:
        """Put the job into the queue, or return the one that this key has already brought there.

        Raises:
            SettingsError: the flavor is another backend's.
            PackageMissing: neither this Python nor uv can run the template; nothing was started.
            AccountRefused, BackendAway, NoRoom, JobError: see `JobRunner`.
        """
        if spec.flavor != self.name:
            raise SettingsError(f"unknown flavor {spec.flavor!r}: jobs on {self.name} have the flavor {self.name!r}")
        try:
            job = self.find(spec.key)
        except BackendAway as error:
            raise NothingSent(str(error)) from error
        command = self._home.command(spec) if job is None else []
        folder = self._home.make_folder(spec)
        self._home.require_same(spec)
        if job is not None:
            return job
        try:
            environment = self._home.environment(folder) | self._added
            limits = {"timeout_s": float(spec.timeout_s), "grace_s": self._grace_s}
            called = cluster_folder.prepare(folder, command, environment=environment, **limits)
        except OSError as error:
            raise NoRoom(f"job {spec.key!r} could not be prepared: {error.strerror}; {MEND}") from error
        self._enqueue(folder, called, spec.timeout_s)
        return job_folder.open_job(folder, self._prefix, waiting="submitted")

    def find(self, key: str) -> Job | None:
        """The job of this key; None where the queue has not taken one, as far as anybody knows."""
        folder = self._home.folder(key)
        try:
            return None if folder is None else self._look(folder)
        except (FileNotFoundError, ValueError) as error:
            raise JobError(f"the job folder {str(folder)!r} cannot be used: {error}") from error
        except OSError as error:  # a disk of the network, which may answer later
            raise BackendAway(f"the job folder {str(folder)!r} cannot be read: {error.strerror}") from error

    def jobs(self, label: str, *, ended: bool = False) -> Sequence[Job]:
        """The jobs whose folders begin with the label."""
        found = [job for key in self._home.keys(label) if (job := self.find(key)) is not None]
        return [job for job in found if ended or not job.ended]

    def inspect(self, job_id: str) -> Job:
        """The job now."""
        prefix, _, key = job_id.partition(self._prefix)
        job = None if prefix else self.find(key)
        if job is None:
            raise JobError(f"no job {job_id!r} in {str(self._home.root)!r}")
        return job

    def logs(self, job_id: str, *, tail: int = 100) -> Sequence[str]:
        """The last lines of what it has printed, or what the cluster said before it began."""
        folder = self._home.root / self.inspect(job_id).key
        log = folder / "log.txt"
        return end_of_log(log, tail) if log.exists() else cluster_folder.cluster_said(folder, tail)

    def cancel(self, job_id: str) -> None:
        """Have the supervisor end the job; one that waits never begins, also where the queue starts it later."""
        job = self.inspect(job_id)
        if job.ended:
            return
        folder = self._home.root / job.key
        try:
            overdue = FORCE_S < cluster_folder.age_s(folder, "cancel") < float("inf")
            (folder / "cancel").open("ab").close()
            begun = cluster_folder.claimed(folder) or not cluster_folder.give_up(folder, _CANCELED)
        except OSError as error:
            raise BackendAway(f"job {job_id!r} cannot be canceled now: {error.strerror}") from error
        if overdue or not begun:
            self._forget()
            entry = self._entries().get(job.key)
            if entry is not None and entry.phase != "over":
                self._forget()
                self._queue.drop(job.key, entry.number, running=begun)

    def wait(self, job_ids: Sequence[str], *, timeout_s: float) -> None:
        """Return soon after the first end, or after `timeout_s`; the queue is asked every `poll_s` seconds."""
        deadline = time.monotonic() + timeout_s
        ends = [self._home.root / job_id.removeprefix(self._prefix) for job_id in job_ids]
        look_at = time.monotonic() + self._poll_s
        while not any(map(cluster_folder.told, ends)):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(POLL_S, left_s))
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + self._poll_s
                try:
                    if any(self.inspect(job_id).ended for job_id in job_ids):  # also of one that cannot say so
                        return
                except BackendAway:
                    continue  # whoever waits will ask, and be told
                except JobError:
                    return

    def fetch(self, path: str) -> Path:
        """What a job has left, where it is."""
        return left(path)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _enqueue(self, folder: Path, command: Sequence[str], timeout_s: float) -> None:
        self._forget()
        start = Start(folder.name, folder, tuple(command), timeout_s + 2 * self._grace_s)
        number = self._queue.enqueue(start)
        with suppress(OSError):  # it is written later, by whoever finds the job
            cluster_folder.write_ticket(folder, number)

    def _look(self, folder: Path) -> Job | None:
        ended = job_folder.read_ended(folder)
        if ended is not None:
            if not cluster_folder.signaled(ended):
                return job_folder.ended_job(folder, self._prefix, ended)
            return self._signaled(folder, ended)
        begun = cluster_folder.claimed(folder)
        if begun and cluster_folder.silent_s(folder) < min(BEAT_FRESH_S, self._late_s):
            return job_folder.open_job(folder, self._prefix)
        entry = self._entries().get(folder.name) or self._forgotten(folder, begun=begun)
        if entry is None:
            return self._unknown(folder, begun=begun)
        if cluster_folder.read_ticket(folder) is None:  # the answer to its submit was lost
            cluster_folder.write_ticket(folder, entry.number)
        if entry.phase == "over":
            return self._over(folder, entry, begun=begun)
        if not begun and (folder / "cancel").exists():
            return self._given_up(folder, _CANCELED)
        waiting = None if begun else f"{entry.reason or entry.phase} ({self.name} job {entry.number})"
        return job_folder.open_job(folder, self._prefix, waiting=waiting)

    def _forgotten(self, folder: Path, *, begun: bool) -> Entry | None:
        """What is left of a job that the queue had taken and does not know any more."""
        silent = not begun or cluster_folder.silent_s(folder) >= self._late_s
        return self._remembered(folder) if silent and cluster_folder.read_ticket(folder) else None

    def _remembered(self, folder: Path) -> Entry | None:
        """What is known of the end of a forgotten job; one that accounting still calls running never ends there."""
        entry = self._queue.remembered(folder)
        return entry if entry is not None and entry.phase == "over" else None

    def _over(self, folder: Path, entry: Entry, *, begun: bool) -> Job | None:
        """A job that the queue has ended, and that has not said so itself."""
        if begun and job_folder.read_run(folder) is not None:
            if cluster_folder.silent_s(folder) < self._late_s:
                return job_folder.open_job(folder, self._prefix)
            return self._given_up(folder, entry.begun or _LOST)
        if entry.unbegun is None and not begun and not (folder / "cancel").exists():
            limit_s = job_folder.read_spec(folder).timeout_s
            self._enqueue(folder, cluster_folder.supervised(folder), limit_s)
            return job_folder.open_job(folder, self._prefix, waiting=f"queued again: {entry.reason}")
        if (folder / "cancel").exists():
            return self._given_up(folder, _CANCELED)
        end = entry.unbegun or entry.begun or _LOST
        said = cluster_folder.cluster_said(folder, 1)
        return self._given_up(folder, end._replace(message=": ".join([end.message, *said])))

    def _unknown(self, folder: Path, *, begun: bool) -> Job | None:
        """A job that the queue does not know."""
        if begun:
            if cluster_folder.silent_s(folder) < self._lost_s:
                return job_folder.open_job(folder, self._prefix)
            return self._given_up(folder, _LOST)
        ticket = cluster_folder.read_ticket(folder)
        if ticket is None:
            return None
        if (folder / "cancel").exists():
            return self._given_up(folder, _CANCELED)
        why = f"lost: {self.name} no longer knows its job {ticket.number}, which never began"
        return self._given_up(folder, End("ERROR", None, why))

    def _signaled(self, folder: Path, ended: job_folder.Ended) -> Job:
        """A job that got a signal: the queue may know why, and gets `late_s` to say so."""
        late = cluster_folder.age_s(folder, "exit.json") >= self._late_s
        try:
            entry = self._entries().get(folder.name) or self._remembered(folder)
        except BackendAway:
            if not late:
                raise
            entry = None
        if entry is not None and entry.phase != "over" and not late:
            return job_folder.open_job(folder, self._prefix)
        if entry is not None and entry.known_cause and entry.begun is not None:
            ended = cluster_folder.explain(folder, ended, entry.begun)
        return job_folder.ended_job(folder, self._prefix, ended)

    def _given_up(self, folder: Path, end: End) -> Job:
        cluster_folder.give_up(folder, end)
        ended = job_folder.read_ended(folder)
        if ended is None:  # a supervisor was faster
            return job_folder.open_job(folder, self._prefix)
        return job_folder.ended_job(folder, self._prefix, ended)

    def _entries(self) -> Mapping[str, Entry]:
        at, found = self._seen
        if time.monotonic() - at > min(FRESH_S, self._poll_s):
            found = self._queue.entries(self._home.root)
            self._seen = (time.monotonic(), found)
        return found

    def _forget(self) -> None:
        self._seen = (float("-inf"), {})


_CANCELED = End("CANCELED", None, "canceled")
_LOST = End("ERROR", None, "lost: it gives no more sign of life, and its end was not recorded")
