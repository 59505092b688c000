"""The private bucket that jobs have as a folder: what they need is put there, what they leave is read from there.

code/<hash>/hfagent/...   this package, once a version
data/<hash>/<name>        local files and folders that a job reads, by their content
jobs/<key>/<n>/           one job; a second one of a key has another n
  exit.json               the exit code, which the Jobs API does not tell
  result.json             the object of the RESULT line
  out/...                 its --output-dir: checkpoints, adapter
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from hfagent.agent.errors import BackendAway, JobError, NoRoom
from hfagent.tools.hub_calls import ask, explained
from hfagent.tools.job_home import MEND

MOUNT = "/hfagent"
COMPLETE = ".complete"
"""Written after all else of a folder, since a batch is no transaction."""
JOB_DEPTH = 3
"""Parts of the path of a job's folder, below which is what it left."""
SMALL_BYTES = 16 << 20
"""No JSON file that is read back is larger."""


class JobBucket:
    """A bucket of one namespace, shared by its projects.

    Args:
        api: a `huggingface_hub.HfApi`.
        bucket: `namespace/name`; made private where it does not exist.
        mount: where jobs see it.
    """

    def __init__(self, api: Any, bucket: str, *, mount: str = MOUNT) -> None:
        self._api = api
        self.bucket = bucket
        self.mount = mount.rstrip("/")
        self._ready = False
        self._placed: dict[str, str] = {}

    def volume(self) -> Any:
        """What a job is started with."""
        from huggingface_hub import Volume

        return Volume(type="bucket", source=self.bucket, mount_path=self.mount)

    def path(self, *parts: str) -> str:
        """Where a job sees a file or folder of the bucket."""
        return "/".join((self.mount, *parts))

    def put(self, source: Path) -> str:
        """The job's path of a local file or folder, which is uploaded unless the same content is there already.

        Raises:
            BackendAway: not now.
            JobError: it cannot be read or stored.
        """
        files = _files(source)
        digest = _digest(files)
        if digest not in self._placed:
            self._upload(f"data/{digest}", files)
            self._placed[digest] = self.path("data", digest, source.name)
        return self._placed[digest]

    def put_package(self, package: Path) -> str:
        """The job's folder to import `hfagent` from."""
        names = ("agent", "tools", "job_templates")
        files = {
            f"hfagent/{path.relative_to(package).as_posix()}": path
            for path in sorted(
                [*package.glob("*.py"), *(file for name in names for file in (package / name).rglob("*"))]
            )
            if path.is_file() and "__pycache__" not in path.parts
        }
        digest = _digest(files)
        if digest not in self._placed:
            self._upload(f"code/{digest}", files)
            self._placed[digest] = self.path("code", digest)
        return self._placed[digest]

    def read_json(self, *parts: str) -> dict[str, Any] | None:
        """A small JSON object that a job has written; None where there is none that can be read.

        Raises:
            BackendAway: not now.
        """
        name = "/".join(parts)
        info = next(iter(self._infos([name])), None)
        if info is None or not 0 < info.size <= SMALL_BYTES:
            return None
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "read.json"
            self._download([(info, target)])
            try:
                value = json.loads(target.read_bytes())
            except (OSError, ValueError):
                return None
        return value if isinstance(value, dict) else None

    def checkpoints(self, *parts: str) -> dict[str, str]:
        """Step -> the job's path of a checkpoint that was written whole, below a folder of the bucket."""
        found = {}
        for path in self.files(*parts):
            pure = PurePosixPath(path)
            # The Trainer writes this file last.
            if pure.name == "trainer_state.json" and pure.parent.name.startswith("checkpoint-"):
                found[pure.parent.name.removeprefix("checkpoint-")] = self.path(str(pure.parent))
        return dict(sorted(found.items(), key=lambda item: int(item[0])))

    def files(self, *parts: str) -> list[str]:
        """The files below a folder, by their paths in the bucket."""
        return [info.path for info in self._below("/".join(parts))]

    def copy(self, job_path: str, folder: Path) -> Path:
        """A file or folder of a job on this machine: in `folder` by its path in the bucket, in place of an older one.

        Raises:
            BackendAway: not now.
            JobError: there is none in the bucket.
            NoRoom: it cannot be written here.
        """
        inside = self.inside(job_path)
        parts = PurePosixPath(inside).parts
        of_a_job = parts[:1] == ("jobs",) and len(parts) > JOB_DEPTH and ".." not in parts
        found = (self._infos([inside]) or self._below(inside)) if of_a_job else []
        if not found:
            raise JobError(f"there is no {job_path!r} of a job in the bucket {self.bucket}")
        if strange := [info.path for info in found if ".." in PurePosixPath(info.path).parts]:
            raise JobError(f"{strange[0]!r} in the bucket {self.bucket} would lie outside its folder here")
        target = folder / inside
        new = target.with_name(f".{target.name}.new")
        try:
            _remove(new)
            new.parent.mkdir(parents=True, exist_ok=True)
            needed, free = sum(info.size for info in found), shutil.disk_usage(new.parent).free
            if needed > free:
                raise NoRoom(f"{str(target)!r} needs {needed} bytes, and {free} are free; {MEND}")
            places = [(info, new / PurePosixPath(info.path).relative_to(inside)) for info in found]
            for _, place in places:
                place.parent.mkdir(parents=True, exist_ok=True)
            self._download(places)
            _remove(target)
            new.rename(target)
        except OSError as error:
            raise NoRoom(f"{str(target)!r} cannot be written: {error.strerror}; {MEND}") from error
        return target

    def inside(self, job_path: str) -> str:
        """The path in the bucket of a job's path; one elsewhere as it is."""
        return job_path.removeprefix(self.mount + "/")

    def has(self, job_path: str) -> bool:
        """Whether there is a file at a job's path, or anything below it."""
        inside = self.inside(job_path)
        return inside != job_path and (bool(self._infos([inside])) or bool(self.files(inside)))

    # --- inside ------------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        if not self._ready:
            ask(lambda: self._api.create_bucket(self.bucket, private=True, exist_ok=True))
            self._ready = True

    def _infos(self, names: list[str]) -> list[Any]:
        self._make()
        return ask(lambda: list(self._api.get_bucket_paths_info(self.bucket, names)))

    def _below(self, folder: str) -> list[Any]:
        self._make()
        prefix = f"{folder}/"
        entries = ask(lambda: list(self._api.list_bucket_tree(self.bucket, prefix=prefix, recursive=True)))
        return [entry for entry in entries if entry.type == "file" and entry.path.startswith(prefix)]

    def _upload(self, prefix: str, files: Mapping[str, Path]) -> None:
        marker = f"{prefix}/{COMPLETE}"
        if self._infos([marker]):
            return
        adds = [(path, f"{prefix}/{name}") for name, path in files.items()]
        self._batch(adds)
        self._batch([(b"1", marker)])

    def _batch(self, add: list[tuple[Any, str]]) -> None:
        from huggingface_hub.errors import BucketBatchError

        try:
            with explained():
                self._api.batch_bucket_files(self.bucket, add=add)
        except (BucketBatchError, RuntimeError, OSError) as error:
            if isinstance(error, JobError):
                raise
            # hf_xet raises RuntimeError and OSError for a network that fails and for a file that cannot be read alike.
            raise BackendAway(f"files for the jobs could not be stored in {self.bucket}: {error}") from error

    def _download(self, places: list[tuple[Any, Path]]) -> None:
        try:
            with explained():
                self._api.download_bucket_files(self.bucket, places)
        except (RuntimeError, OSError) as error:
            if isinstance(error, JobError):
                raise
            raise BackendAway(f"{places[0][0].path!r} could not be read from {self.bucket}: {error}") from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _files(source: Path) -> dict[str, Path]:
    """Name in the bucket -> file, of a file or of all files below a folder."""
    if source.is_file():
        return {source.name: source}
    found = {
        f"{source.name}/{path.relative_to(source).as_posix()}": path
        for path in sorted(source.rglob("*"))
        if path.is_file()
    }
    if not found:
        raise JobError(f"{str(source)!r} is an empty folder: nothing to give to a job")
    return found


def _digest(files: Mapping[str, Path]) -> str:
    """Of names and contents, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    try:
        for name, path in files.items():
            digest.update(f"{name}\n{path.stat().st_size}\n".encode())
            for block in _blocks(path):
                digest.update(block)
    except OSError as error:
        raise JobError(f"{error.filename!r} cannot be read, and a job needs it: {error.strerror}") from error
    return digest.hexdigest()[:16]


def _blocks(path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block
