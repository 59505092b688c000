"""Routes that write repos: what goes how, contents before the commit (LFS, xet), the commit, branches and tags."""

import base64
import hashlib
import json
import secrets
import time
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.emulator.auth import asked_repo, known_caller
from tests.emulator.errors import HubError, unknown_entry
from tests.emulator.hub import Hub
from tests.emulator.repos import URL_PREFIX, Repo, StoredFile

TOKEN_S = 3600


def upload_routes(hub: Hub) -> list[Route]:
    """The routes of this module."""
    uploads = _Uploads(hub)
    base = "/api/{kind:kind}/{ns}/{name}"
    lfs = "/{ns}/{name}.git/info/lfs/objects"
    post = ["POST"]
    return [
        Route(f"{base}/preupload/{{revision:revision}}", uploads.preupload, methods=post),
        Route(f"{base}/commit/{{revision:revision}}", uploads.commit, methods=post),
        Route(f"{base}/branch/{{branch:path}}", uploads.branch, methods=["POST", "DELETE"]),
        Route(f"{base}/tag/{{revision:revision}}", uploads.tag, methods=["POST", "DELETE"]),
        Route(f"{base}/xet-write-token/{{revision:revision}}", uploads.write_token),
        Route(f"{base}/xet-read-token/{{revision:revision}}", uploads.read_token),
        *(Route(f"{prefix}{lfs}/batch", uploads.lfs_batch, methods=post) for prefix in ("/{kind:kind}", "")),
        *(Route(f"{prefix}{lfs}/verify", uploads.lfs_verify, methods=post) for prefix in ("/{kind:kind}", "")),
        Route("/lfs-storage/{sha256}", uploads.lfs_put, methods=["PUT"]),
    ]


def xet_token(url: str) -> Response:
    """Where to transfer by xet: in headers for huggingface_hub, in the body for hf_xet."""
    token, expires = f"xet_{secrets.token_hex(8)}", int(time.time()) + TOKEN_S
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(expires)}
    return JSONResponse({"casUrl": url, "accessToken": token, "exp": expires}, headers=headers)


