"""Routes about people and about the list of repos: whoami, create, delete, move, settings, cards, noise."""

import re
from typing import Any, cast

import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.emulator.auth import asked_repo, known_caller, repo_for, require
from tests.emulator.errors import HubError, unknown_repo
from tests.emulator.hub import Hub
from tests.emulator.repos import Kind, card_data
from tests.emulator.users import User

NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}(?<![.-])(?<!\.git)")


def account_routes(hub: Hub) -> list[Route]:
    """The routes of this module."""
    account = _Account(hub)
    return [
        Route("/api/whoami-v2", account.whoami),
        Route("/api/repos/create", account.create, methods=["POST"]),
        Route("/api/repos/delete", account.delete, methods=["DELETE"]),
        Route("/api/repos/move", account.move, methods=["POST"]),
        Route("/api/{kind:kind}/{ns}/{name}/settings", account.settings, methods=["PUT"]),
        Route("/api/validate-yaml", account.validate, methods=["POST"]),
        Route("/api/telemetry/{topic:path}", account.nothing, methods=["HEAD", "GET"]),
        Route("/api/agent-harnesses", account.nothing),
    ]


class _Account:
    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    async def whoami(self, request: Request) -> Response:
        return JSONResponse(known_caller(self.hub, request).whoami())

    async def create(self, request: Request) -> Response:
        user = known_caller(self.hub, request)
        asked = await request.json()
        kind = _kind(asked)
        repo_id = _new_id(user, asked)
        require(user, repo_id.split("/")[0], "repo.write")
        if kind == "space" and not asked.get("sdk"):
            raise HubError(400, 'Invalid input: "sdk" is required for a Space')
        private = asked.get("visibility") == "private" or asked.get("private") is True
        known = self.hub.repos.get((kind, repo_id))
        if known is not None:
            message = f"You already created this {kind} repo"
            return JSONResponse(
                {"error": message, "url": self.hub.url(known)}, 409, headers={"X-Error-Message": message}
            )
        repo = self.hub.create_repo(kind, repo_id, private=private, sdk=asked.get("sdk"), author=user.name)
        for name, kept in (("secrets", repo.secrets), ("variables", repo.variables)):
            kept.update({item["key"]: item for item in asked.get(name) or []})
        repo.hardware = asked.get("hardware") or repo.hardware
        self.hub.save(repo)
        return JSONResponse({"url": self.hub.url(repo), "name": repo.id, "id": repo.id})

    async def delete(self, request: Request) -> Response:
        user = known_caller(self.hub, request)
        asked = await request.json()
        namespace = asked.get("organization") or user.name
        repo = repo_for(self.hub, request, _kind(asked), f"{namespace}/{asked['name']}", write=True)
        self.hub.delete_repo(repo)
        return Response("OK")

    async def move(self, request: Request) -> Response:
        user = known_caller(self.hub, request)
        asked = await request.json()
        repo = repo_for(self.hub, request, _kind(asked), asked["fromRepo"], write=True)
        require(user, asked["toRepo"].split("/")[0], "repo.write")
        if (repo.kind, asked["toRepo"]) in self.hub.repos:
            raise HubError(409, f"A {repo.kind} with the name {asked['toRepo']} exists")
        self.hub.rename_repo(repo, asked["toRepo"])
        return Response("OK")

    async def settings(self, request: Request) -> Response:
        repo = asked_repo(self.hub, request, write=True)
        asked = await request.json()
        if "visibility" in asked or "private" in asked:
            repo.private = asked.get("visibility") == "private" or asked.get("private") is True
        repo.gated = asked.get("gated", repo.gated)
        self.hub.save(repo)
        return JSONResponse({"private": repo.private, "gated": repo.gated})

    async def validate(self, request: Request) -> Response:
        asked = await request.json()
        try:
            card = card_data(asked.get("content", ""))
        except yaml.YAMLError as error:
            return JSONResponse({"errors": [{"message": f"Invalid YAML: {error}"}], "warnings": []}, 400)
        warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
        return JSONResponse({"errors": [], "warnings": warnings})

    async def nothing(self, request: Request) -> Response:
        return JSONResponse({})


def _kind(asked: dict[str, Any]) -> Kind:
    kind = asked.get("type") or "model"
    if kind not in {"model", "dataset", "space"}:
        raise unknown_repo()
    return cast(Kind, kind)


def _new_id(user: User, asked: dict[str, Any]) -> str:
    name = str(asked.get("name", ""))
    namespace, _, last = name.rpartition("/")
    if not NAME.fullmatch(last):
        raise HubError(400, f'Invalid repo name: "{name}"')
    return f"{asked.get('organization') or namespace or user.name}/{last}"
