"""Jobs on this machine: a supervisor process for each, found again after any restart."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import hfagent
from hfagent.agent.errors import BackendAway, JobError, NoRoom, SettingsError
from hfagent.agent.records import Job, JobSpec
from hfagent.tools import job_folder
from hfagent.tools.job_home import MEND, JobHome, end_of_log, left

_START_TIMEOUT_S = 60.0  # 0.05 s on an idle machine
_POLL_S = 0.1
_SUPERVISE = """import sys
sys.path.append(sys.argv.pop(1))
from hfagent.tools.job_supervisor import main
sys.exit(main(sys.argv[1:]))"""


class LocalJobRunner:
    """A `JobRunner` for this machine.

    Args:
        root: folder of the job folders.
        templates: folder of the job scripts; None takes the package's own.
        trackio_dir: where jobs log their metrics; None leaves it to the environment.
        grace_s: seconds a job gets between SIGTERM and SIGKILL, after a cancel or at its time limit.
    """

    name = "local"
    settle_s = 0.0
    cancel_s = 30.0
    """A cancelled job saves and ends within 20 s, or is killed."""
    flavors = ("local",)

    def __init__(
        self,
        root: Path = Path(".hfagent/jobs"),
        *,
        templates: Path | None = None,
        trackio_dir: Path | None = None,
        grace_s: float = 20.0,
    ) -> None:
        self._home = JobHome(root, templates=templates, trackio_dir=trackio_dir)
        self._grace_s = grace_s

    def submit(self, spec: JobSpec) -> Job:
        """Start the job in the caller's working folder, or return the one that this key has already started.

        Raises:
            SettingsError: the flavor is not `local`.
            NoRoom: its folder cannot be written; nothing was started.
            PackageMissing: neither this Python nor uv can run the template; nothing was started.
            BackendAway: whether it has started is not known.
            JobError: it did not start, or the key belongs to another spec.
        """
        if spec.flavor not in self.flavors:
            raise SettingsError(f"unknown flavor {spec.flavor!r}: jobs on this machine have the flavor 'local'")
        job = self.find(spec.key)
        if job is None:
            command = self._home.command(spec)
            self._home.make_folder(spec)
        self._home.require_same(spec)
        if job is None:
            self._start(spec, command)
            job = self.find(spec.key)
        if job is None:
            raise JobError(f"job {spec.key!r} did not start: its supervisor was killed; submit it again")
        return job

    def find(self, key: str) -> Job | None:
        """The job started under this key; None if there is none, also where a submitter died before the start."""
        folder = self._home.folder(key)
        try:
            return None if folder is None else job_folder.read_job(folder)
        except (OSError, ValueError) as error:
            raise JobError(f"the job folder {str(folder)!r} cannot be used: {error}") from error

    def jobs(self, label: str, *, ended: bool = False) -> Sequence[Job]:
        """The jobs whose folders begin with the label."""
        found = [job for key in self._home.keys(label) if (job := self.find(key)) is not None]
        return [job for job in found if ended or not job.ended]

    def inspect(self, job_id: str) -> Job:
        """The job now; one whose supervisor is gone becomes an ERROR, and what is left of it is ended."""
        prefix, _, key = job_id.partition(job_folder.ID_PREFIX)
        job = None if prefix else self.find(key)
        if job is None:
            raise JobError(f"no job {job_id!r} in {str(self._home.root)!r}")
        return job

    def logs(self, job_id: str, *, tail: int = 100) -> Sequence[str]:
        """The last lines of what it has printed so far."""
        return end_of_log(self._home.root / self.inspect(job_id).key / "log.txt", tail)

    def cancel(self, job_id: str) -> None:
        """Ask the supervisor, whoever started it, to end the whole tree; a job that has ended stays as it is."""
        job = self.inspect(job_id)
        if job.ended:
            return
        try:
            (self._home.root / job.key / "cancel").touch()
        except OSError as error:
            raise JobError(f"job {job_id!r} cannot be canceled: {error}") from error

    def wait(self, job_ids: Sequence[str], *, timeout_s: float) -> None:
        """Return within about 0.1 s of the first end, or after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        folders = [self._home.root / self.inspect(job_id).key for job_id in job_ids]
        while not any(job_folder.is_over(folder) for folder in folders):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(_POLL_S, left_s))

    def fetch(self, path: str) -> Path:
        """What a job has left, where it is."""
        return left(path)

    def _start(self, spec: JobSpec, command: Sequence[str]) -> None:
        """Have a supervisor at work on the job; any number of calls leaves one."""
        folder = self._home.root / spec.key
        # The supervisor needs nothing but the standard library, and leaves nothing in the package's folder.
        python = [sys.executable, "-I", "-S", "-B", "-c", _SUPERVISE, str(Path(hfagent.__file__).parent.parent)]
        limits = [str(spec.timeout_s), str(self._grace_s)]
        try:
            done = subprocess.run(
                [*python, str(folder), *limits, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=self._home.environment(folder),
                start_new_session=True,
                timeout=_START_TIMEOUT_S,
                check=False,
            )
        except OSError as error:
            raise JobError(f"the supervisor of job {spec.key!r} could not be started: {error}") from error
        except subprocess.TimeoutExpired as error:  # it may start the job yet: the key stays alive
            raise BackendAway(
                f"the supervisor of job {spec.key!r} did not answer in {_START_TIMEOUT_S:.0f} s"
            ) from error
        if done.returncode != 0:
            problem = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            if problem:
                raise NoRoom(f"job {spec.key!r} could not be started: {problem}; {MEND}")
            if done.returncode < 0:  # what it forked may live
                raise BackendAway(f"what was to start job {spec.key!r} got signal {-done.returncode}")
            raise JobError(f"job {spec.key!r} could not be started: exit code {done.returncode}")
