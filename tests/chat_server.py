"""A scripted endpoint that speaks chat.completions: the genuine clients talk to it over loopback.

    python tests/chat_server.py PORT [NUMBER asked|answering]

Serves in a process of its own, which kills itself at a request: before its answer, or in the middle of it.
"""

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Request = dict[str, Any]
Call = tuple[str, dict[str, Any] | str]
CHARS_PER_TOKEN = 3
DUE = re.compile(r"(?:would call next|left to you): (\w+)\((.*)\)\.", re.DOTALL)


@dataclass(frozen=True)
class Reply:
    """What the endpoint answers."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    """The process kills itself in the middle of the body."""


class ChatServer:
    """Answers as `script` says: the parsed request and its number (from 0) to a reply."""

    def __init__(self, script: Callable[[Request, int], Reply]):
        self.script = script
        self.requests: list[Request] = []
        self.keys: list[str | None] = []
        self.url = ""

    @contextmanager
    def running(self, port: int = 0) -> Iterator["ChatServer"]:
        """Serve on a port of loopback, which is a free one for 0."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(Reply({"object": "list", "data": [{"id": "scripted", "object": "model"}]}))

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(request)
                outer.keys.append(self.headers.get("Authorization"))
                self._answer(outer.script(request, len(outer.requests) - 1))

            def _answer(self, reply: Reply) -> None:
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if reply.cut:
                    self.wfile.write(body[: len(body) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def completion(
    *calls: Call, content: str | None = None, finish: str = "tool_calls", ids: list[str] | None = None
) -> dict[str, Any]:
    """A chat completion with these tool calls."""
    tool_calls = [
        {
            "id": ids[number] if ids else f"call_{number}",
            "type": "function",
            "function": {"name": name, "arguments": args if isinstance(args, str) else json.dumps(args)},
        }
        for number, (name, args) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": content, "tool_calls": tool_calls or None}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "scripted",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050},
    }


def text_of(request: Request) -> str:
    """All that the model reads."""
    parts = [message["content"] for message in request["messages"]]
    return "\n".join(part if isinstance(part, str) else json.dumps(part) for part in parts)


def size(request: Request) -> int:
    """Tokens of a request by a careful count, its tools included."""
    return (len(text_of(request)) + len(json.dumps(request.get("tools", [])))) // CHARS_PER_TOKEN


def due(request: Request) -> Call:
    """The call that is due: by the newest answer of a tool, else by the brief."""
    text = text_of(request)
    hints = [match.end() for match in re.finditer(r'"due": (?=\{"tool")', text)]
    if hints:
        hint = json.JSONDecoder().raw_decode(text[hints[-1] :])[0]
        return hint["tool"], hint["args"]
    found = DUE.search(text)
    return ("final_answer", {"answer": "waiting"}) if found is None else (found[1], json.loads(found[2]))


def obedient(request: Request, number: int = 0) -> Reply:
    """A model that does what is due."""
    return Reply(completion(due(request)))


def main(port: str, number: str = "-1", moment: str = "") -> None:
    """Serve until killed; says so in a line once it does."""

    def script(request: Request, at: int) -> Reply:
        if at == int(number) and moment == "asked":
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(obedient(request), cut=at == int(number))

    with ChatServer(script).running(int(port)) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
