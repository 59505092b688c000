"""Ray as a queue, by the REST API of its dashboard.

The submission id is made of the job's key and folder, and Ray takes it once. That memory lives in the head, so a
restarted head would take it again: the claim in the job's folder holds then. Ray says that it has stopped a job that
waits and does not: such a job has its folder claimed instead, and ends at once when Ray starts it.
"""

import hashlib
import logging
import os
import re
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from hfagent.agent.errors import AccountRefused, BackendAway, JobError, NothingSent, PackageMissing
from hfagent.agent.redact import learn
from hfagent.tools.cluster_folder import End
from hfagent.tools.cluster_jobs import Entry, Start

T = TypeVar("T")
ADDRESS = "http://127.0.0.1:8265"
TIMEOUT_S = 30.0
SETTLE_S = 60.0
"""A request without an answer is not on its way for longer: the client gives it up after `TIMEOUT_S`."""
FOLDER = "hfagent-folder"
"""Metadata: the job's folder, which sets it apart from one of the same name elsewhere."""
START_TIMEOUT = "RAY_JOB_START_TIMEOUT_SECONDS"
"""What Ray's message names where it has given up a job for waiting longer than 15 minutes, or what the head has set."""
TAKEN = "already exists"
_STATUS = re.compile(r"status code (\d+)")


class RayQueue:
    """A `Queue` over Ray's JobSubmissionClient.

    Args:
        address: of the dashboard.
        gpus: of a job.
        cpus: of a job, as Ray counts them.
        settle_s: see `JobRunner`.
        client: makes a JobSubmissionClient for an address; None takes Ray's.

    Raises:
        PackageMissing: ray is not installed.
    """

    name = "ray"

    def __init__(
        self,
        address: str = ADDRESS,
        *,
        gpus: float = 0,
        cpus: int = 1,
        settle_s: float = SETTLE_S,
        client: Callable[[str], Any] | None = None,
    ) -> None:
        self.address = address
        self._needs = {"entrypoint_num_cpus": cpus, "entrypoint_num_gpus": gpus}
        self.settle_s = settle_s
        self._make = client or client_class()
        self._made: Any = None

    def enqueue(self, start: Start) -> str:
        """Submit the job's supervisor; a job that Ray has given up waiting is forgotten first."""
        name = submission_id(start.folder)
        try:
            earlier = self.entries(start.folder.parent).get(start.key)
            if earlier is not None and earlier.phase == "over" and earlier.unbegun is None:
                self._ask(lambda client: client.delete_job(name))
        except BackendAway as error:
            raise NothingSent(str(error)) from error
        try:
            self._ask(
                lambda client: client.submit_job(
                    entrypoint=shlex.join(start.command),
                    submission_id=name,
                    metadata={FOLDER: str(start.folder)},
                    **self._needs,
                )
            )
        except JobError as error:
            if TAKEN not in str(error.__cause__):
                raise
        return name

    def entries(self, root: Path) -> Mapping[str, Entry]:
        """Ray's list of jobs, in one request."""
        listed = self._ask(lambda client: client.list_jobs())
        return {
            folder.name: entry(job.submission_id, str(job.status.value), job.message or "", job.driver_exit_code)
            for job in listed
            if (folder := Path((job.metadata or {}).get(FOLDER, ""))).parent == root
        }

    def remembered(self, folder: Path) -> Entry | None:
        """Ray keeps no other record."""
        return None

    def drop(self, key: str, number: str, *, running: bool) -> None:
        """Stop a job that runs; one that waits cannot be stopped, and ends by itself when it begins."""
        if running:
            self._ask(lambda client: client.stop_job(number))

    def size(self) -> int:
        """Number of jobs that Ray knows, whoever's."""
        return len(self._ask(lambda client: client.list_jobs()))

    def _ask(self, call: Callable[[Any], T]) -> T:
        """The answer to one request, errors in the terms of a runner."""
        import requests

        try:
            if self._made is None:
                _learn_token()
                self._made = self._make(self.address)
            return call(self._made)
        except (requests.RequestException, OSError) as error:
            raise BackendAway(f"Ray's dashboard at {self.address} does not answer: {error}") from error
        except RuntimeError as error:
            raise self._explained(error) from error

    def _explained(self, error: RuntimeError) -> JobError:
        said = str(error).strip()
        status = _STATUS.search(said)
        last = said.rpartition("\n")[2] if "\n" in said else said
        if "uthentication" in type(error).__name__:
            return AccountRefused(f"Ray refuses at {self.address}: {last}; set RAY_AUTH_TOKEN_PATH to its token")
        if TAKEN in said or (status is not None and int(status[1]) < 500):
            return JobError(f"Ray refuses: {last[:300]}")
        return BackendAway(f"Ray's dashboard at {self.address} fails: {last[:300]}")


def _learn_token() -> None:
    """Have the token masked that Ray's client reads from a file of its own."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    with suppress(OSError):
        learn(Path(path).read_text(encoding="utf-8", errors="replace").strip())


def submission_id(folder: Path) -> str:
    """Ray's name of a job: the key, and what sets it apart from the same key in another folder."""
    return f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"


def entry(number: str, status: str, message: str, exit_code: int | None) -> Entry:
    """A job of Ray's list; its status in the terms of a runner."""
    if status in ("PENDING", "RUNNING"):
        return Entry(number, "waiting" if status == "PENDING" else "running", status)
    if status == "STOPPED":
        end = End("CANCELED", None, "stopped in Ray")
        return Entry(number, "over", status, unbegun=end, begun=end, known_cause=True)
    lost = End("ERROR", None, f"lost: Ray calls it {status} and it left no end: {message[:200]}")
    if status == "FAILED" and START_TIMEOUT in message:
        return Entry(number, "over", "Ray gave up waiting for resources", unbegun=None, begun=lost)
    unbegun = lost if exit_code is None else End("ERROR", exit_code, f"exit code {exit_code} before the script began")
    return Entry(number, "over", status, unbegun=unbegun, begun=lost)


def client_class() -> Any:
    """Ray's client, with a limit to each request, which it lacks.

    Raises:
        PackageMissing: ray is not installed.
    """
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise PackageMissing(
            f"jobs on Ray need its client, which cannot be imported ({error}): pip install -c constraints.txt "
            '-e ".[ray]"'
        ) from error

    class PatientClient(JobSubmissionClient):  # type: ignore[misc]
        def _do_request(self, *args: Any, **options: Any) -> Any:
            return super()._do_request(*args, **{"timeout": TIMEOUT_S, **options})

    logging.getLogger("ray").setLevel(logging.ERROR)
    return PatientClient
