"""Content-addressed storage of hf_xet in folders (`local:///...`): what buckets store and hand out.

A folder is locked by one process while it transfers, so every token that the emulator hands out names its own: a
fresh one to write to, a copy of hard links to read from.
"""

import itertools
import os
import shutil
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

EMPTY = "0" * 64
"""The hash of no bytes."""
_HEADER = 48
_ENTRY = 48
_END = b"\xff" * 32


class Stored(NamedTuple):
    """A content that clients can download."""

    xet_hash: str
    size: int
    """Bytes that were stored: a job may go on writing to the file."""


class Cas:
    """The storage of an emulator; thread-safe."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = root / "store"
        self.store.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._session: Any = None
        self._kept: dict[Path, tuple[tuple[int, int], Stored]] = {}
        for old in root.glob("read-*"):
            shutil.rmtree(old)

    def write_url(self) -> str:
        """A folder that a client may upload to."""
        return self._url(self._fresh("write"))

    def read_url(self) -> str:
        """A folder with all that is stored now."""
        with self._lock:
            return self._url(self._copy(self.store))

    def keep(self, path: Path) -> Stored:
        """Store a file as it is now; at once where it has not changed since the last time.

        Raises:
            FileNotFoundError: it is gone.
        """
        stat = path.stat()
        state = (stat.st_mtime_ns, stat.st_size)
        with self._lock:
            known = self._kept.get(path)
            if known is None or known[0] != state:
                known = (state, self._upload(path) if stat.st_size else Stored(EMPTY, 0))
                self._kept[path] = known
        return known[1]

    def fetch(self, xet_hash: str, target: Path) -> bool:
        """Write what clients uploaded, or what is stored, to a file; False where the hash is unknown."""
        target.parent.mkdir(parents=True, exist_ok=True)
        if xet_hash == EMPTY:
            target.write_bytes(b"")
            return True
        for folder in (self.store, *self._written()):
            if any(found == xet_hash for found, _ in _files(folder)):
                self._download(folder, xet_hash, target)
                return True
        return False

    def fetch_sha256(self, sha256: str, target: Path) -> bool:
        """The same by sha256, which uploads to git repos state."""
        for folder in self._written():
            for xet_hash, found in _files(folder):
                if found == sha256:
                    self._download(folder, xet_hash, target)
                    return True
        return False

    def _written(self) -> list[Path]:
        return sorted(self.root.glob("write-*"), key=lambda path: path.stat().st_mtime_ns, reverse=True)

    def _fresh(self, kind: str) -> Path:
        folder = self.root / f"{kind}-{os.getpid()}-{next(self._numbers)}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _url(self, folder: Path) -> str:
        return f"local://{folder.resolve()}"

    def _transfers(self) -> Any:
        if self._session is None:
            from hf_xet import XetSession

            self._session = XetSession()
        return self._session

    def _upload(self, path: Path) -> Stored:
        from hf_xet import SKIP_SHA256

        with self._transfers().new_upload_commit(endpoint=self._url(self.store)) as commit:
            handle = commit.start_upload_file(str(path), sha256=SKIP_SHA256)
        info = handle.result().xet_info
        return Stored(info.hash, info.file_size)

    def _download(self, folder: Path, xet_hash: str, target: Path) -> None:
        from hf_xet import XetFileInfo

        part = target.with_name(f".{target.name}.part")
        with self._lock:
            copy = self._copy(folder)
            with self._transfers().new_file_download_group(endpoint=self._url(copy)) as group:
                group.start_download_file(XetFileInfo(xet_hash), str(part))
            shutil.rmtree(copy)
        part.replace(target)

    def _copy(self, folder: Path) -> Path:
        """A storage of its own by hard links, as a client may still hold the lock of the one it wrote to."""
        copy = self._fresh("read")
        stored = folder / "xet" / "xorbs"
        for path in (path for path in stored.rglob("*") if path.is_file()):
            target = copy / "xet" / "xorbs" / path.relative_to(stored)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".redb":
                shutil.copy(path, target)
            else:
                os.link(path, target)
        return copy


def _files(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Hash and sha256 of every file of a storage, as its shards state them."""
    for shard in (folder / "xet" / "xorbs" / "shards").glob("*.mdb"):
        content = shard.read_bytes()
        at = _HEADER
        while content[at : at + 32] != _END:
            xet_hash = content[at : at + 32]
            flags, entries = struct.unpack_from("<II", content, at + 32)
            verified, described = flags >> 31 & 1, flags >> 30 & 1
            at += _HEADER + _ENTRY * entries * (1 + verified)
            sha256 = _hex(content[at : at + 32]) if described else None
            at += _ENTRY * described
            yield _hex(xet_hash), sha256


def _hex(content: bytes) -> str:
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", content))
