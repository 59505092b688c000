"""What this machine can do, and what to do about what it cannot."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from hfagent.agent.errors import HfagentError, UsageError
from hfagent.agent.records import Record
from hfagent.agent.settings import Settings

MIN_DISK_GIB = 3.0
"""The embedded night writes 0.6 GiB; a 0.6B model with checkpoints about 3."""
HUB_TIMEOUT_S = 5.0


class Check(Record):
    """One finding."""

    name: str
    status: Literal["ok", "note", "broken"]
    """`note`: something that a local night does without."""
    detail: str
    mend: str | None = None


def examine(settings: Settings, *, model: str | None = None, dataset: str | None = None) -> list[Check]:
    """All checks, in the order in which a night meets them.

    Args:
        settings: folders, and where jobs run.
        model: looked for on the Hub, for jobs there.
        dataset: likewise.

    Raises:
        UsageError: a model or dataset is named, and jobs do not run on the Hub.
    """
    local = settings.backend == "local"
    here = settings.backend != "hf"
    if here and (model or dataset):
        raise UsageError("--model and --dataset are looked for on the Hub: add --backend hf")
    checks: list[Callable[[], Check]] = [
        _python,
        lambda: _packages("local" if here else ""),
        *([_device] if local else []),
        lambda: _disk(settings.reports_dir),
        lambda: _writable("reports folder", settings.reports_dir, "--reports-dir"),
        lambda: _writable("state folder", settings.state_dir, "--state-dir"),
        *([_sandbox] if local else []),
        *([_trackio, _token] if here else []),
    ]
    found = [check() for check in checks]
    if local:
        return found
    if here:
        from hfagent.tools import cluster_doctor

        return [*found, *cluster_doctor.examine(settings)]
    from hfagent.tools import hf_doctor

    return [*found, *hf_doctor.examine(settings, model=model, dataset=dataset)]


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check(name="python", status="ok", detail=f"{found} ({sys.executable})")


def _packages(extra: str) -> Check:
    from packaging.requirements import Requirement

    missing = []
    for text in requires("hfagent") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            if not requirement.specifier.contains(version(requirement.name), prereleases=True):
                missing.append(f"{requirement} (found {version(requirement.name)})")
        except PackageNotFoundError:
            missing.append(str(requirement).split(";")[0].strip())
    if missing:
        mend = f'pip install -c constraints.txt -e ".[{extra}]"' if extra else "pip install -c constraints.txt -e ."
        return Check(name="packages", status="broken", detail="missing: " + ", ".join(missing), mend=mend)
    names: tuple[str, ...] = ("trackio", "smolagents", "huggingface_hub")
    if extra:
        names = ("torch", "transformers", "trl", "lighteval", *names)
    return Check(name="packages", status="ok", detail=", ".join(f"{name} {version(name)}" for name in names))


def _device() -> Check:
    try:
        from hfagent.job_templates.runtime import pick_precision

        precision = pick_precision()
    except ImportError as error:
        return Check(
            name="device",
            status="broken",
            detail=f"torch cannot be imported: {error}",
            mend='pip install "hfagent[local]"',
        )
    cores = os.cpu_count() or 1
    detail = f"{precision.hardware}, {precision.dtype}, {cores} cores"
    if precision.device == "cpu":
        return Check(
            name="device",
            status="note",
            detail=detail,
            mend="no GPU: the embedded model trains in minutes, a 0.6B model in hours",
        )
    return Check(name="device", status="ok", detail=detail)


def _disk(folder: Path) -> Check:
    free_gib = shutil.disk_usage(_existing(folder)).free / 2**30
    detail = f"{free_gib:.1f} GiB free"
    if free_gib < MIN_DISK_GIB:
        return Check(name="disk", status="broken", detail=detail, mend=f"free at least {MIN_DISK_GIB:.0f} GiB")
    return Check(name="disk", status="ok", detail=detail)


def _writable(name: str, folder: Path, flag: str) -> Check:
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return Check(name=name, status="ok", detail=str(folder))
    except OSError as error:
        return Check(
            name=name, status="broken", detail=f"{folder}: {error.strerror}", mend=f"choose another with {flag}"
        )


def _sandbox() -> Check:
    from hfagent.tools.sandbox import Sandbox

    try:
        return Check(name="sandbox", status="ok", detail=Sandbox.choose().name)
    except HfagentError as error:
        mend = "install bubblewrap, use a Python that this user may run, or accept --unsafe-exec"
        return Check(name="sandbox", status="broken", detail=str(error), mend=mend)


def _trackio() -> Check:
    try:
        return Check(name="trackio", status="ok", detail=f"{version('trackio')}, local store")
    except PackageNotFoundError:
        return Check(name="trackio", status="broken", detail="not installed", mend="pip install trackio")


def _token() -> Check:
    from huggingface_hub import get_token, whoami
    from huggingface_hub.errors import HfHubHTTPError

    mend = "only the Hub needs it: create a write token and set HF_TOKEN, or `hf auth login`"
    token = get_token()
    if token is None:
        return Check(name="token", status="note", detail="none", mend=mend)
    try:
        found = whoami(token=token)
    except HfHubHTTPError as error:
        return Check(name="token", status="broken", detail=f"refused by the Hub: {error.server_message}", mend=mend)
    except (OSError, RuntimeError) as error:
        return Check(name="token", status="note", detail=f"set, but the Hub is not reachable ({type(error).__name__})")
    role = found.get("auth", {}).get("accessToken", {}).get("role", "unknown")
    return Check(name="token", status="ok" if role != "read" else "note", detail=f"{found['name']}, role {role}",
                 mend=None if role != "read" else "publishing needs a token with the role write")  # fmt: skip


def _existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    folder = folder.resolve()
    # os.path.exists is False, where Path.exists raises, for what this user may not look at.
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110