class _Uploads:
    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    async def preupload(self, request: Request) -> Response:
        repo = asked_repo(self.hub, request, write=True)
        commit = repo.at(request.path_params["revision"])
        answers = []
        for asked in (await request.json())["files"]:
            known = commit.files.get(asked["path"])
            mode = "lfs" if self.hub.by_lfs(asked["path"], asked["size"]) else "regular"
            answer = {"path": asked["path"], "uploadMode": mode, "shouldIgnore": False}
            if known is not None:
                answer["oid"] = known.sha256 if known.lfs else known.oid
            answers.append(answer)
        return JSONResponse({"files": answers, "commitOid": commit.sha})

    async def commit(self, request: Request) -> Response:
        repo = asked_repo(self.hub, request, write=True)
        lines = [json.loads(line) for line in (await request.body()).splitlines() if line.strip()]
        pull = request.query_params.get("create_pr") == "1"
        user = known_caller(self.hub, request)
        answer = await run_in_threadpool(
            self._commit, repo, request.path_params["revision"], lines, author=user.name, pull=pull
        )
        return JSONResponse(answer)

    def _commit(
        self, repo: Repo, revision: str, lines: list[dict[str, Any]], *, author: str, pull: bool
    ) -> dict[str, Any]:
        header = next(line["value"] for line in lines if line["key"] == "header")
        with self.hub.lock:
            head = repo.at(revision)
            if header.get("parentCommit") not in {None, head.sha}:
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            if revision not in repo.refs and not pull:
                raise HubError(400, f"Invalid reference for a commit: {revision}")
            files = dict(head.files)
            for line in lines:
                self._apply(files, line["key"], line["value"])
            ref = f"refs/pr/{1 + sum(name.startswith('refs/pr/') for name in repo.refs)}" if pull else revision
            made = repo.add_commit(
                ref,
                files,
                title=header["summary"],
                message=header.get("description") or "",
                author=author,
                parent=head.sha,
            )
            self.hub.save(repo)
        url = self.hub.url(repo)
        answer = {"success": True, "commitOid": made.sha, "commitUrl": f"{url}/commit/{made.sha}", "hookOutput": ""}
        return answer | ({"pullRequestUrl": f"{url}/discussions/{ref.rpartition('/')[2]}"} if pull else {})

    def _apply(self, files: dict[str, StoredFile], key: str, value: dict[str, Any]) -> None:
        path = value.get("path", "")
        if key == "file":
            files[path] = self.hub.store(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            files[path] = self.hub.store_lfs(value["oid"])
        elif key == "deletedFile":
            if path not in files:
                raise HubError(404, "A file with this name doesn't exist", code="EntryNotFound")
            del files[path]
        elif key == "deletedFolder":
            inside = [name for name in files if name.startswith(path.rstrip("/") + "/")]
            if not inside:
                raise unknown_entry(path)
            for name in inside:
                del files[name]

    async def branch(self, request: Request) -> Response:
        repo = asked_repo(self.hub, request, write=True)
        branch = request.path_params["branch"]
        if request.method == "DELETE":
            repo.at(branch)
            if branch == "main":
                raise HubError(403, "Cannot delete the default branch")
            del repo.refs[branch]
        elif branch in repo.refs:
            raise HubError(409, f"Reference already exists: {branch}")
        else:
            asked = json.loads(await request.body() or b"{}")
            repo.refs[branch] = repo.at(asked.get("startingPoint") or "main").sha
        self.hub.save(repo)
        return JSONResponse({"success": True})

    async def tag(self, request: Request) -> Response:
        repo = asked_repo(self.hub, request, write=True)
        revision = request.path_params["revision"]
        if request.method == "DELETE":
            if repo.tags.pop(revision, None) is None:
                raise HubError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
        else:
            asked = await request.json()
            if asked["tag"] in repo.tags:
                raise HubError(409, f"Tag already exists: {asked['tag']}")
            repo.tags[asked["tag"]] = repo.at(revision).sha
        self.hub.save(repo)
        return JSONResponse({"success": True})

    async def write_token(self, request: Request) -> Response:
        asked_repo(self.hub, request, write=True)
        return xet_token(self.hub.cas.write_url())

    async def read_token(self, request: Request) -> Response:
        asked_repo(self.hub, request)
        return xet_token(self.hub.cas.read_url())

    async def lfs_batch(self, request: Request) -> Response:
        repo = asked_repo(self.hub, request, write=True)
        objects = []
        for asked in (await request.json())["objects"]:
            known: dict[str, Any] = {"oid": asked["oid"], "size": asked["size"]}
            if not self.hub.blob(asked["oid"]).exists():
                verify = f"{self.hub.endpoint}/{URL_PREFIX[repo.kind]}{repo.id}.git/info/lfs/objects/verify"
                upload = f"{self.hub.endpoint}/lfs-storage/{asked['oid']}"
                known["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
            objects.append(known)
        return JSONResponse({"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")

    async def lfs_put(self, request: Request) -> Response:
        """Where the signed links of the real service lead: no token comes here."""
        sha256 = request.path_params["sha256"]
        part = self.hub.blob(f"{secrets.token_hex(8)}.part")
        digest = hashlib.sha256()
        with part.open("wb") as file:
            async for chunk in request.stream():
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            part.unlink()
            raise HubError(400, "The content does not have the promised sha256")
        part.replace(self.hub.blob(sha256))
        return Response()

    async def lfs_verify(self, request: Request) -> Response:
        asked_repo(self.hub, request, write=True)
        asked = await request.json()
        blob = self.hub.blob(asked["oid"])
        if not blob.exists() or blob.stat().st_size != asked["size"]:
            raise HubError(404, "The object was not uploaded")
        return JSONResponse({"success": True})
