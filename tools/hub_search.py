"""Models and datasets on the Hub: a few, the most downloaded first, with what a choice rests on."""

import os
from typing import Any, Literal

from hfagent.agent.brief import cut
from hfagent.agent.errors import JobError, UsageError
from hfagent.agent.records import Record
from hfagent.agent.redact import redact
from hfagent.tools.hub_calls import api, ask

FOUND = 8
Kind = Literal["model", "dataset"]


class Found(Record):
    """A model or a dataset."""

    id: str
    downloads: int | None
    """Of the last 30 days."""
    likes: int | None
    gated: bool | None
    """Whether its owner must let you in first; None while unknown."""
    license: str | None
    parameters: int | None = None
    """Weights of a model, by its safetensors files; None while unknown."""


def find(kind: Kind, query: str, *, token: str | None = None) -> list[Found]:
    """Search the Hub.

    Args:
        kind: what to look for.
        query: words of the name.
        token: sees private ones, too.

    Raises:
        UsageError: the Hub does not answer.
    """
    client = api(os.environ.get("HF_ENDPOINT"), token)
    expand: list[Any] = ["downloads", "likes", "gated", "tags", *(["safetensors"] if kind == "model" else [])]
    search = client.list_models if kind == "model" else client.list_datasets
    try:
        listed = ask(lambda: list(search(search=query, sort="downloads", limit=FOUND, expand=expand)), attempts=1)
    except (JobError, OSError) as error:
        raise UsageError(f"the Hub does not answer: {redact(cut(str(error), 200))}") from error
    return [_found(item) for item in listed]


def _found(item: Any) -> Found:
    tags = [str(tag) for tag in getattr(item, "tags", None) or []]
    gated = getattr(item, "gated", None)
    weights = getattr(getattr(item, "safetensors", None), "total", None)
    return Found(
        id=str(item.id),
        downloads=getattr(item, "downloads", None),
        likes=getattr(item, "likes", None),
        gated=None if gated is None else bool(gated),
        license=next((cut(tag.removeprefix("license:"), 40) for tag in tags if tag.startswith("license:")), None),
        parameters=weights if isinstance(weights, int) else None,
    )
