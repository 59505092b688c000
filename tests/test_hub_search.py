"""The Hub is searched by the genuine client; an endpoint of our own answers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from hfagent.agent.errors import UsageError
from hfagent.tools.hub_search import find

MODELS = [
    {
        "_id": "1", "id": "Qwen/Qwen3-0.6B", "downloads": 900, "likes": 7, "gated": False,
        "tags": ["license:apache-2.0", "text-generation"],
        "safetensors": {"parameters": {"BF16": 751632384}, "total": 751632384},
    },
    {"_id": "2", "id": "meta-llama/Llama-3.2-1B", "downloads": 800, "gated": "manual", "tags": []},
]  # fmt: skip
DATASETS = [{"_id": "3", "id": "open-r1/codeforces-cots", "downloads": 5, "likes": 1, "gated": False, "tags": []}]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, list[str]]]]:
    queries: list[dict[str, list[str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            found = {"/api/models": MODELS, "/api/datasets": DATASETS}.get(url.path)
            if found is not None:
                queries.append(parse_qs(url.query))
            body = json.dumps(found if found is not None else {"error": "not found"}).encode()
            self.send_response(200 if found is not None else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield queries
    server.shutdown()
    server.server_close()


def test_models_come_with_their_size_by_the_weights_and_whether_they_are_gated(asked: list[Any]) -> None:
    first, second = find("model", "qwen3")
    assert (first.id, first.parameters, first.license, first.gated) == (
        "Qwen/Qwen3-0.6B", 751632384, "apache-2.0", False,
    )  # fmt: skip
    assert (second.parameters, second.gated, second.likes) == (None, True, None)
    assert asked[0]["search"] == ["qwen3"]
    assert asked[0]["limit"] == ["8"]


def test_datasets_are_found_by_words_of_their_name(asked: list[Any]) -> None:
    assert [item.id for item in find("dataset", "codeforces")] == ["open-r1/codeforces-cots"]


def test_a_hub_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UsageError, match="the Hub does not answer"):
        find("model", "x")
