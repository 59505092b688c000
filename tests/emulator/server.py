"""The emulator as a server on loopback, in a thread of the test."""

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import uvicorn
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.routing import BaseRoute
from tests.emulator.account_routes import account_routes
from tests.emulator.bucket_routes import bucket_routes
from tests.emulator.errors import HubError, answer_error
from tests.emulator.faults import Faults, Outermost, Seen
from tests.emulator.hub import Hub
from tests.emulator.repo_routes import repo_routes
from tests.emulator.space_routes import space_routes
from tests.emulator.upload_routes import upload_routes

START_S = 10.0
KEEP_ALIVE_S = 60
"""Longer than clients keep idle connections: else both close at once, and a request is lost that no test planned."""
Extra = Callable[[Hub], Sequence[BaseRoute]]


class _Text(Convertor[str]):
    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _Kind(_Text):
    regex = "models|datasets|spaces"


class _Spaces(_Text):
    regex = "spaces"


class _Revision(_Text):
    """Slashes of a revision are quoted on the wire, and unquoted before routes see them."""

    regex = "refs/(?:pr|convert|heads)/[^/]+|[^/]+"


for name, convertor in (("kind", _Kind()), ("spaces", _Spaces()), ("revision", _Revision())):
    register_url_convertor(name, convertor)


class Emulator:
    """A Hub on a free port of loopback while the context lasts.

    Args:
        root: the folder of all state; another emulator over it goes on where this one ended.
        extra: further routes over the same state, before those of the Hub.
        port: a fixed one; 0 takes a free one.
    """

    def __init__(self, root: Path, *, extra: Extra | None = None, port: int = 0) -> None:
        self.hub = Hub(root)
        self.faults = Faults()
        self.requests: list[Seen] = []
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.hub.endpoint = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        app = Starlette(
            routes=[
                *(extra(self.hub) if extra else []),
                *account_routes(self.hub),
                *space_routes(self.hub),
                *bucket_routes(self.hub),
                *upload_routes(self.hub),
                *repo_routes(self.hub),
            ],
            exception_handlers={HubError: answer_error},
        )
        outermost = Outermost(app, self.faults, self.requests)
        config = uvicorn.Config(
            outermost, log_level="error", lifespan="off", date_header=False, timeout_keep_alive=KEEP_ALIVE_S
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="emulator", daemon=True
        )

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT is."""
        return self.hub.endpoint

    def __enter__(self) -> "Emulator":
        self._thread.start()
        due = time.monotonic() + START_S
        while not self._server.started:
            if time.monotonic() > due or not self._thread.is_alive():
                raise RuntimeError(f"the emulator did not start within {START_S} s")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join()
        self._socket.close()

    def count(self, path: str, *, method: str | None = None) -> int:
        """How many requests came.

        Args:
            path: a regular expression that is searched for in the path.
            method: GET, POST ...; None for all.
        """
        return sum(bool(re.search(path, seen.path)) and method in {None, seen.method} for seen in self.requests)

    def variables(self, token: str) -> dict[str, str]:
        """The variables that lead the clients here, as this person."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": token,
            "HF_HOME": str(self.hub.root / "hf_home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def env(self, token: str) -> dict[str, str]:
        """A whole environment for a subprocess: this one's, without its own settings of the Hub."""
        own = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING_FACE_"))}
        return own | self.variables(token)
