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

from hfagent.agent.errors import LedgerError, UsageError
from hfagent.agent.ledger import is_held
from hfagent.agent.project import Watched, known, watched
from hfagent.agent.redact import redact, redact_all
from hfagent.agent.report_html import page
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

    async def shown_report(request: Request) -> Response:
        try:
            report = known(paths).report()
        except (LedgerError, UsageError):
            return HTMLResponse("no plan yet", status_code=404, headers=HEADERS)
        text = page(report, title=paths.project, folder=paths.report.parent)
        return HTMLResponse(redact(text), headers=HEADERS)

    async def events(request: Request) -> Response:
        return StreamingResponse(_told(paths, request), media_type="text/event-stream", headers=HEADERS)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/app.js", script),
            Route("/report", shown_report),
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
    """The view now, and again whenever the ledger has grown, or that of the pipeline's stage."""
    size, last, seen = -1, 0.0, paths
    while not await request.is_disconnected():
        now = asyncio.get_running_loop().time()
        ledgers = {paths.ledger, seen.ledger}
        grown = sum(ledger.stat().st_size for ledger in ledgers if ledger.exists())
        if grown != size or now - last >= TELL_S:
            size, last = grown, now
            found = await asyncio.to_thread(_watched, paths)
            if found is not None:
                seen = found.paths
                shown = view(found.state, datetime.now(UTC), held=is_held(seen.ledger), pipeline=found.pipeline)
                yield f"data: {json.dumps(redact_all(shown))}\n\n"
        await asyncio.sleep(LOOK_S)


def _watched(paths: Paths) -> Watched | None:
    try:
        return watched(paths)
    except LedgerError:
        return None


def _file(name: str) -> str:
    return (files("hfagent") / "agent" / name).read_text(encoding="utf-8")
