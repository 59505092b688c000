"""Jobs on this machine: a supervisor process for each, found again after any restart."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import hfagent
from hfagent.agent.errors import JobError, NoRoom, SettingsError
from hfagent.agent.records import Job, JobSpec
from hfagent.tools import job_folder, job_supervisor
from hfagent.tools.script_command import script_command

_START_TIMEOUT_S = 60.0  # 0.05 s on an idle machine
_POLL_S = 0.1
_LOG_TAIL_BYTES = 1 << 20
_MEND = "make room or make it writable, then `hfagent resume`"
_KEY = re.compile(r"[A-Za-z0-9_-]{1,100}")


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
        self._root = root.resolve()
        self._package = Path(hfagent.__file__).parent
        self._templates = (templates or self._package / "job_templates").resolve()
        self._trackio_dir = trackio_dir.resolve() if trackio_dir else None
        self._grace_s = grace_s

    def submit(self, spec: JobSpec) -> Job:
        """Start the job in the caller's working folder, or return the one that this key has already started.

        Raises:
            SettingsError: the flavor is not `local`.
            NoRoom: its folder cannot be written; nothing was started.
            PackageMissing: neither this Python nor uv can run the template; nothing was started.
            JobError: it did not start, or the key belongs to another spec.
        """
        if spec.flavor not in self.flavors:
            raise SettingsError(f"unknown flavor {spec.flavor!r}: jobs on this machine have the flavor 'local'")
        job = self.find(spec.key)
        if job is None:
            command = self._command(spec)
            self._make_folder(spec)
        self._require_same(spec)
        if job is None:
            self._start(spec, command)
            job = self.find(spec.key)
        if job is None:
            raise JobError(f"job {spec.key!r} did not start: its supervisor was killed; submit it again")
        return job

    def find(self, key: str) -> Job | None:
        """The job started under this key; None if there is none, also where a submitter died before the start."""
        folder = self._root / key
        try:
            return job_folder.read_job(folder) if _KEY.fullmatch(key) and folder.is_dir() else None
        except (OSError, ValueError) as error:
            raise JobError(f"the job folder {str(folder)!r} cannot be used: {error}") from error

    def jobs(self, label: str, *, ended: bool = False) -> Sequence[Job]:
        """The jobs whose folders begin with the label."""
        keys = sorted(path.name for path in self._root.glob(f"{label}-*"))
        found = [job for key in keys if (job := self.find(key)) is not None]
        return [job for job in found if ended or not job.ended]

    def inspect(self, job_id: str) -> Job:
        """The job now; one whose supervisor is gone becomes an ERROR, and what is left of it is ended."""
        prefix, _, key = job_id.partition(job_folder.ID_PREFIX)
        job = None if prefix else self.find(key)
        if job is None:
            raise JobError(f"no job {job_id!r} in {str(self._root)!r}")
        return job

    def logs(self, job_id: str, *, tail: int = 100) -> Sequence[str]:
        """The last lines, oldest first, out of the last MiB; each state of a progress bar is a line."""
        log = self._root / self.inspect(job_id).key / "log.txt"
        text = job_folder.read_end(log, _LOG_TAIL_BYTES).decode(errors="replace")
        lines = [line for line in re.split(r"[\r\n]+", text) if line]
        return lines[-tail:] if tail > 0 else []

    def cancel(self, job_id: str) -> None:
        """Ask the supervisor, whoever started it, to end the whole tree; a job that has ended stays as it is."""
        job = self.inspect(job_id)
        if job.ended:
            return
        try:
            (self._root / job.key / "cancel").touch()
        except OSError as error:
            raise JobError(f"job {job_id!r} cannot be canceled: {error}") from error

    def wait(self, job_ids: Sequence[str], *, timeout_s: float) -> None:
        """Return within about 0.1 s of the first end, or after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        folders = [self._root / self.inspect(job_id).key for job_id in job_ids]
        while not any(job_folder.is_over(folder) for folder in folders):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(_POLL_S, left_s))

    def _make_folder(self, spec: JobSpec) -> None:
        folder = self._root / spec.key
        try:
            job_folder.create(folder, spec, package=self._package)
        except OSError as error:
            raise NoRoom(f"the job folder {str(folder)!r} cannot be made: {error.strerror}; {_MEND}") from error

    def _require_same(self, spec: JobSpec) -> None:
        folder = self._root / spec.key
        try:
            earlier = job_folder.read_spec(folder)
        except (OSError, ValueError) as error:
            raise JobError(f"the job folder {str(folder)!r} cannot be used: {error}") from error
        if earlier != spec:
            differing = [name for name in JobSpec.model_fields if getattr(earlier, name) != getattr(spec, name)]
            raise JobError(
                f"key {spec.key!r} belongs to a job with other {', '.join(differing)}: a changed job needs a new key"
            )

    def _command(self, spec: JobSpec) -> list[str]:
        template = self._templates / spec.template
        if Path(spec.template).name != spec.template or not template.is_file():
            known = ", ".join(sorted(path.name for path in self._templates.glob("[!_]*.py")))
            raise JobError(f"no job template {spec.template!r} in {str(self._templates)!r}: there are {known}")
        return [*script_command(template, spec.args), *spec.args, "--output-dir", str(self._root / spec.key / "out")]

    def _environment(self, folder: Path) -> dict[str, str]:
        # The planner's keys stay with the planner; HF_TOKEN goes on, since jobs push to the Hub.
        kept = {name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "HFAGENT_NOTIFY"))}
        paths = [str(folder / "import"), *filter(None, [kept.get("PYTHONPATH")])]
        added = {
            "PYTHONPATH": os.pathsep.join(paths),
            # Threads that spin at a barrier cost another process of this machine its core: 26 to 44 s a training step
            # beside a busy process, 7 to 9 s so (2 cores).
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
            "PYTHONSAFEPATH": "1",  # a template's neighbours must not shadow packages of the same name
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if self._trackio_dir:
            added["TRACKIO_DIR"] = str(self._trackio_dir)
        return kept | added

    def _start(self, spec: JobSpec, command: Sequence[str]) -> None:
        """Have a supervisor at work on the job; any number of calls leaves one."""
        folder = self._root / spec.key
        python = [sys.executable, "-I", "-S"]  # the supervisor needs nothing but the standard library
        limits = [str(spec.timeout_s), str(self._grace_s)]
        try:
            done = subprocess.run(
                [*python, job_supervisor.__file__, str(folder), *limits, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=self._environment(folder),
                start_new_session=True,
                timeout=_START_TIMEOUT_S,
                check=False,
            )
        except OSError as error:
            raise JobError(f"the supervisor of job {spec.key!r} could not be started: {error}") from error
        except subprocess.TimeoutExpired as error:
            raise JobError(
                f"the supervisor of job {spec.key!r} did not answer in {_START_TIMEOUT_S:.0f} s: submit it again"
            ) from error
        if done.returncode != 0:
            problem = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            if problem:
                raise NoRoom(f"job {spec.key!r} could not be started: {problem}; {_MEND}")
            raise JobError(f"job {spec.key!r} could not be started: exit code {done.returncode}")
