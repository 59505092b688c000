"""The state of the emulated Hub, on disk: people, repos, the contents of files, buckets."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from tests.emulator.cas import Cas
from tests.emulator.errors import HubError
from tests.emulator.repos import (
    GIT_ATTRIBUTES,
    URL_PREFIX,
    Commit,
    Kind,
    Repo,
    StoredFile,
    git_oid,
    now,
    pointer_oid,
)
from tests.emulator.users import Role, User

LFS_FROM_BYTES = 5_000_000
LFS_ENDINGS = (".safetensors", ".parquet", ".bin", ".arrow", ".gguf", ".pt", ".zip", ".gz")


class Bucket(BaseModel):
    """What is known of a bucket beside its folder."""

    id: str
    private: bool
    created_at: str


class Hub:
    """All state of an emulator below one folder; a new one over the same folder goes on with it."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.endpoint = ""
        """Of the server; set before routes are made."""
        self.lock = threading.RLock()
        self.users: dict[str, User] = {}
        self.repos: dict[tuple[Kind, str], Repo] = {}
        self.buckets: dict[str, Bucket] = {}
        for name in ("repos", "blobs", "buckets", "cas"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self.cas = Cas(self.root / "cas")
        for token, user in self._load("users.json").items():
            self.users[token] = User(**user)
        for bucket_id, bucket in self._load("buckets.json").items():
            self.buckets[bucket_id] = Bucket(**bucket)
        for path in (self.root / "repos").rglob("*.json"):
            repo = Repo.model_validate_json(path.read_text(encoding="utf-8"))
            self.repos[repo.kind, repo.id] = repo

    # People.

    def add_user(
        self,
        name: str,
        *,
        token: str | None = None,
        role: Role = "write",
        orgs: dict[str, str] | None = None,
        permissions: Sequence[str] = (),
        can_pay: bool = True,
        is_pro: bool = False,
    ) -> str:
        """A token for a person, who may have others: its text."""
        token = token or f"hf_{name}{role.capitalize()}{len(self.users)}".ljust(37, "x")
        user = User(
            token=token,
            name=name,
            role=role,
            orgs=orgs or {},
            permissions=list(permissions),
            can_pay=can_pay,
            is_pro=is_pro,
        )
        with self.lock:
            self.users[token] = user
            self._save_users()
        return token

    def expire(self, token: str) -> None:
        """The token is worth nothing from now on."""
        with self.lock:
            self.users[token].expired = True
            self._save_users()

    # Repos.

    def create_repo(
        self, kind: Kind, repo_id: str, *, private: bool = False, sdk: str | None = None, author: str | None = None
    ) -> Repo:
        """A repo with its first commit.

        Raises:
            HubError: it exists.
        """
        with self.lock:
            if (kind, repo_id) in self.repos:
                raise HubError(409, f"You already created this {kind} repo: {repo_id}")
            repo = Repo(kind=kind, id=repo_id, created_at=now(), private=private, sdk=sdk)
            files = {".gitattributes": self.store(GIT_ATTRIBUTES)}
            repo.add_commit("main", files, title="initial commit", author=author or repo.namespace, parent=None)
            self.repos[kind, repo_id] = repo
            self.save(repo)
        return repo

    def repo(self, kind: Kind, repo_id: str) -> Repo:
        """A repo that is there.

        Raises:
            KeyError: it is not.
        """
        return self.repos[kind, repo_id]

    def delete_repo(self, repo: Repo) -> None:
        """A repo and its history; contents of files stay, as other repos may share them."""
        with self.lock:
            del self.repos[repo.kind, repo.id]
            self._repo_file(repo).unlink()

    def rename_repo(self, repo: Repo, new_id: str) -> None:
        """Another id for a repo."""
        with self.lock:
            self.delete_repo(repo)
            repo.id = new_id
            self.repos[repo.kind, new_id] = repo
            self.save(repo)

    def save(self, repo: Repo) -> None:
        """Keep a repo's state."""
        with self.lock:
            path = self._repo_file(repo)
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, repo.model_dump_json())

    def grant(self, kind: Kind, repo_id: str, name: str) -> None:
        """Let a person read a gated repo."""
        with self.lock:
            repo = self.repos[kind, repo_id]
            repo.granted.append(name)
            self.save(repo)

    def put_files(
        self, kind: Kind, repo_id: str, files: dict[str, bytes], *, title: str = "Upload", author: str | None = None
    ) -> Commit:
        """Commit files without any client; makes the repo where it is missing."""
        with self.lock:
            repo = self.repos.get((kind, repo_id)) or self.create_repo(kind, repo_id)
            head = repo.at("main")
            stored = {path: self.store(content) for path, content in files.items()}
            commit = repo.add_commit(
                "main", {**head.files, **stored}, title=title, author=author or repo.namespace, parent=head.sha
            )
            self.save(repo)
        return commit

    def put_folder(self, kind: Kind, repo_id: str, folder: Path) -> Commit:
        """Commit a folder without any client."""
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return self.put_files(kind, repo_id, {str(path.relative_to(folder)): path.read_bytes() for path in paths})

    def read_file(self, kind: Kind, repo_id: str, path: str, *, revision: str = "main") -> bytes:
        """The content of a file of a repo."""
        return self.blob(self.repo(kind, repo_id).at(revision).files[path].sha256).read_bytes()

    def url(self, repo: Repo) -> str:
        """The page of a repo."""
        return f"{self.endpoint}/{URL_PREFIX[repo.kind]}{repo.id}"

    # Contents.

    def blob(self, sha256: str) -> Path:
        """Where the content with this hash lies, if it is there."""
        return self.root / "blobs" / sha256

    def store(self, content: bytes) -> StoredFile:
        """Keep the content of a file that came within a commit."""
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.blob(sha256)
        if not path.exists():
            part = path.with_suffix(".part")
            part.write_bytes(content)
            part.replace(path)
        return StoredFile(size=len(content), sha256=sha256, oid=git_oid(content), lfs=False)

    def by_lfs(self, path: str, size: int) -> bool:
        """Whether a file goes up before its commit, by LFS or xet as the client likes: by its ending, or large.

        `datasets` counts on that: it deletes a parquet file once it is uploaded, before it makes the commit.
        """
        return size >= LFS_FROM_BYTES or path.endswith(LFS_ENDINGS)

    def store_lfs(self, sha256: str) -> StoredFile:
        """A file that was uploaded before its commit, by LFS or xet.

        Raises:
            HubError: it was not.
        """
        path = self.blob(sha256)
        if not path.exists() and not self.cas.fetch_sha256(sha256, path):
            raise HubError(400, f"LFS pointer pointed to a file that does not exist: {sha256}")
        size = path.stat().st_size
        return StoredFile(size=size, sha256=sha256, oid=pointer_oid(sha256, size), lfs=True)

    # Buckets.

    def create_bucket(self, namespace: str, name: str, *, private: bool = False) -> Bucket:
        """An empty bucket.

        Raises:
            HubError: it exists.
        """
        bucket = Bucket(id=f"{namespace}/{name}", private=private, created_at=now())
        with self.lock:
            if bucket.id in self.buckets:
                raise HubError(409, f"You already created this bucket: {bucket.id}")
            self.buckets[bucket.id] = bucket
            self.bucket_folder(namespace, name).mkdir(parents=True, exist_ok=True)
            self.save_buckets()
        return bucket

    def bucket_folder(self, namespace: str, name: str) -> Path:
        """The files of a bucket: what is written here is in the bucket, at once."""
        return self.root / "buckets" / namespace / name

    def delete_bucket(self, bucket_id: str) -> None:
        """A bucket and its files."""
        with self.lock:
            del self.buckets[bucket_id]
            self.save_buckets()
            shutil.rmtree(self.bucket_folder(*bucket_id.split("/")))

    def save_buckets(self) -> None:
        """Keep the list of buckets."""
        _write(self.root / "buckets.json", _dump(self.buckets.items()))

    def _save_users(self) -> None:
        _write(self.root / "users.json", _dump(self.users.items()))

    def _repo_file(self, repo: Repo) -> Path:
        return self.root / "repos" / f"{repo.kind}s" / f"{repo.id}.json"

    def _load(self, name: str) -> dict[str, Any]:
        path = self.root / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _dump(items: Iterable[tuple[str, BaseModel]]) -> str:
    return json.dumps({key: value.model_dump() for key, value in items}, indent=1)


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
