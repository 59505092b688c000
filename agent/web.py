"""`hfagent watch --web`: one page on loopback that follows a ledger. It reads, and changes nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from importlib.resources import files

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from hfagent.agent.errors import LedgerError
from hfagent.agent.folding import fold
from hfagent.agent.ledger import is_held, read
from hfagent.agent.redact import redact, redact_all
from hfagent.agent.report import current
from hfagent.agent.report_html import page
from hfagent.agent.state import State
from hfagent.agent.view import view
from hfagent.agent.wiring import Paths

HOST = "127.0.0.1"
LOOK_S = 0.5
"""Between two looks at the ledger."""
TELL_S = 5.0
"""While a job runs its time counts: told at least this often."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def make_app(paths: Paths) -> Starlette:
    """The page of one project. Only names of this machine are answered, so that no other page can ask."""

    async def index(request: Request) -> Response:
        return HTMLResponse(_file("web_page.html"), headers=HEADERS)

    async def script(request: Request) -> Response:
        return Response(_file("web_app.js"), media_type="text/javascript", headers=HEADERS)

    async def report(request: Request) -> Response:
        state = _state(paths)
        if state is None:
            return HTMLResponse("no plan yet", status_code=404, headers=HEADERS)
        text = page(current(state, paths.report), title=paths.project, folder=paths.report.parent)
        return HTMLResponse(redact(text), headers=HEADERS)

    async def events(request: Request) -> Response:
        return StreamingResponse(_told(paths, request), media_type="text/event-stream", headers=HEADERS)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/app.js", script),
            Route("/report", report),
            Route("/events", events),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
    )


def serve(paths: Paths, port: int) -> None:
    """Serve until interrupted.

    Args:
        paths: of the project.
        port: on loopback; 0 takes a free one.
    """
    import socket

    import uvicorn

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(64)  # before the address is told: whoever reads it may come at once
        print(f"http://{HOST}:{listener.getsockname()[1]}/", flush=True)  # noqa: T201 - the result
        config = uvicorn.Config(make_app(paths), log_level="warning", timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[listener])


async def _told(paths: Paths, request: Request) -> AsyncIterator[str]:
    """The view now, and again whenever the ledger has grown."""
    size, last = -1, 0.0
    while not await request.is_disconnected():
        now = asyncio.get_running_loop().time()
        grown = paths.ledger.stat().st_size if paths.ledger.exists() else 0
        if grown != size or now - last >= TELL_S:
            size, last = grown, now
            state = await asyncio.to_thread(_state, paths)
            if state is not None:
                shown = view(state, datetime.now(UTC), held=is_held(paths.ledger))
                yield f"data: {json.dumps(redact_all(shown))}\n\n"
        await asyncio.sleep(LOOK_S)


def _state(paths: Paths) -> State | None:
    try:
        return fold(read(paths.ledger))
    except LedgerError:
        return None


def _file(name: str) -> str:
    return (files("hfagent") / "agent" / name).read_text(encoding="utf-8")
