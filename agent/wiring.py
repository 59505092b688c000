"""The real parts of a night, put together from the settings: only here is known which class stands behind a seam."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hfagent.agent.clock import SystemClock
from hfagent.agent.clusters import CLUSTERS
from hfagent.agent.control import FolderMailbox, Mailbox, StageMailbox
from hfagent.agent.errors import PackageMissing, SettingsError, UsageError
from hfagent.agent.ledger import pipeline_of
from hfagent.agent.ports import JobRunner, Ports, Tracker
from hfagent.agent.records import Plan
from hfagent.agent.settings import Settings

LOCAL_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "lighteval")
RECORDED = ("hfagent", "torch", "transformers", "trl", "peft", "datasets", "lighteval", "trackio", "smolagents")


@dataclass(frozen=True)
class Paths:
    """Where a project lives."""

    reports: Path
    project: str

    @property
    def ledger(self) -> Path:
        """The project's only memory."""
        return self.reports / f"{self.project}.jsonl"

    @property
    def report(self) -> Path:
        """The rendered report."""
        return self.reports / f"{self.project}.md"

    def abandon(self) -> None:
        """Leave nothing of a project that never started; for who holds its ledger, which goes last."""
        folder = self.report.with_suffix("")
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        for path in (self.report, self.ledger):
            path.unlink(missing_ok=True)

    def mailbox(self, state_dir: Path) -> FolderMailbox:
        """What is asked of the process that holds the ledger."""
        return FolderMailbox(state_dir / "control" / self.project)


def mailbox_of(paths: Paths, settings: Settings, plan: Plan) -> Mailbox:
    """What is asked of a project, or of the pipeline that it is a stage of."""
    own = paths.mailbox(settings.state_dir)
    if plan.stage is None:
        return own
    return StageMailbox(own, Paths(paths.reports, plan.stage.pipeline).mailbox(settings.state_dir))


def night_ports(settings: Settings) -> Ports:
    """The outside world of a night, with its jobs where the settings say."""
    from hfagent.agent.looks import LookBook
    from hfagent.agent.search import OptunaSearcher
    from hfagent.tools.contamination import Firewall
    from hfagent.tools.dataset_read import DatasetReader, auto_tokenizer
    from hfagent.tools.dataset_store import LocalDatasetStore
    from hfagent.tools.embedded_model import EmbeddedModelStore

    runner = job_runner(settings)
    return Ports(
        runner=runner,
        tracker=_tracker(settings, runner),
        checker=DatasetReader(load_tokenizer=auto_tokenizer),
        models=EmbeddedModelStore(settings.cache_dir),
        datasets=LocalDatasetStore(settings.state_dir / "data"),
        clock=SystemClock(),
        firewall=Firewall(settings.state_dir / "data"),
        searcher=OptunaSearcher(settings.reports_dir),
        looks=LookBook(settings.looks_file),
    )


def as_planned(settings: Settings, plan: Plan) -> Settings:
    """The settings with where the project's jobs are, wherever it is gone on from."""
    changes: dict[str, Any] = {"backend": plan.backend}
    if plan.state_dir is not None:
        changes["state_dir"] = Path(plan.state_dir)
    if plan.backend == "hf":
        server = plan.trackio_url if plan.trackio_space is None else None
        changes |= {"namespace": plan.namespace, "trackio_space": plan.trackio_space, "trackio_server_url": server}
    if plan.backend in CLUSTERS:
        changes["cluster_gpu"] = plan.gpu
    return settings.model_copy(update=changes)


def job_runner(settings: Settings) -> JobRunner:
    """Where jobs run."""
    if settings.backend == "hf":
        from hfagent.agent.hf_wiring import hf_runner

        return hf_runner(settings)
    if settings.backend in CLUSTERS:
        from hfagent.agent.cluster_wiring import cluster_runner

        return cluster_runner(settings)
    from hfagent.tools.local_jobs import LocalJobRunner

    return LocalJobRunner(settings.state_dir / "jobs", trackio_dir=trackio_dir(settings))


