"""Jobs on this machine: one folder and one supervisor process for each, found again after any restart.

A job exists once its supervisor has written `run.json`; a folder without it belongs to a submitter that died before, and
the next submit of the key starts it. The folders must lie on a local disk: network disks do not keep flock's promise.
"""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hfagent
from hfagent.agent.errors import JobError, PackageMissing, SettingsError
from hfagent.agent.records import Job, JobSpec, JobStage, Record
from hfagent.job_templates.runtime import RESULT_PREFIX
from hfagent.tools import job_supervisor
from hfagent.tools.job_supervisor import MARKER, STRAGGLER_GRACE_S, boot_id, end_all, marked, sync_folder, write_json

_START_TIMEOUT_S = 60.0  # about 0.05 s on an idle machine
_POLL_S = 0.1
_LOG_TAIL_BYTES = 1 << 20
_RESULT_TAIL_BYTES = 4 << 20
_SCRIPT_HEADER = re.compile(r"^# /// script\s*$(.*?)^# ///\s*$", re.MULTILINE | re.DOTALL)
_JOB_ID = re.compile(r"local-([A-Za-z0-9_-]{1,100})")


class _Submitted(Record):
    created_at: datetime
    spec: JobSpec


class _Ended(Record):
    exit_code: int | None
    stage: JobStage
    message: str | None
    started_at: datetime
    finished_at: datetime


class LocalJobRunner:
    """A `JobRunner` for this machine.

    Args:
        root: folder of the job folders.
        templates: folder of the job scripts; None takes the package's own.
        trackio_dir: where jobs log their metrics; None leaves it to the environment.
        grace_s: seconds a job gets between SIGTERM and SIGKILL, after a cancel or at its time limit.
    """

    name = "local"
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
            PackageMissing: neither this Python nor uv can run the template; nothing was started.
            JobError: it did not start, or the key belongs to another spec.
        """
        if spec.flavor not in self.flavors:
            raise SettingsError(f"unknown flavor {spec.flavor!r}: jobs on this machine have the flavor 'local'")
        job = self.find(spec.key)
        if job is None:
            command = self._command(spec)
            self._create(spec)
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
            if not folder.is_dir():
                return None
            return self._read(folder)
        except (OSError, ValueError) as error:
            raise JobError(f"the job folder {str(folder)!r} cannot be used: {error}") from error

    def inspect(self, job_id: str) -> Job:
        """The job now; one whose supervisor is gone becomes an ERROR, and what is left of it is ended."""
        job = self.find(self._folder(job_id).name)
        if job is None:
            raise JobError(f"no job {job_id!r} in {str(self._root)!r}")
        return job

    def logs(self, job_id: str, *, tail: int = 100) -> Sequence[str]:
        """The last lines, oldest first, out of the last MiB; each state of a progress bar is a line."""
        self.inspect(job_id)
        text = _read_end(self._folder(job_id) / "log.txt", _LOG_TAIL_BYTES).decode(errors="replace")
        lines = [line for line in re.split(r"[\r\n]+", text) if line]
        return lines[-tail:] if tail > 0 else []

    def cancel(self, job_id: str) -> None:
        """Ask the job's supervisor, whoever started it, to end the whole tree; nothing happens to one that has ended."""
        if self.inspect(job_id).ended:
            return
        try:
            (self._folder(job_id) / "cancel").touch()
        except OSError as error:
            raise JobError(f"job {job_id!r} cannot be canceled: {error}") from error

    def wait(self, job_ids: Sequence[str], *, timeout_s: float) -> None:
        """Return within about 0.1 s of the first end, or after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        folders = [self._folder(job_id) for job_id in job_ids]
        # The whole look is cheap next to the pause, and it also notices a killed supervisor.
        while not any(self.inspect(job_id).ended for job_id in job_ids if not self._surely_running(job_id)):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(_POLL_S, left_s))
