"""Routes that read repos: information, listings, history, files."""

from typing import Any, cast
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from tests.emulator.auth import asked_repo, caller, known_caller, require, require_access, sees
from tests.emulator.describe import describe
from tests.emulator.errors import unknown_entry
from tests.emulator.hub import Hub
from tests.emulator.repos import Commit, Kind, Repo, file_entry, folder_entry, folders, last_commit, tree

LISTED = ("_id", "id", "modelId", "author", "private", "gated", "disabled", "downloads", "likes", "tags", "createdAt")
LISTED_FULL = (*LISTED, "sha", "lastModified", "siblings", "library_name", "pipeline_tag", "sdk")
LIMIT = 1000
TRUE = {"1", "true"}


def repo_routes(hub: Hub) -> list[Route]:
    """The routes of this module."""
    repos = _Repos(hub)
    base = "/api/{kind:kind}/{ns}/{name}"
    files = "/{ns}/{name}/resolve/{revision:revision}/{path:path}"
    return [
        Route("/api/{kind:kind}", repos.search),
        Route(f"{base}/revision/{{revision:revision}}", repos.info),
        Route(f"{base}/tree/{{revision:revision}}", repos.tree),
        Route(f"{base}/tree/{{revision:revision}}/{{path:path}}", repos.tree),
        Route(f"{base}/paths-info/{{revision:revision}}", repos.paths, methods=["POST"]),
        Route(f"{base}/commits/{{revision:revision}}", repos.commits),
        Route(f"{base}/refs", repos.refs),
        Route(f"{base}/auth-check", repos.check),
        Route(f"{base}/auth-check/write", repos.check_write),
        Route(base, repos.info),
        Route("/{kind:kind}" + files, repos.resolve),
        Route(files, repos.resolve),
    ]


class _Repos:
    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    async def search(self, request: Request) -> Response:
        kind = cast(Kind, request.path_params["kind"].removesuffix("s"))
        asked = request.query_params
        user = caller(self.hub, request)
        found = [repo for repo in self.hub.repos.values() if repo.kind == kind and sees(user, repo)]
        if asked.get("search"):
            found = [repo for repo in found if asked["search"].lower() in repo.id.lower()]
        if asked.get("author"):
            found = [repo for repo in found if repo.namespace.lower() == asked["author"].lower()]
        known = [describe(self.hub, repo, repo.at("main")) for repo in found]
        known = [one for one in known if _fits(one, request)]
        known.sort(key=lambda one: str(one["lastModified"]), reverse=True)
        keys = _expanded(request) or (LISTED_FULL if asked.get("full", "").lower() in TRUE else LISTED)
        limited = known[: int(asked.get("limit", LIMIT))]
        return JSONResponse([_only(one, keys) for one in limited])

    async def info(self, request: Request) -> Response:
        repo, commit = self._asked(request)
        known = describe(self.hub, repo, commit, blobs=request.query_params.get("blobs", "").lower() in TRUE)
        keys = _expanded(request)
        return JSONResponse(_only(known, keys) if keys else known)

    async def tree(self, request: Request) -> Response:
        repo, commit = self._asked(request)
        folder = request.path_params.get("path", "").strip("/")
        entries = tree(commit, folder, recursive=request.query_params.get("recursive", "").lower() in TRUE)
        if request.query_params.get("expand", "").lower() in TRUE:
            entries = [_expand(repo, commit, entry) for entry in entries]
        return JSONResponse(entries)

    async def paths(self, request: Request) -> Response:
        repo, commit = self._asked(request)
        asked = parse_qs((await request.body()).decode())
        known = folders(commit.files)
        entries = []
        for path in (path.strip("/") for path in asked.get("paths", [])):
            if path in commit.files:
                entries.append(file_entry(path, commit.files[path]))
            elif path in known:
                entries.append(folder_entry(path, commit))
        if asked.get("expand", [""])[0].lower() in TRUE:
            entries = [_expand(repo, commit, entry) for entry in entries]
        return JSONResponse(entries)

    async def commits(self, request: Request) -> Response:
        repo, commit = self._asked(request)
        listed = [
            {
                "id": one.sha,
                "title": one.title,
                "message": one.message,
                "authors": [{"user": one.author}],
                "date": one.date,
            }
            for one in repo.history(commit.sha)
        ]
        return JSONResponse(listed, headers={"X-Total-Count": str(len(listed))})

    async def refs(self, request: Request) -> Response:
        repo = asked_repo(self.hub, request)
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha}
            for name, sha in repo.refs.items()
            if not name.startswith("refs/")
        ]
        tags = [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": sha} for name, sha in repo.tags.items()]
        pulls = [
            {"name": name.removeprefix("refs/"), "ref": name, "targetCommit": sha}
            for name, sha in repo.refs.items()
            if name.startswith("refs/pr/")
        ]
        return JSONResponse({"branches": branches, "converts": [], "tags": tags, "pullRequests": pulls})

    async def check(self, request: Request) -> Response:
        repo = asked_repo(self.hub, request)
        require_access(self.hub, request, repo)
        return Response("OK")

    async def check_write(self, request: Request) -> Response:
        repo = asked_repo(self.hub, request)
        require(known_caller(self.hub, request), repo.namespace, "repo.write")
        return Response("OK")

    async def resolve(self, request: Request) -> Response:
        repo, commit = self._asked(request)
        require_access(self.hub, request, repo)
        path = request.path_params["path"]
        file = commit.files.get(path)
        if file is None:
            raise unknown_entry(path, commit=commit.sha)
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{file.sha256 if file.lfs else file.oid}"'}
        if file.lfs:
            headers |= {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
        return FileResponse(self.hub.blob(file.sha256), headers=headers, filename=path.rpartition("/")[2])

    def _asked(self, request: Request) -> tuple[Repo, Commit]:
        repo = asked_repo(self.hub, request)
        return repo, repo.at(request.path_params.get("revision", "main"))


def _expanded(request: Request) -> tuple[str, ...]:
    asked = request.query_params
    keys = (*asked.getlist("expand"), *asked.getlist("expand[]"))
    return ("_id", "id", *keys) if keys else ()


def _only(known: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: known[key] for key in keys if known.get(key) is not None}


def _fits(known: dict[str, Any], request: Request) -> bool:
    asked = request.query_params
    if asked.get("pipeline_tag") and known.get("pipeline_tag") != asked["pipeline_tag"]:
        return False
    if asked.get("gated") and bool(known["gated"]) != (asked["gated"].lower() in TRUE):
        return False
    tags = {*known["tags"], known.get("library_name"), known.get("pipeline_tag")}
    return all(tag in tags for tag in asked.getlist("filter"))


def _expand(repo: Repo, commit: Commit, entry: dict[str, Any]) -> dict[str, Any]:
    return {**entry, "lastCommit": last_commit(repo, commit, entry["path"])}
