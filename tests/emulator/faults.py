"""Planned faults, and the log of what was asked: the outermost layer of the emulator."""

import asyncio
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

When = Literal["before", "after", "never"]
"""before: the request is not performed; after: it is, and its reply is lost; never: only the delay."""


class Seen(NamedTuple):
    """A request that came."""

    method: str
    path: str
    query: str
    status: int | None
    """None while it runs, and when the reply was lost."""


@dataclass
class Fault:
    """One planned fault."""

    path: re.Pattern[str]
    method: str | None
    skip: int
    times: int
    status: int | None
    headers: Mapping[str, str]
    body: Any
    when: When
    delay_s: float
    hits: int = 0
    """How often it struck."""

    def strikes(self, method: str, path: str) -> bool:
        """Whether this request is one of those that are hit; counts it."""
        if (self.method not in {None, method}) or not self.path.search(path) or self.hits >= self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        return True

    def content(self) -> bytes:
        """What the body is on the wire."""
        if isinstance(self.body, bytes):
            return self.body
        if isinstance(self.body, str):
            return self.body.encode()
        return json.dumps({"error": f"planned fault {self.status}"} if self.body is None else self.body).encode()


@dataclass
class Faults:
    """The faults of an emulator, in the order of their planning; a request is hit by the first that matches."""

    planned: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(
        self,
        *,
        path: str,
        method: str | None = None,
        skip: int = 0,
        times: int = 1,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        when: When = "before",
        delay_s: float = 0.0,
    ) -> Fault:
        """Let requests fail.

        Args:
            path: a regular expression that is searched for in the path.
            method: GET, POST ...; None for all.
            skip: so many matching requests pass first.
            times: so many are hit then.
            status: of the answer; None closes the connection without one.
            headers: of the answer, such as retry-after.
            body: of the answer; what is not text is sent as JSON.
            when: see `When`.
            delay_s: waited before anything else.
        """
        fault = Fault(
            re.compile(path), method and method.upper(), skip, times, status, headers or {}, body, when, delay_s
        )
        with self._lock:
            self.planned.append(fault)
        return fault

    def clear(self) -> None:
        """No faults any more."""
        with self._lock:
            self.planned.clear()

    def strike(self, method: str, path: str) -> Fault | None:
        """The fault that hits this request."""
        with self._lock:
            return next((fault for fault in self.planned if fault.strikes(method, path)), None)


class Outermost:
    """ASGI middleware: strikes with faults and writes the log."""

    def __init__(self, app: ASGIApp, faults: Faults, seen: list[Seen]) -> None:
        self.app = app
        self.faults = faults
        self.seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        number = len(self.seen)
        self.seen.append(Seen(method, path, scope["query_string"].decode(), None))

        async def logged(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.seen[number] = self.seen[number]._replace(status=message["status"])
            await send(message)

        fault = self.faults.strike(method, path)
        if fault is None:
            await self.app(scope, receive, logged)
            return
        await asyncio.sleep(fault.delay_s)
        if fault.when == "never":
            await self.app(scope, receive, logged)
            return
        if fault.when == "after":
            await self.app(scope, receive, _lose)
        else:
            await _read(receive)
        if fault.status is None:
            await _hang_up(send)
        else:
            await _answer(fault, fault.status, logged)


async def _read(receive: Receive) -> None:
    """Take the whole body: a connection that is closed before is reset, and the client never sees an answer."""
    message = await receive()
    while message.get("more_body"):
        message = await receive()


async def _lose(message: Message) -> None:
    pass


async def _answer(fault: Fault, status: int, send: Send) -> None:
    content = fault.content()
    headers = {"content-type": "application/json", **fault.headers, "content-length": str(len(content))}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content})


async def _hang_up(send: Send) -> None:
    """Promise more than comes: uvicorn closes the connection when the app returns too early."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
    await send({"type": "http.response.body", "body": b"{", "more_body": True})