def _tracker(settings: Settings, runner: JobRunner) -> Tracker:
    if settings.backend == "hf":
        from hfagent.agent.hf_wiring import hf_tracker

        return hf_tracker(settings, runner)
    from hfagent.tools.metrics import TrackioTracker

    return TrackioTracker(trackio_dir(settings), runner=runner)


def trackio_dir(settings: Settings) -> Path:
    """Each state folder has a Trackio store of its own, so that equal run names of two projects never mix."""
    return settings.state_dir / "trackio"


def preflight(settings: Settings, plan: Plan | None = None) -> None:
    """What must be there before a night is begun; the account on the Hub or the cluster, too, where its jobs run there.

    Raises:
        PackageMissing: a package of the extra `local` or `ray` is not installed.
        SettingsError: a folder cannot be written, or see `hf_doctor.require` and `cluster_doctor.require`.
        AccountRefused, BackendAway: see there.
        EvaluationError: no sandbox works here and unsafe execution was not allowed.
    """
    missing = [name for name in LOCAL_PACKAGES if settings.backend != "hf" and find_spec(name) is None]
    if missing:
        raise PackageMissing(
            f"{settings.backend} jobs need {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            'installed: run `pip install -c constraints.txt -e ".[local]"`'
        )
    for flag, folder in (("--reports-dir", settings.reports_dir), ("--state-dir", settings.state_dir)):
        require_writable(folder, flag)
    if plan is not None and plan.backend == "hf":
        from hfagent.tools.hf_doctor import require

        require(settings, plan)
    if plan is not None and plan.backend in CLUSTERS:
        from hfagent.tools import cluster_doctor

        cluster_doctor.require(settings)
    if settings.backend != "local":
        return
    from hfagent.tools.sandbox import Sandbox

    Sandbox.choose(unsafe=settings.unsafe_exec)


def require_writable(folder: Path, flag: str) -> None:
    """Make the folder, or say which flag chooses another.

    Raises:
        SettingsError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise SettingsError(
            f"cannot write the folder {str(folder)!r}: {error.strerror}; choose another with {flag}"
        ) from error


def versions(names: Iterable[str] = RECORDED) -> dict[str, str]:
    """Installed versions, for the record."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def has_gpu(settings: Settings) -> bool:
    """Whether jobs find an accelerator, without importing torch; on hf the flavor says it."""
    if settings.backend in CLUSTERS:
        from hfagent.agent.cluster_wiring import has_gpu as of_cluster

        return of_cluster(settings)
    machine = os.uname()
    return any(Path("/dev").glob("nvidia[0-9]*")) or (machine.sysname, machine.machine) == ("Darwin", "arm64")


def hub_reachable(*, timeout_s: float = 3.0) -> bool:
    """Whether the Hub answers; False when HF_HUB_OFFLINE is set."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    import socket
    from urllib.parse import urlsplit

    url = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        with socket.create_connection((url.hostname or "", url.port or 443), timeout=timeout_s):
            return True
    except OSError:
        return False


def find_project(reports: Path, project: str | None) -> Paths:
    """The project named, or the one written last: of a pipeline's stage the pipeline.

    Raises:
        UsageError: there is none.
    """
    ledgers = sorted(reports.glob("*.jsonl"), key=lambda path: path.stat().st_mtime) if reports.is_dir() else []
    names = [path.stem for path in ledgers]
    if project is None:
        if not names:
            raise UsageError(
                f'no project in {str(reports)!r}: start one with `hfagent "improve code solving with SFT"`'
            )
        above = pipeline_of(ledgers[-1])
        return Paths(reports, above if above in names else names[-1])
    if project not in names:
        raise UsageError(f"no project {project!r} in {str(reports)!r}; there are: {', '.join(names) or 'none'}")
    return Paths(reports, project)
