"""Jobs of the emulator: real processes on this machine, with the stages, labels, logs and bills of the service."""

import asyncio
import contextlib
import json
import math
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.emulator.auth import known_caller, require
from tests.emulator.errors import HubError
from tests.emulator.hub import Hub

GRACE_S = 5.0
"""Between SIGTERM and SIGKILL."""
PAGE = 100
KEEP_ALIVE_S = 30.0
TERMINAL = ("COMPLETED", "ERROR", "CANCELED", "DELETED")
PRICES = {"cpu-basic": 167, "cpu-upgrade": 500,
          "t4-small": 6667, "t4-medium": 10000, "l4x1": 13333, "a10g-small": 16667,
          "a10g-large": 25000, "l40sx1": 30000, "a100-large": 41667, "h200": 83333}  # fmt: skip
"""Millionths of a dollar a minute."""
GPUS = {"t4-small": ("T4", 16), "t4-medium": ("T4", 16),
        "l4x1": ("L4", 24), "a10g-small": ("A10G", 24),
        "a10g-large": ("A10G", 24), "l40sx1": ("L40S", 48),
        "a100-large": ("A100", 80), "h200": ("H200", 141)}  # fmt: skip


@dataclass(frozen=True)
class Behavior:
    """How a job goes; the default is well."""

    accept_s: float = 0.0
    """Between the request and the job's existence; a client that has gone meanwhile gets its job all the same."""
    hidden_s: float = 0.0
    """So long a new job is not in lists yet."""
    queued_s: float = 0.0
    stuck: bool = False
    """It never leaves SCHEDULING."""
    script: str | None = None
    """Python that runs in place of the command."""
    end: tuple[str, str | None] | None = None
    """Stage and message with which it ends at once, without a process."""
    idle_s: float | None = None
    """No process at all: it runs so long and is COMPLETED."""


@dataclass
class EmulatedJob:
    """A job as the service holds it."""

    id: str
    namespace: str
    body: dict[str, Any]
    behavior: Behavior
    created: float = field(default_factory=time.time)
    started: float | None = None
    finished: float | None = None
    stage: str = "SCHEDULING"
    message: str | None = None
    lines: list[tuple[float, str]] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    canceled: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def labels(self) -> dict[str, str]:
        return self.body.get("labels") or {}

    @property
    def running_secs(self) -> int:
        """Billed seconds."""
        return 0 if self.started is None else math.ceil((self.finished or time.time()) - self.started)

    @property
    def billed_micro_usd(self) -> int:
        """What the job has cost."""
        return math.ceil(PRICES[self.body["flavor"]] * 60 * self.running_secs / 3600)

    def shown(self) -> dict[str, Any]:
        """The answer of the API: secrets by their names alone."""
        durations = None if self.started is None else {"scheduling_secs": 0, "running_secs": self.running_secs}
        return {
            "id": self.id,
            "createdAt": _time(self.created),
            "startedAt": _time(self.started),
            "finishedAt": _time(self.finished),
            "dockerImage": self.body.get("dockerImage"),
            "command": self.body["command"],
            "arguments": self.body.get("arguments", []),
            "environment": self.body.get("environment", {}),
            "secrets": dict.fromkeys(self.body.get("secrets", {})),
            "flavor": self.body["flavor"],
            "labels": self.labels,
            "volumes": self.body.get("volumes"),
            "status": {"stage": self.stage, "message": self.message},
            "durations": durations and {**durations, "total_secs": self.running_secs},
            "owner": {"id": "0", "name": self.namespace, "type": "user"},
        }


