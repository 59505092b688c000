"""What runners share whose jobs lie in folders: names, scripts, arguments and variables."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import hfagent
from hfagent.agent.errors import JobError, NoRoom
from hfagent.agent.records import JobSpec
from hfagent.tools import job_folder
from hfagent.tools.script_command import script_command

_LOG_TAIL_BYTES = 1 << 20
MEND = "make room or make it writable, then `hfagent resume`"
_KEY = re.compile(r"[A-Za-z0-9_-]{1,100}")


class JobHome:
    """The folder of the job folders, and what a job is started with.

    Args:
        root: folder of the job folders.
        templates: folder of the job scripts; None takes the package's own.
        trackio_dir: where jobs log their metrics; None leaves it to the environment.
    """

    def __init__(self, root: Path, *, templates: Path | None, trackio_dir: Path | None) -> None:
        self.root = root.resolve()
        self._package = Path(hfagent.__file__).parent
        self._templates = (templates or self._package / "job_templates").resolve()
        self._trackio_dir = trackio_dir.resolve() if trackio_dir else None

    def folder(self, key: str) -> Path | None:
        """The folder of a key; None where it has none."""
        folder = self.root / key
        return folder if _KEY.fullmatch(key) and folder.is_dir() else None

    def keys(self, label: str) -> list[str]:
        """Keys that begin with the label and have a folder."""
        return sorted(path.name for path in self.root.glob(f"{label}-*"))

    def make_folder(self, spec: JobSpec) -> Path:
        """The folder of a job, made where it is missing.

        Raises:
            NoRoom: it cannot be made.
        """
        folder = self.root / spec.key
        try:
            job_folder.create(folder, spec, package=self._package)
        except OSError as error:
            raise NoRoom(f"the job folder {str(folder)!r} cannot be made: {error.strerror}; {MEND}") from error
        return folder

    def require_same(self, spec: JobSpec) -> None:
        """Refuse a key for another job than the one that its folder was made for.

        Raises:
            JobError: it belongs to another, or the folder cannot be read.
        """
        folder = self.root / spec.key
        try:
            earlier = job_folder.read_spec(folder)
        except (OSError, ValueError) as error:
            raise JobError(f"the job folder {str(folder)!r} cannot be used: {error}") from error
        if earlier != spec:
            differing = [name for name in JobSpec.model_fields if getattr(earlier, name) != getattr(spec, name)]
            raise JobError(
                f"key {spec.key!r} belongs to a job with other {', '.join(differing)}: a changed job needs a new key"
            )

    def command(self, spec: JobSpec) -> list[str]:
        """What runs the job's script.

        Raises:
            JobError: there is no such script.
            PackageMissing: neither this Python nor uv can run it.
        """
        template = self._templates / spec.template
        if Path(spec.template).name != spec.template or not template.is_file():
            known = ", ".join(sorted(path.name for path in self._templates.glob("[!_]*.py")))
            raise JobError(f"no job template {spec.template!r} in {str(self._templates)!r}: there are {known}")
        return [*script_command(template, spec.args), *spec.args, "--output-dir", str(self.root / spec.key / "out")]

    def environment(self, folder: Path) -> dict[str, str]:
        """The variables of a job: this process's, and those that each job gets."""
        # The planner's keys stay with the planner; HF_TOKEN goes on, since jobs push to the Hub.
        kept = {name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "HFAGENT_NOTIFY"))}
        paths = [str(folder / "import"), *filter(None, [kept.get("PYTHONPATH")])]
        added = {
            "PYTHONPATH": os.pathsep.join(paths),
            # Threads that spin at a barrier cost another process of this machine its core: 26 to 44 s a training step
            # beside a busy process, 7 to 9 s so (2 cores).
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
            "PYTHONSAFEPATH": "1",  # a template's neighbours must not shadow packages of the same name
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if self._trackio_dir:
            added["TRACKIO_DIR"] = str(self._trackio_dir)
        return kept | added


def end_of_log(log: Path, tail: int) -> Sequence[str]:
    """The last lines of a log, oldest first, out of the last MiB; each state of a progress bar is a line."""
    text = job_folder.read_end(log, _LOG_TAIL_BYTES).decode(errors="replace")
    lines = [line for line in re.split(r"[\r\n]+", text) if line]
    return lines[-tail:] if tail > 0 else []


def left(path: str) -> Path:
    """What a job has left, on a disk that it shares with this process.

    Raises:
        JobError: nothing is there.
    """
    if not os.path.exists(path):  # noqa: PTH110 - False, too, for what may not be looked at
        raise JobError(f"there is no {path!r}, which a job is to have left")
    return Path(path)
