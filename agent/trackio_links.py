"""Where a person sees the metrics of a run. Pure."""

import shlex
from urllib.parse import urlencode

from hfagent.agent.records import Plan


def space_url(space: str) -> str:
    """The address of a Space's own page, `https://<user>-<name>.hf.space`."""
    name = space.replace("/", "-", 1).lower().replace("_", "-").replace(".", "-")
    return f"https://{name}.hf.space"


def run_link(plan: Plan, project: str, run: str) -> str:
    """The dashboard of a run, or the command that shows it where metrics lie in a local folder."""
    if plan.trackio_url is None:
        folder = shlex.quote(f"{plan.state_dir or '.hfagent'}/trackio")
        return f"TRACKIO_DIR={folder} trackio show --project {project}"
    asked = urlencode({"project": project, "runs": run, "metrics": "train/loss", "sidebar": "hidden"})
    return f"{plan.trackio_url.rstrip('/')}/?{asked}"
