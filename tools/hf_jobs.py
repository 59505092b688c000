"""Jobs on Hugging Face's machines: found again by their labels, whoever asks and whatever was lost before."""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

import hfagent
from hfagent.agent.errors import AccountRefused, BackendAway, JobError, NothingSent
from hfagent.agent.records import TERMINAL_STAGES, Job, JobSpec
from hfagent.job_templates.remote import ARGS
from hfagent.job_templates.runtime import RESULT_PREFIX
from hfagent.tools.hub_calls import NO_ANSWER, NOT_THE_HUB, ask, explain, http_error, taken_for_sure_not
from hfagent.tools.job_bucket import JobBucket
from hfagent.tools.job_folder import last_result
from hfagent.tools.job_log import last_lines
from hfagent.tools.script_command import requirements

KEY, PROJECT, SPEC = "hfagent-key", "hfagent-project", "hfagent-spec"
"""Labels: the job's key, the plan's label, and a hash of the whole spec."""
PLACED = "HFAGENT_PLACED"
"""Variable: local files and folders -> their copies in the bucket."""
TEMPLATES = "hfagent.job_templates"
PYTHON = "3.12"
SETTLE_S = 60.0
"""How long the service may take to show a job that it has accepted is not known: a guess, so strays are looked for."""
CANCEL_S = 120.0
FRESH_S = 2.0
"""Age up to which a list of running jobs answers for each of them."""
LOG_WAIT_S = {True: 15.0, False: 3.0}
"""For the log of a job that has ended, or has not: the client waits for new lines of the latter."""
RESULT_TAIL = 200
"""Lines at the end of a log in which the RESULT line is looked for."""
TIMED_OUT = "Job timeout"


