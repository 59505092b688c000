"""The processes of a job, found by a mark that each carries, also without its supervisor. Standard library only."""

import contextlib
import os
from pathlib import Path

from hfagent.tools.job_supervisor import MARKER, processes


def marked(folder: Path) -> list[int]:
    """The living processes of a job, by the marker in the environment they were started with."""
    wanted = os.fsencode(f"{MARKER}={folder}")
    found = []
    for entry in processes():
        # Other people's processes are not readable.
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found
