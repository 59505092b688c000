"""A night on Hugging Face Jobs: whose account, which bucket, where the metrics go."""

import os

from hfagent.agent.ports import JobRunner, Tracker
from hfagent.agent.settings import Settings
from hfagent.agent.trackio_links import space_url

BUCKET = "hfagent"
SPACE = "trackio"
"""Names in the account's namespace, unless settings give others."""


def metrics_url(settings: Settings, namespace: str) -> str:
    """Where the metrics of jobs on hf are: a server of one's own, else a Space."""
    return settings.trackio_server_url or space_url(settings.trackio_space or f"{namespace}/{SPACE}")


def hf_runner(settings: Settings) -> JobRunner:
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
    url = metrics_url(settings, owner.namespace)
    if url.endswith(".hf.space"):
        environment["TRACKIO_SPACE_ID"] = settings.trackio_space or f"{owner.namespace}/{SPACE}"
    else:
        environment["TRACKIO_SERVER_URL"] = url
        if write_token := os.environ.get("TRACKIO_WRITE_TOKEN"):
            secrets["TRACKIO_WRITE_TOKEN"] = write_token
    return HfJobRunner(
        owner.api,
        owner.namespace,
        JobBucket(owner.api, f"{owner.namespace}/{BUCKET}", mount=settings.job_mount),
        environment=environment,
        secrets=secrets,
        poll_s=settings.look_s,
        settle_s=settings.settle_s,
    )


def hf_tracker(settings: Settings, runner: JobRunner) -> Tracker:
    """The reader of their metrics."""
    from hfagent.tools.hf_account import account
    from hfagent.tools.metrics_http import TrackioServer

    owner = account(settings)
    url = metrics_url(settings, owner.namespace)
    return TrackioServer(url, token=owner.token if url.endswith(".hf.space") else None, runner=runner)
