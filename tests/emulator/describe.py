"""What the Hub computes about a repo: the card, tags, parameters by the headers of safetensors, the listing."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from tests.emulator.hub import Hub
from tests.emulator.repos import POINTER_BYTES, Commit, Repo, StoredFile, card_data

TAGGED = {"license": "license", "base_model": "base_model", "datasets": "dataset"}
INDEX = "model.safetensors.index.json"


def describe(hub: Hub, repo: Repo, commit: Commit, *, blobs: bool = False) -> dict[str, Any]:
    """All that GET /api/models/{id} answers, or the like of other kinds."""
    card = _card(hub, commit)
    known = {
        "_id": repo.id.encode().hex().ljust(24, "0")[:24],
        "id": repo.id,
        "author": repo.namespace,
        "sha": commit.sha,
        "lastModified": commit.date,
        "createdAt": repo.created_at,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": _tags(repo, commit, card),
        "cardData": card,
        "siblings": [_sibling(path, file, blobs=blobs) for path, file in sorted(commit.files.items())],
        "usedStorage": sum(file.size for file in commit.files.values()),
    }
    if repo.kind == "model":
        known |= _of_model(hub, repo, commit, card or {})
    if repo.kind == "space":
        host = repo.id.replace("/", "-").lower()
        known |= {"sdk": repo.sdk, "subdomain": host, "host": f"https://{host}.hf.space", "runtime": runtime(repo)}
    return known


def runtime(repo: Repo) -> dict[str, Any]:
    """How a Space runs."""
    return {"stage": repo.stage, "hardware": {"current": repo.hardware, "requested": repo.hardware}, "gcTimeout": None}


def parameters(hub: Hub, commit: Commit) -> dict[str, int] | None:
    """Weights by data type; None where the repo has no safetensors of a model."""
    names = ["model.safetensors"]
    if INDEX in commit.files:
        index = json.loads(_read(hub, commit.files[INDEX]))
        names = sorted(set(index["weight_map"].values()))
    counted: Counter[str] = Counter()
    for name in names:
        if name in commit.files:
            for tensor, about in header(hub.blob(commit.files[name].sha256)).items():
                if tensor != "__metadata__":
                    counted[about["dtype"]] += math.prod(about["shape"])
    return dict(counted) or None


def header(path: Path) -> dict[str, Any]:
    """The header of a file of safetensors."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        found: dict[str, Any] = json.loads(file.read(length))
    return found


def _of_model(hub: Hub, repo: Repo, commit: Commit, card: dict[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {"modelId": repo.id, "spaces": []}
    counted = parameters(hub, commit)
    if counted:
        known["safetensors"] = {"parameters": counted, "total": sum(counted.values())}
    adapter = "adapter_config.json" in commit.files
    library = card.get("library_name") or ("peft" if adapter else "transformers" if _config(hub, commit) else None)
    config = _config(hub, commit)
    if config:
        known["config"] = {key: config[key] for key in ("architectures", "model_type") if key in config}
    causal = any(name.endswith("ForCausalLM") for name in (config or {}).get("architectures") or [])
    pipeline = card.get("pipeline_tag") or ("text-generation" if causal else None)
    return known | {key: value for key, value in (("library_name", library), ("pipeline_tag", pipeline)) if value}


def _config(hub: Hub, commit: Commit) -> dict[str, Any] | None:
    if "config.json" not in commit.files:
        return None
    try:
        found = json.loads(_read(hub, commit.files["config.json"]))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _card(hub: Hub, commit: Commit) -> dict[str, Any] | None:
    if "README.md" not in commit.files:
        return None
    try:
        card = card_data(_read(hub, commit.files["README.md"]).decode("utf-8", "replace"))
    except yaml.YAMLError:
        return None
    return json.loads(json.dumps(card, default=str)) if card else None


def _tags(repo: Repo, commit: Commit, card: dict[str, Any] | None) -> list[str]:
    card = card or {}
    tags = [str(tag) for tag in _list(card.get("tags"))]
    if repo.kind == "model":
        tags += [str(card["library_name"])] if card.get("library_name") else []
        tags += ["safetensors"] if any(path.endswith(".safetensors") for path in commit.files) else []
    tags += [f"{prefix}:{value}" for key, prefix in TAGGED.items() for value in _list(card.get(key))]
    return [*dict.fromkeys(tags), "region:us"]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _sibling(path: str, file: StoredFile, *, blobs: bool) -> dict[str, Any]:
    known: dict[str, Any] = {"rfilename": path}
    if blobs:
        known |= {"size": file.size, "blobId": file.oid}
        if file.lfs:
            known["lfs"] = {"size": file.size, "sha256": file.sha256, "pointerSize": POINTER_BYTES}
    return known


def _read(hub: Hub, file: StoredFile) -> bytes:
    return hub.blob(file.sha256).read_bytes()
