"""A night on Hugging Face Jobs: whose account, which bucket, where the metrics go."""

import os
from typing import TYPE_CHECKING

from hfagent.agent.ports import JobRunner, Tracker
from hfagent.agent.settings import Settings
from hfagent.agent.trackio_links import space_url

if TYPE_CHECKING:
    from hfagent.tools.hf_jobs import HfJobRunner

BUCKET = "hfagent"
SPACE = "trackio"
"""Names in the account's namespace, unless settings give others."""


def metrics_space(settings: Settings, namespace: str) -> str | None:
    """The Space that has the metrics of jobs on hf; None where a server of one's own has them."""
    return None if settings.trackio_server_url else settings.trackio_space or f"{namespace}/{SPACE}"


def metrics_url(settings: Settings, namespace: str) -> str:
    """Where they are read."""
    space = metrics_space(settings, namespace)
    return str(settings.trackio_server_url) if space is None else space_url(space)


def hf_runner(settings: Settings) -> "HfJobRunner":
    """The runner of jobs on hf."""
    from hfagent.tools.hf_account import account
    from hfagent.tools.hf_jobs import HfJobRunner
    from hfagent.tools.job_bucket import JobBucket

    owner = account(settings)
    environment = {
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    secrets = {"HF_TOKEN": owner.token}
    space = metrics_space(settings, owner.namespace)
    if space is not None:
        environment["TRACKIO_SPACE_ID"] = space
    else:
        environment["TRACKIO_SERVER_URL"] = metrics_url(settings, owner.namespace)
        if write_token := os.environ.get("TRACKIO_WRITE_TOKEN"):
            secrets["TRACKIO_WRITE_TOKEN"] = write_token
    return HfJobRunner(
        owner.api,
        owner.namespace,
        JobBucket(owner.api, f"{owner.namespace}/{BUCKET}", mount=settings.job_mount),
        environment=environment,
        secrets=secrets,
        copies=settings.state_dir.resolve(),
        poll_s=settings.look_s,
        settle_s=settings.settle_s,
    )


def hf_tracker(settings: Settings, runner: JobRunner) -> Tracker:
    """The reader of their metrics."""
    from hfagent.tools.hf_account import account
    from hfagent.tools.metrics_http import TrackioServer

    owner = account(settings)
    space = metrics_space(settings, owner.namespace)
    token = None if space is None else owner.token
    return TrackioServer(metrics_url(settings, owner.namespace), token=token, runner=runner)