class Jobs:
    """The service: give its `routes` to an `Emulator` as `extra`."""

    def __init__(self, behave: Callable[[Mapping[str, Any]], Behavior] = lambda body: Behavior()) -> None:
        self.behave = behave
        self.all: list[EmulatedJob] = []
        self.posts = 0
        """Requests for a job, those without effect included."""
        self.variables: dict[str, str] = {}
        """Added to every job's environment, e.g. where Trackio is."""
        self._hub: Hub

    def routes(self, hub: Hub) -> Sequence[Route]:
        """The routes under /api/jobs."""
        self._hub = hub
        one = "/api/jobs/{ns}/{id}"
        return [
            Route("/api/jobs/hardware", self._hardware),
            Route("/api/jobs/{ns}", self._create, methods=["POST"]),
            Route("/api/jobs/{ns}", self._list, methods=["GET"]),
            Route(one, self._inspect),
            Route(f"{one}/cancel", self._cancel, methods=["POST"]),
            Route(f"{one}/logs", self._logs),
        ]

    def keyed(self, label: str, value: str) -> list[EmulatedJob]:
        """The jobs with a label."""
        return [job for job in self.all if job.labels.get(label) == value]

    def close(self) -> None:
        """End what runs."""
        for job in self.all:
            job.canceled.set()
        for job in self.all:
            job.over.wait(2 * GRACE_S)

    # --- requests ----------------------------------------------------------------------------------------------------

    async def _hardware(self, request: Request) -> Response:
        return JSONResponse([_hardware(name) for name in PRICES])

    async def _create(self, request: Request) -> Response:
        self.posts += 1
        namespace, body = request.path_params["ns"], await request.json()
        user = known_caller(self._hub, request)
        require(user, namespace, "job.write")
        if not user.can_pay:
            raise HubError(402, "Payment required: add credit to run jobs")
        if body.get("flavor") not in PRICES:
            raise HubError(400, f"unknown flavor {body.get('flavor')!r}")
        behavior = self.behave(body)
        await asyncio.sleep(behavior.accept_s)
        job = EmulatedJob(id=secrets.token_hex(12), namespace=namespace, body=body, behavior=behavior)
        with self._hub.lock:
            self.all.append(job)
        threading.Thread(target=self._run, args=(job,), daemon=True).start()
        return JSONResponse(job.shown())

    async def _list(self, request: Request) -> Response:
        namespace, query = request.path_params["ns"], request.query_params
        require(known_caller(self._hub, request), namespace, "job.read")
        stages, labels = query.getlist("stage"), [label.partition("=")[::2] for label in query.getlist("label")]
        found = [
            job
            for job in self.all
            if job.namespace == namespace
            and (not stages or job.stage in stages)
            and all(job.labels.get(name) == value for name, value in labels)
            and time.time() - job.created >= job.behavior.hidden_s
        ]
        at = int(query.get("cursor", 0))
        headers = {}
        if at + PAGE < len(found):
            following = request.url.include_query_params(cursor=at + PAGE)
            headers["Link"] = f'<{following}>; rel="next"'
        return JSONResponse([job.shown() for job in found[at : at + PAGE]], headers=headers)

    async def _inspect(self, request: Request) -> Response:
        return JSONResponse(self._asked(request).shown())

    async def _cancel(self, request: Request) -> Response:
        self._asked(request, "job.write").canceled.set()
        return JSONResponse({})

    async def _logs(self, request: Request) -> Response:
        job = self._asked(request)
        tail = request.query_params.get("tail")
        first = 0 if tail is None else max(0, len(job.lines) - int(tail))
        # Without following, the client ends a log at the first line that is later than this: uvicorn's own lags behind.
        now = formatdate(time.time() + 1, usegmt=True)
        return StreamingResponse(_events(job, first), media_type="text/event-stream", headers={"Date": now})

    def _asked(self, request: Request, permission: str = "job.read") -> EmulatedJob:
        namespace = request.path_params["ns"]
        require(known_caller(self._hub, request), namespace, permission)
        for job in self.all:
            if (job.namespace, job.id) == (namespace, request.path_params["id"]):
                return job
        raise HubError(404, "Job not found")

    # --- a job's life ------------------------------------------------------------------------------------------------

    def _run(self, job: EmulatedJob) -> None:
        try:
            self._live(job)
        except Exception as error:  # noqa: BLE001 - a job that fails is an answer
            self._end(job, "ERROR", f"{type(error).__name__}: {error}")
        job.over.set()

    def _live(self, job: EmulatedJob) -> None:
        behavior = job.behavior
        if job.canceled.wait(None if behavior.stuck else behavior.queued_s):
            self._end(job, "CANCELED", None)
            return
        job.started, job.stage = time.time(), "RUNNING"
        limit = float(job.body.get("timeoutSeconds") or 1800)
        if behavior.end is not None:
            self._end(job, *behavior.end)
            return
        if behavior.idle_s is not None:
            canceled = job.canceled.wait(min(behavior.idle_s, limit))
            late = behavior.idle_s > limit
            self._end(
                job, "CANCELED" if canceled else "ERROR" if late else "COMPLETED", "Job timeout" if late else None
            )
            return
        job.process = process = self._start(job)
        reader = threading.Thread(target=_read, args=(job, process), daemon=True)
        reader.start()
        due = time.monotonic() + limit
        while process.poll() is None and not job.canceled.is_set() and time.monotonic() < due:
            time.sleep(0.02)
        late, canceled = process.poll() is None and time.monotonic() >= due, process.poll() is None
        _kill(process)
        reader.join(GRACE_S)
        if late:
            self._end(job, "ERROR", "Job timeout")
        elif canceled:
            self._end(job, "CANCELED", None)
        else:
            code = process.returncode
            self._end(job, "COMPLETED" if code == 0 else "ERROR", None if code == 0 else "Job failed")

    @staticmethod
    def _end(job: EmulatedJob, stage: str, message: str | None) -> None:
        job.finished = time.time()
        job.message, job.stage = message, stage

    def _start(self, job: EmulatedJob) -> subprocess.Popen[bytes]:
        for volume in job.body.get("volumes") or ():
            self._mount(volume)
        command = job.behavior.script
        argv = [sys.executable, "-c", command] if command else _here([*job.body["command"], *job.body["arguments"]])
        scratch = self._hub.root / "machines" / job.id
        scratch.mkdir(parents=True)
        return subprocess.Popen(
            argv,
            cwd=scratch,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(scratch),
                "LANG": "C.UTF-8",
                "JOB_ID": job.id,
                "HF_ENDPOINT": self._hub.endpoint,
                "HF_HOME": str(self._hub.root / "job_cache"),
                "HF_HUB_DISABLE_XET": "1",
                **self.variables,
                **job.body.get("environment", {}),
                **job.body.get("secrets", {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _mount(self, volume: Mapping[str, Any]) -> None:
        """Have a bucket at its place: a link there, unless the place is the bucket's folder itself."""
        folder = self._hub.bucket_folder(*volume["source"].split("/"))
        place = Path(volume["mountPath"])
        if place.resolve() != folder.resolve():
            place.symlink_to(folder)


def _here(command: list[str]) -> list[str]:
    """A command of uv by this Python, if its packages are here as they would be there."""
    from packaging.requirements import Requirement

    from hfagent.tools.script_command import is_installed

    assert command[:2] == ["uv", "run"], f"the image's entry is uv run, not {command[:2]}"
    rest = command[2:]
    while rest[0] in ("--with", "--python"):
        if rest[0] == "--with" and not is_installed(Requirement(rest[1])):
            raise RuntimeError(f"no solution found: {rest[1]}")
        rest = rest[2:]
    assert rest[0] == "python", f"a command of the image, not {rest[0]!r}"
    return [sys.executable, *rest[1:]]


def _read(job: EmulatedJob, process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        job.lines.append((time.time(), line.decode(errors="replace").rstrip("\n")))


def _kill(process: subprocess.Popen[bytes]) -> None:
    for number, wait_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)


async def _events(job: EmulatedJob, at: int) -> AsyncIterator[str]:
    quiet_since = time.monotonic()
    while True:
        over = job.stage in TERMINAL
        for when, line in job.lines[at:]:
            at += 1
            quiet_since = time.monotonic()
            yield f"data: {json.dumps({'timestamp': _time(when), 'data': line})}\n\n"
        if over:
            return
        if time.monotonic() - quiet_since > KEEP_ALIVE_S:
            quiet_since = time.monotonic()
            yield ": keep-alive\n\n"
        await asyncio.sleep(0.1)


def _hardware(name: str) -> dict[str, Any]:
    model, vram = GPUS.get(name, (None, 0))
    accelerator = {"type": "gpu", "model": model, "quantity": "1", "vram": f"{vram} GB", "manufacturer": "Nvidia"}
    return {
        "name": name,
        "prettyName": name,
        "cpu": "4 vCPU",
        "ram": "30 GB",
        "ephemeralStorage": "100 GB",
        "accelerator": accelerator if model else None,
        "unitCostMicroUSD": PRICES[name],
        "unitCostUSD": PRICES[name] / 1e6,
        "unitLabel": "minute",
    }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
