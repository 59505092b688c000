"""A git repo as the Hub shows it: commits that are whole lists of files, refs, settings; one JSON file on disk."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel
from tests.emulator.errors import HubError, unknown_entry

Kind = Literal["model", "dataset", "space"]
URL_PREFIX = {"model": "", "dataset": "datasets/", "space": "spaces/"}
POINTER_BYTES = 134
GIT_ATTRIBUTES = "".join(
    f"*.{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in ("safetensors", "parquet", "bin", "gguf", "zip")
).encode()
"""In the first commit of every repo, as on the Hub."""


class StoredFile(BaseModel, frozen=True):
    """A file of a commit; its content is a blob by its sha256."""

    size: int
    sha256: str
    oid: str
    """sha1 of the git blob."""
    lfs: bool


class Commit(BaseModel, frozen=True):
    """A snapshot of all files."""

    sha: str
    title: str
    message: str
    author: str
    date: str
    parent: str | None
    files: dict[str, StoredFile]


class Repo(BaseModel):
    """A model, dataset or Space."""

    kind: Kind
    id: str
    created_at: str
    private: bool = False
    gated: Literal["auto", "manual", False] = False
    granted: list[str] = []
    """Who may read the files though the repo is gated."""
    commits: dict[str, Commit] = {}
    refs: dict[str, str] = {}
    """Branches by name, and refs/pr/N, to a sha."""
    tags: dict[str, str] = {}
    sdk: str | None = None
    hardware: str = "cpu-basic"
    stage: str = "RUNNING"
    secrets: dict[str, dict[str, Any]] = {}
    variables: dict[str, dict[str, Any]] = {}

    @property
    def namespace(self) -> str:
        """User or organisation."""
        return self.id.split("/")[0]

    def at(self, revision: str) -> Commit:
        """The commit of a branch, tag or sha.

        Raises:
            HubError: there is none.
        """
        sha = self.refs.get(revision.removeprefix("refs/heads/")) or self.tags.get(revision)
        if sha is None and re.fullmatch(r"[0-9a-f]{7,40}", revision):
            sha = next((known for known in self.commits if known.startswith(revision)), None)
        if sha is None:
            raise HubError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
        return self.commits[sha]

    def history(self, revision: str) -> Iterator[Commit]:
        """The newest first."""
        commit: Commit | None = self.at(revision)
        while commit is not None:
            yield commit
            commit = self.commits[commit.parent] if commit.parent else None

    def add_commit(
        self, ref: str, files: dict[str, StoredFile], *, title: str, message: str = "", author: str, parent: str | None
    ) -> Commit:
        """Move a ref to a new commit."""
        date = now()
        content = json.dumps([title, message, parent, date, {path: file.oid for path, file in sorted(files.items())}])
        sha = hashlib.sha1(content.encode()).hexdigest()
        commit = Commit(sha=sha, title=title, message=message, author=author, date=date, parent=parent, files=files)
        self.commits[sha] = commit
        self.refs[ref] = sha
        return commit


def now() -> str:
    """The time as the Hub writes it: with milliseconds and Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def git_oid(content: bytes) -> str:
    """What git calls a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def pointer_oid(sha256: str, size: int) -> str:
    """What git calls the pointer to a file of LFS."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return git_oid(pointer.encode())


def folders(paths: Iterable[str]) -> set[str]:
    """Every folder that these files lie in."""
    return {str(parent) for path in paths for parent in Path(path).parents} - {"."}


def file_entry(path: str, file: StoredFile) -> dict[str, Any]:
    """A file in a listing."""
    entry: dict[str, Any] = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
    if file.lfs:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": POINTER_BYTES}
    return entry


def folder_entry(path: str, commit: Commit) -> dict[str, Any]:
    """A folder in a listing."""
    inside = [file.oid for name, file in sorted(commit.files.items()) if name.startswith(path + "/")]
    oid = hashlib.sha1("".join([path, *inside]).encode()).hexdigest()
    return {"type": "directory", "oid": oid, "size": 0, "path": path}


def tree(commit: Commit, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    """Files and folders below a folder ("" is the root).

    Raises:
        HubError: no such folder.
    """
    start = f"{folder}/" if folder else ""
    below = {path: file for path, file in commit.files.items() if path.startswith(start)}
    if folder and not below:
        raise unknown_entry(folder, commit=commit.sha)
    inner = {path for path in folders(below) if path.startswith(start)}
    entries = [folder_entry(path, commit) for path in inner] + [file_entry(*item) for item in below.items()]
    if not recursive:
        entries = [entry for entry in entries if "/" not in entry["path"][len(start) :]]
    return sorted(entries, key=lambda entry: (entry["type"] != "directory", entry["path"]))


def last_commit(repo: Repo, commit: Commit, path: str) -> dict[str, Any]:
    """The newest commit that changed this file or folder."""

    def state(one: Commit) -> list[tuple[str, str]]:
        return sorted(
            (name, file.oid) for name, file in one.files.items() if name == path or name.startswith(path + "/")
        )

    found = commit
    for older in repo.history(commit.sha):
        if state(older) != state(commit):
            break
        found = older
    return {"id": found.sha, "title": found.title, "date": found.date}


def card_data(readme: str) -> dict[str, Any] | None:
    """The front matter of a README; None without one.

    Raises:
        yaml.YAMLError: it cannot be read.
    """
    found = re.match(r"\s*---[ \t]*\r?\n(.*?)\r?\n?---[ \t]*(\r?\n|$)", readme, re.DOTALL)
    data = yaml.safe_load(found[1]) if found else None
    return data if isinstance(data, dict) else None