class HfJobRunner:
    """A `JobRunner` for one namespace of Hugging Face Jobs.

    Args:
        api: a `huggingface_hub.HfApi` with the endpoint and the token.
        namespace: who owns and pays the jobs.
        bucket: their folder.
        environment: variables of every job; anybody who sees the job can read them.
        secrets: variables that nobody can read again, e.g. HF_TOKEN.
        copies: where what jobs left is put that this machine reads, too.
        poll_s: seconds between two looks in `wait`.
        settle_s: see `JobRunner`.
        package: the folder of `hfagent` that jobs get; None is this one.
    """

    name = "hf"
    cancel_s = CANCEL_S

    def __init__(
        self,
        api: Any,
        namespace: str,
        bucket: JobBucket,
        *,
        environment: Mapping[str, str],
        secrets: Mapping[str, str],
        copies: Path,
        poll_s: float = 10.0,
        settle_s: float = SETTLE_S,
        package: Path | None = None,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._bucket = bucket
        self.environment = dict(environment)
        self._secrets = dict(secrets)
        self._copies = copies
        self._poll_s = poll_s
        self.settle_s = settle_s
        self._package = package or Path(hfagent.__file__).parent
        self._ended: dict[str, Job] = {}
        self._ended_at: dict[str, float] = {}
        """Job id -> when it was first seen to have ended, while something of it is missing."""
        self._labels: dict[str, str] = {}
        """Job id -> the project's label."""
        self._lists: dict[str, tuple[float, dict[str, Any]]] = {}
        """Project's label -> when its running jobs were listed, and these by id."""

    def submit(self, spec: JobSpec) -> Job:
        """Start the job with a timeout and its key as a label, or return the one that this key has already started."""
        template = self._package / "job_templates" / spec.template
        if Path(spec.template).name != spec.template or not template.is_file():
            raise JobError(f"no job template {spec.template!r}")
        try:
            job = self._started(spec)
            if job is not None:
                return job
            code, placed = self._bucket.put_package(self._package), self._placed(spec)
        except BackendAway as error:
            raise NothingSent(str(error)) from error
        # Of two jobs of one key, which a lost answer may leave, each has a folder of its own.
        home = self._bucket.path("jobs", spec.key, token_hex(4))
        # The client would take an argument for a file of the same name here, and fails at long ones.
        module, args = f"{TEMPLATES}.{spec.template.removesuffix('.py')}", [placed.get(arg, arg) for arg in spec.args]
        try:
            info = _quietly(
                self._api.run_uv_job,
                "python",
                script_args=["-m", f"{TEMPLATES}.remote", home, module],
                dependencies=requirements(template, spec.args),
                python=PYTHON,
                env={"PYTHONPATH": code, ARGS: json.dumps(args), PLACED: json.dumps(placed), **self.environment},
                secrets=self._secrets,
                flavor=spec.flavor,
                timeout=spec.timeout_s,
                labels={"name": spec.key, KEY: spec.key, PROJECT: spec.label, SPEC: _digest(spec)},
                volumes=[self._bucket.volume()],
                namespace=self._namespace,
            )
        except http_error() as error:
            known = explain(error)
            if not taken_for_sure_not(error):
                raise BackendAway(f"no answer to the submit of {spec.key!r}: {known}") from error
            raise (NothingSent(str(known)) if isinstance(known, BackendAway) else known) from error
        except NO_ANSWER as error:
            raise BackendAway(f"no answer to the submit of {spec.key!r}: {NOT_THE_HUB}") from error
        self._lists.pop(spec.label, None)
        return self._job(info)

    def find(self, key: str) -> Job | None:
        """The oldest job with this key as a label; None also while the service does not show it yet."""
        info = self._oldest(key)
        return None if info is None else self._job(info)

    def jobs(self, label: str, *, ended: bool = False) -> Sequence[Job]:
        """The project's jobs, in one request for each page of the list."""
        infos = self._listed(label, ended=True) if ended else list(self._running(label).values())
        return [self._job(info) for info in infos]

    def inspect(self, job_id: str) -> Job:
        """The job now; for running ones one list of the project answers for all of them."""
        if job_id in self._ended:
            return self._ended[job_id]
        label = self._labels.get(job_id)
        info = None if label is None else self._running(label).get(job_id)
        return self._job(self._inspected(job_id) if info is None else info)

    def logs(self, job_id: str, *, tail: int = 100) -> Sequence[str]:
        """The last lines that arrive within some seconds."""
        job = self.inspect(job_id)
        return self._log(job_id, tail, ended=job.ended) if tail > 0 else []

    def cancel(self, job_id: str) -> None:
        """Ask the service to end the job; one that has ended stays as it is."""
        if self.inspect(job_id).ended:
            return
        self._lists.clear()
        try:
            ask(lambda: self._api.cancel_job(job_id=job_id, namespace=self._namespace))
        except (BackendAway, AccountRefused):
            raise
        except JobError:
            if self._inspected(job_id).status.stage not in TERMINAL_STAGES:  # else it has ended meanwhile
                raise

    def wait(self, job_ids: Sequence[str], *, timeout_s: float) -> None:
        """Look every `poll_s` seconds, beginning after the first of them."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(self._poll_s, left_s))
            try:
                if any(self.inspect(job_id).ended for job_id in job_ids):
                    return
            except BackendAway:
                continue  # whoever waits will ask, and be told
            except JobError:
                return

    def fetch(self, path: str) -> Path:
        """A copy of what a job has left in the bucket."""
        return self._bucket.copy(path, self._copies)

    # --- requests ----------------------------------------------------------------------------------------------------

    def _oldest(self, key: str) -> Any:
        infos = self._list(labels={KEY: key})
        return min(infos, key=lambda info: (str(info.created_at), info.id), default=None)

    def _started(self, spec: JobSpec) -> Job | None:
        info = self._oldest(spec.key)
        if info is None:
            return None
        if (info.labels or {}).get(SPEC) != _digest(spec):
            raise JobError(f"key {spec.key!r} belongs to a job with other arguments: a changed job needs a new key")
        return self._job(info)

    def _running(self, label: str) -> dict[str, Any]:
        at, found = self._lists.get(label, (float("-inf"), {}))
        if time.monotonic() - at > min(FRESH_S, self._poll_s):
            found = {info.id: info for info in self._listed(label, ended=False)}
            self._lists[label] = (time.monotonic(), found)
        return found

    def _listed(self, label: str, *, ended: bool) -> list[Any]:
        status = None if ended else ["SCHEDULING", "RUNNING"]
        return self._list(status=status, labels={PROJECT: label})

    def _list(self, **wanted: Any) -> list[Any]:
        return ask(lambda: list(self._api.list_jobs(namespace=self._namespace, **wanted)), attempts=1)

    def _inspected(self, job_id: str) -> Any:
        try:
            return ask(lambda: self._api.inspect_job(job_id=job_id, namespace=self._namespace))
        except (BackendAway, ValueError):
            raise
        except JobError as error:
            if error.__class__ is not JobError:
                raise
            raise JobError(f"no job {job_id!r} in the namespace {self._namespace!r}: {error}") from error

    def _log(self, job_id: str, tail: int, *, ended: bool) -> list[str]:
        def fetch() -> Iterable[str]:
            lines: Iterable[str] = self._api.fetch_job_logs(job_id=job_id, namespace=self._namespace, tail=tail)
            return lines

        return last_lines(fetch, tail, wait_s=LOG_WAIT_S[ended])

    # --- what a job is given and what it leaves ----------------------------------------------------------------------

    def _placed(self, spec: JobSpec) -> dict[str, str]:
        """Local files and folders among the arguments -> where the job sees them; what jobs have left is there."""
        left = self._bucket.path("jobs") + "/"
        named = [arg for arg in spec.args if arg.startswith("/") and not arg.startswith(left)]
        local = [arg for arg in named if os.path.exists(arg)]  # noqa: PTH110 - any text
        return {arg: self._bucket.put(Path(arg)) for arg in local}

    def _job(self, info: Any) -> Job:
        """The job as a record; one that has ended is remembered, since nothing about it changes any more."""
        if info.id in self._ended:
            return self._ended[info.id]
        labels = info.labels or {}
        self._labels[info.id] = labels.get(PROJECT, "")
        job = Job(
            id=info.id,
            key=labels.get(KEY, info.id),
            stage=info.status.stage,
            url=info.url,
            flavor=str(info.flavor or ""),
            created_at=info.created_at,
            started_at=info.started_at,
            finished_at=info.finished_at,
            billed_s=_billed_s(info),
            message=info.status.message,
        )
        if not job.ended:
            return job
        job = self._closed(job, self._bucket.inside(info.command[-2]) if info.command else "")
        if job.ended:
            self._ended[info.id] = job = _with_local_names(job, info.environment or {})
        return job

    def _closed(self, job: Job, *place: str) -> Job:
        """An ended job with its exit code, its result, or the checkpoints that it left in a folder of the bucket.

        It counts as running while the bucket may not show yet what it wrote last.
        """
        code = (self._bucket.read_json(*place, "exit.json") or {}).get("exit_code")
        result = self._bucket.read_json(*place, "result.json")
        if result is None and job.stage == "COMPLETED":
            result = last_result(self._log(job.id, RESULT_TAIL, ended=True))
        message, stage = job.message, job.stage
        flaw = self._missing(result) if stage == "COMPLETED" else None
        lacking = flaw is not None or (stage == "ERROR" and code is None and not _timed_out(message))
        if lacking and job.started_at is not None and self._may_come(job.id):
            return job.model_copy(update={"stage": "RUNNING", "finished_at": None, "billed_s": None, "message": None})
        if flaw is not None:
            stage, message, code, result = "ERROR", flaw, None, None
        elif stage != "COMPLETED" and result is None:
            checkpoints = self._bucket.checkpoints(*place, "out")
            result = {"checkpoints": checkpoints} if checkpoints else None
        if stage == "ERROR":
            message = _message(message, code)
        return job.model_copy(update={"stage": stage, "message": message, "exit_code": code, "result": result})

    def _may_come(self, job_id: str) -> bool:
        """Whether a job has ended so short a time ago that what it left may be on its way."""
        return time.monotonic() - self._ended_at.setdefault(job_id, time.monotonic()) < self.settle_s

    def _missing(self, result: Mapping[str, Any] | None) -> str | None:
        """What a completed job did not leave."""
        if result is None:
            return f"ended without a {RESULT_PREFIX.strip()} line"
        for name in ("adapter", "stable_checkpoint", "dataset"):
            path = result.get(name)
            if isinstance(path, str) and not self._bucket.has(path):
                return f"ended as completed, and its {name} is not in the bucket {self._bucket.bucket}"
        return None


def _billed_s(info: Any) -> float | None:
    """Seconds of running, 0 for a job that ended before it ran; None where that is not told."""
    told: float | None = None if info.durations is None else info.durations.running_secs
    never_ran = info.started_at is None and info.status.stage in ("CANCELED", "ERROR")
    return 0.0 if told is None and never_ran else told


def _with_local_names(job: Job, environment: Mapping[str, str]) -> Job:
    """The job's result with local files by their names here, as they were asked for."""
    if job.result is None:
        return job
    local = {there: here for here, there in json.loads(environment.get(PLACED, "{}")).items()}
    result = {name: local.get(value, value) if isinstance(value, str) else value for name, value in job.result.items()}
    return job.model_copy(update={"result": result})


def _quietly(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call a method that the client warns of as experimental."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is experimental.*", category=UserWarning)
        return call(*args, **options)


def _message(said: str | None, code: int | None) -> str:
    """The cause of a failure, a timeout in the words of every runner."""
    if _timed_out(said):
        return TIMED_OUT
    return said or ("lost: it left no exit code" if code is None else f"exit code {code}")


def _timed_out(said: str | None) -> bool:
    return said is not None and "timeout" in said.lower()


def _digest(spec: JobSpec) -> str:
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()[:16]
