"""Hardware and sizes as the Hub tells them: flavors with their prices, numbers of weights, vocabularies."""

import json
import os
import re
import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from hfagent.agent.hardware import Flavor, Table, fallback, gpu_key
from hfagent.tools.hub_calls import api, first_line

UNITS_PER_HOUR = {"second": 3600, "sec": 3600, "minute": 60, "min": 60, "hour": 1}
BYTES = {"mb": 1e6, "gb": 1e9, "tb": 1e12, "mib": 2**20, "gib": 2**30, "tib": 2**40}
MAX_HEADER = 100_000_000
"""Bytes of a safetensors header; the format allows no more."""


class Hub(Protocol):
    """What is asked of `HfApi`."""

    def list_jobs_hardware(self) -> Iterable[Any]:
        """All flavors."""

    def model_info(self, repo_id: str, *, revision: str | None = None) -> Any:
        """Facts about a repository."""

    def get_safetensors_metadata(self, repo_id: str, *, revision: str | None = None) -> Any:
        """The headers of its weights."""


def hub(token: str | None) -> Hub:
    """The client."""
    client: Hub = api(None, token)
    return client


def hardware(token: str | None = None, *, api: Hub | None = None) -> Table:
    """The flavors as the Hub lists them now, or those of the dated file with a note why."""
    try:
        listed = list((api or hub(token)).list_jobs_hardware())
    except Exception as error:  # noqa: BLE001 - whatever the network or another version of the Hub does, the file is there
        return _from_file(f"the Hub does not list its hardware ({first_line(error)[:120]})")
    table = listed_table(listed)
    return table or _from_file(f"none of the {len(listed)} flavors that the Hub lists could be read")


def listed_table(listed: Sequence[Any]) -> Table | None:
    """The flavors of a list of `JobHardwareInfo`; None where none can be read."""
    flavors = tuple(flavor for item in listed if (flavor := parse(item)) is not None)
    if not flavors:
        return None
    skipped = len(listed) - len(flavors)
    note = f"{skipped} of {len(listed)} flavors could not be read and are left out" if skipped else None
    return Table(flavors=flavors, as_of=datetime.now(UTC).date(), source="live", note=note)


def parse(item: Any) -> Flavor | None:
    """One `JobHardwareInfo`; None where its price or its accelerator cannot be understood, or is no GPU."""
    per_hour = UNITS_PER_HOUR.get(str(item.unit_label).strip().lower().removesuffix("s"))
    accelerator = item.accelerator
    if per_hour is None or (accelerator is not None and accelerator.type.lower() != "gpu"):
        return None
    gpus = 0 if accelerator is None else number(accelerator.quantity)
    if gpus is None or not isinstance(item.unit_cost_micro_usd, int) or item.unit_cost_micro_usd < 0:
        return None
    vcpu = number(item.cpu)
    return Flavor(
        name=item.name,
        price_micro_usd_per_hour=item.unit_cost_micro_usd * per_hour,
        gpu=None if accelerator is None else gpu_key(accelerator.model),
        gpus=int(gpus),
        vram_gb=None if accelerator is None else gigabytes(accelerator.vram),
        vcpu=None if vcpu is None else int(vcpu),
        ram_gb=gigabytes(item.ram),
        disk_gb=gigabytes(item.ephemeral_storage),
    )


def number(text: Any) -> float | None:
    """The first number of `12 vCPU`; None without one."""
    found = re.search(r"\d+(?:\.\d+)?", str(text).replace(",", ""))
    return None if found is None else float(found[0])


def gigabytes(text: Any) -> float | None:
    """`24 GB`, `24GiB` or `1.5 TB` in 10^9 bytes; None for `N/A`."""
    found = re.search(r"(\d+(?:\.\d+)?)\s*([MGT]i?B)\b", str(text).replace(",", ""), re.IGNORECASE)
    return None if found is None else float(found[1]) * BYTES[found[2].lower()] / 1e9


def parameters(
    model: str, revision: str | None = None, token: str | None = None, *, api: Hub | None = None
) -> int | None:
    """How many weights a model has, counted from its files, never read off its name.

    Args:
        model: a folder or a Hub id.
        revision: commit or branch.
        token: for a private model.
        api: the client.

    Returns:
        None where neither the Hub nor the headers of its files tell.
    """
    if Path(model).expanduser().is_dir():
        return local_parameters(Path(model).expanduser())
    client = api or hub(token)
    try:
        told = getattr(client.model_info(model, revision=revision).safetensors, "total", None)
        if told:
            return int(told)
        counts = client.get_safetensors_metadata(model, revision=revision).parameter_count
    except Exception:  # noqa: BLE001 - no such repository, no safetensors, no network: unknown in each case
        return None
    return sum(counts.values()) or None


def commit(model: str, token: str | None = None, *, api: Hub | None = None) -> str | None:
    """The newest commit of a model on the Hub; None for a folder, an embedded model, or where it cannot be had."""
    if model.startswith("embedded:") or Path(model).expanduser().is_dir():
        return None
    try:
        sha = (api or hub(token)).model_info(model).sha
    except Exception:  # noqa: BLE001 - the job says it where the model is not there
        return None
    return None if sha is None else str(sha)


def local_parameters(folder: Path) -> int | None:
    """Weights in a folder's safetensors files by their headers alone; None without such files or with a broken one."""
    sharded = folder / "model.safetensors.index.json"
    try:
        if sharded.is_file():
            index = json.loads(sharded.read_text(encoding="utf-8"))
            files = [folder / name for name in sorted(set(index["weight_map"].values()))]
        else:
            files = sorted(folder.glob("*.safetensors"))
        return sum(_in_header(path) for path in files) or None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return None


def configuration(model: str, revision: str | None = None, token: str | None = None) -> dict[str, Any] | None:
    """A model's `config.json`, of a folder, the cache or the Hub; None where it cannot be had."""
    try:
        path = Path(model).expanduser() / "config.json"
        if not path.parent.is_dir():
            from huggingface_hub import hf_hub_download

            path = Path(hf_hub_download(model, "config.json", revision=revision, token=token))
        found = json.loads(path.read_text(encoding="utf-8"))
    except Exception:  # noqa: BLE001 - whatever is wrong with it, nothing is known
        return None
    return found if isinstance(found, dict) else None


def vocabulary(model: str, revision: str | None = None, token: str | None = None) -> int | None:
    """Words of a model's vocabulary by its `config.json`; None while unknown."""
    config = configuration(model, revision, token) or {}
    size = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    return int(size) if size else None


def _in_header(path: Path) -> int:
    """Elements of all tensors in one file.

    Raises:
        ValueError: no safetensors file.
    """
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > MAX_HEADER or length > os.fstat(stream.fileno()).st_size:
            raise ValueError(f"{path} is no safetensors file: a header of {length} bytes")
        header = json.loads(stream.read(length))
    count = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            size = 1
            for dimension in tensor["shape"]:
                size *= dimension
            count += size
    return count


def _from_file(why: str) -> Table:
    table = fallback()
    note = f"{why}: prices and flavors are those of {table.as_of.isoformat()}"
    return table.model_copy(update={"note": note})
