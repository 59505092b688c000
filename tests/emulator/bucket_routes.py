"""Routes of buckets: their files are those of a folder on disk, so what a job writes there is in the bucket."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from tests.emulator.auth import asked_bucket, caller, known_caller, require
from tests.emulator.errors import HubError, unknown_entry
from tests.emulator.hub import Bucket, Hub
from tests.emulator.upload_routes import xet_token


def bucket_routes(hub: Hub) -> list[Route]:
    """The routes of this module."""
    buckets = _Buckets(hub)
    base = "/api/buckets/{ns}/{name}"
    return [
        Route("/api/buckets/{ns}", buckets.listed),
        Route(base, buckets.create, methods=["POST"]),
        Route(base, buckets.info),
        Route(base, buckets.delete, methods=["DELETE"]),
        Route(f"{base}/settings", buckets.settings, methods=["PUT"]),
        Route(f"{base}/tree", buckets.tree),
        Route(f"{base}/tree/{{path:path}}", buckets.tree),
        Route(f"{base}/paths-info", buckets.paths, methods=["POST"]),
        Route(f"{base}/batch", buckets.batch, methods=["POST"]),
        Route(f"{base}/xet-write-token", buckets.write_token),
        Route(f"{base}/xet-read-token", buckets.read_token),
        Route("/buckets/{ns}/{name}/resolve/{path:path}", buckets.resolve),
    ]


class _Buckets:
    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    async def listed(self, request: Request) -> Response:
        user = caller(self.hub, request)
        namespace = request.path_params["ns"]
        if namespace == "me":
            namespace = known_caller(self.hub, request).name
        inside = user is not None and user.may(namespace, "repo.content.read")
        search = request.query_params.get("search", "")
        found = [one for one in self.hub.buckets.values() if one.id.startswith(f"{namespace}/") and search in one.id]
        return JSONResponse([self._info(one) for one in found if inside or not one.private])

    async def create(self, request: Request) -> Response:
        user = known_caller(self.hub, request)
        namespace, name = request.path_params["ns"], request.path_params["name"]
        namespace = user.name if namespace == "me" else namespace
        require(user, namespace, "repo.write")
        url = f"{self.hub.endpoint}/buckets/{namespace}/{name}"
        if f"{namespace}/{name}" in self.hub.buckets:
            return JSONResponse({"error": "You already created this bucket", "url": url}, 409)
        asked = json.loads(await request.body() or b"{}")
        self.hub.create_bucket(namespace, name, private=asked.get("visibility") == "private")
        return JSONResponse({"url": url, "id": f"{namespace}/{name}"})

    async def info(self, request: Request) -> Response:
        return JSONResponse(self._info(asked_bucket(self.hub, request)))

    async def delete(self, request: Request) -> Response:
        self.hub.delete_bucket(asked_bucket(self.hub, request, write=True).id)
        return Response("OK")

    async def settings(self, request: Request) -> Response:
        bucket = asked_bucket(self.hub, request, write=True)
        bucket.private = (await request.json())["private"]
        self.hub.save_buckets()
        return JSONResponse(self._info(bucket))

    async def tree(self, request: Request) -> Response:
        """As of object storage: a prefix of paths, not only a folder, and no error where nothing lies there."""
        folder = self._folder(asked_bucket(self.hub, request))
        recursive = request.query_params.get("recursive", "").lower() in {"1", "true"}
        prefix = request.path_params.get("path", "").strip("/")
        return JSONResponse(await run_in_threadpool(self._tree, folder, prefix, recursive=recursive))

    def _tree(self, folder: Path, prefix: str, *, recursive: bool) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        listed: set[str] = set()
        for path in _files(folder):
            name = path.relative_to(folder).as_posix()
            if prefix and name != prefix and not name.startswith(f"{prefix}/"):
                continue
            start = len(prefix) + 1 if prefix and name != prefix else 0
            child, deeper, _ = name[start:].partition("/")
            if not recursive and deeper:
                directory = name[:start] + child
                if directory not in listed:
                    listed.add(directory)
                    entries.append({"type": "directory", "path": directory, "uploadedAt": _time(path.stat().st_mtime)})
                continue
            entry = self._entry(folder, path)
            if entry is not None:
                entries.append(entry)
        return entries

    async def paths(self, request: Request) -> Response:
        folder = self._folder(asked_bucket(self.hub, request))
        asked = [_inside(folder, path) for path in (await request.json())["paths"]]
        entries = [await run_in_threadpool(self._entry, folder, path) for path in asked if path.is_file()]
        return JSONResponse([entry for entry in entries if entry is not None])

    async def batch(self, request: Request) -> Response:
        bucket = asked_bucket(self.hub, request, write=True)
        lines = [json.loads(line) for line in (await request.body()).splitlines() if line.strip()]
        failed = await run_in_threadpool(self._batch, self._folder(bucket), lines)
        status = 422 if lines and len(failed) == len(lines) else 200
        return JSONResponse({"success": not failed, "processed": len(lines), "failed": failed}, status)

    def _batch(self, folder: Path, lines: list[dict[str, Any]]) -> list[dict[str, str]]:
        failed = []
        for line in lines:
            path = _inside(folder, line["path"])
            if line["type"] == "deleteFile":
                _delete(folder, path)
            elif self.hub.cas.fetch(line["xetHash"], path):
                mtime_s = line["mtime"] / 1000
                os.utime(path, (mtime_s, mtime_s))
            else:
                failed.append({"path": line["path"], "error": f"Xet hash not found: {line['xetHash']}"})
        return failed

    async def write_token(self, request: Request) -> Response:
        asked_bucket(self.hub, request, write=True)
        return xet_token(self.hub.cas.write_url())

    async def read_token(self, request: Request) -> Response:
        asked_bucket(self.hub, request)
        return xet_token(self.hub.cas.read_url())

    async def resolve(self, request: Request) -> Response:
        bucket = asked_bucket(self.hub, request)
        folder = self._folder(bucket)
        path = _inside(folder, request.path_params["path"])
        entry = await run_in_threadpool(self._entry, folder, path) if path.is_file() else None
        if entry is None:
            raise unknown_entry(request.path_params["path"])
        headers = {
            "X-Xet-Hash": entry["xetHash"],
            "X-Xet-Refresh-Route": f"{self.hub.endpoint}/api/buckets/{bucket.id}/xet-read-token",
            "X-Linked-Size": str(entry["size"]),
            "ETag": f'"{entry["xetHash"]}"',
        }
        return FileResponse(path, headers=headers)

    def _folder(self, bucket: Bucket) -> Path:
        return self.hub.bucket_folder(*bucket.id.split("/"))

    def _info(self, bucket: Bucket) -> dict[str, Any]:
        sizes = [path.stat().st_size for path in _files(self._folder(bucket))]
        known = {"id": bucket.id, "private": bucket.private, "createdAt": bucket.created_at}
        return known | {"size": sum(sizes), "totalFiles": len(sizes)}

    def _entry(self, folder: Path, path: Path) -> dict[str, Any] | None:
        """None where a job has just taken the file away."""
        try:
            mtime = _time(path.stat().st_mtime)
            stored = self.hub.cas.keep(path)
        except FileNotFoundError:
            return None
        name = path.relative_to(folder).as_posix()
        known = {"type": "file", "path": name, "size": stored.size, "xetHash": stored.xet_hash}
        return known | {"mtime": mtime, "uploadedAt": mtime}


def _files(folder: Path) -> Iterator[Path]:
    return iter(sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".part")))


def _inside(folder: Path, path: str) -> Path:
    if ".." in PurePosixPath(path).parts or path.startswith("/"):
        raise HubError(400, f"Invalid path: {path}")
    return folder / path


def _delete(folder: Path, path: Path) -> None:
    """A file, and the folders that hold nothing any more: object storage has none that are empty."""
    path.unlink(missing_ok=True)
    for parent in path.parents:
        if parent == folder or not parent.is_dir() or any(parent.iterdir()):
            return
        parent.rmdir()


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
