"""Routes of Spaces beside their files: secrets, variables, how they run."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.emulator.auth import asked_repo
from tests.emulator.describe import runtime
from tests.emulator.hub import Hub
from tests.emulator.repos import Repo, now


def space_routes(hub: Hub) -> list[Route]:
    """The routes of this module."""
    spaces = _Spaces(hub)
    base = "/api/{kind:spaces}/{ns}/{name}"
    return [
        Route(f"{base}/secrets", spaces.secrets, methods=["GET", "POST", "DELETE"]),
        Route(f"{base}/variables", spaces.variables, methods=["GET", "POST", "DELETE"]),
        Route(f"{base}/runtime", spaces.runtime),
        Route(f"{base}/hardware", spaces.hardware, methods=["POST"]),
        Route(f"{base}/sleeptime", spaces.runtime, methods=["POST"]),
        Route(f"{base}/pause", spaces.pause, methods=["POST"]),
        Route(f"{base}/restart", spaces.restart, methods=["POST"]),
    ]


class _Spaces:
    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    async def secrets(self, request: Request) -> Response:
        """Values go in and never come out."""
        repo = asked_repo(self.hub, request, write=True)
        await _change(request, repo.secrets)
        self.hub.save(repo)
        shown = {
            key: {name: known for name, known in about.items() if name != "value"}
            for key, about in repo.secrets.items()
        }
        return JSONResponse(shown)

    async def variables(self, request: Request) -> Response:
        repo = asked_repo(self.hub, request, write=request.method != "GET")
        await _change(request, repo.variables)
        self.hub.save(repo)
        return JSONResponse(repo.variables)

    async def runtime(self, request: Request) -> Response:
        return JSONResponse(runtime(asked_repo(self.hub, request, write=request.method != "GET")))

    async def hardware(self, request: Request) -> Response:
        repo = asked_repo(self.hub, request, write=True)
        repo.hardware = (await request.json())["flavor"]
        return self._kept(repo)

    async def pause(self, request: Request) -> Response:
        repo = asked_repo(self.hub, request, write=True)
        repo.stage = "PAUSED"
        return self._kept(repo)

    async def restart(self, request: Request) -> Response:
        repo = asked_repo(self.hub, request, write=True)
        repo.stage = "RUNNING"
        return self._kept(repo)

    def _kept(self, repo: Repo) -> Response:
        self.hub.save(repo)
        return JSONResponse(runtime(repo))


async def _change(request: Request, kept: dict[str, dict[str, object]]) -> None:
    if request.method == "GET":
        return
    asked = await request.json()
    if request.method == "DELETE":
        kept.pop(asked["key"], None)
    else:
        kept[asked["key"]] = {**asked, "updatedAt": now()}
