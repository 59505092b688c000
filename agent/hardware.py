"""Hardware to rent: what there is, what it costs, and the cheapest that is large enough. Pure, with a data file.

A job is one process (`uv run script.py`), and one process trains on one GPU: a flavor of several would be paid for and
stand idle, or hold the model once on each. So those are taken only where a person names them, and count as one.
"""

import tomllib
from collections.abc import Iterable
from datetime import date
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import Field

from hfagent.agent.records import Record, Refusal

VRAM_SHARE = 0.85
"""Of a GPU's memory that a job may need; the rest is for the CUDA context and for fragments."""
CPU_LIMIT = 200_000_000
"""Weights from which nothing is trained on a processor: 134.5 million at 310 tokens/s on 2 cores are slow enough."""


class Gpu(Record):
    """How fast a model of GPU is."""

    tflops: float = Field(gt=0)
    """Peak of dense matrix multiplication in 16 bits, in 10^12 operations a second."""
    bandwidth_gb_s: float = Field(gt=0)
    """Of its memory, in 10^9 bytes a second."""
    bf16: bool = True


class Flavor(Record):
    """A machine by the hour."""

    name: str
    price_micro_usd_per_hour: int = Field(ge=0)
    gpu: str | None = None
    """Model of GPU: a key of `gpus()`, or one that nobody measured; None on a processor."""
    gpus: int = Field(default=0, ge=0)
    vram_gb: float | None = None
    """Of all GPUs together."""
    vcpu: int | None = None
    ram_gb: float | None = None
    disk_gb: float | None = None

    @property
    def vram_each_gb(self) -> float | None:
        """Memory of one GPU: all that one process has."""
        return None if self.vram_gb is None else self.vram_gb / max(self.gpus, 1)

    @property
    def price_text(self) -> str:
        """Dollars an hour."""
        return f"${self.price_micro_usd_per_hour / 1e6:.2f}/h"


class Table(Record):
    """All flavors, and how far they can be trusted."""

    flavors: tuple[Flavor, ...]
    as_of: date
    source: Literal["live", "file"]
    note: str | None = None
    """What a person should know, e.g. why the file had to do."""

    def names(self) -> tuple[str, ...]:
        """Of all flavors."""
        return tuple(flavor.name for flavor in self.flavors)

    def has_gpu(self, flavor: str | None) -> bool:
        """Whether what is rented has a GPU: only a processor that was asked for by its name has none."""
        found = () if flavor is None else self.named(flavor)
        return isinstance(found, Refusal) or not found or any(item.gpu is not None for item in found)

    def named(self, text: str) -> tuple[Flavor, ...] | Refusal:
        """What a person calls by this name: one flavor, or all with one GPU of this model; else what was meant."""
        name = text.strip().lower()
        found = tuple(flavor for flavor in self.flavors if flavor.name == name)
        if not found:
            model = gpu_key(name.removeprefix("nvidia").strip(" -"))
            found = tuple(flavor for flavor in self.flavors if flavor.gpu == model and flavor.gpus == 1)
        if found:
            return found
        guess = get_close_matches(name, self.names(), n=1)
        hint = f"did you mean {guess[0]!r}? " if guess else ""
        return Refusal(
            what=f"flavor {text!r}",
            why=f"unknown flavor {text!r}: {hint}the flavors are {', '.join(self.names())}",
        )


class Need(Record):
    """What a job takes, in GB of 10^9 bytes."""

    vram_gb: float = Field(gt=0)
    ram_gb: float = Field(ge=0)
    """Of the machine, beside the GPU's."""
    disk_gb: float = Field(ge=0)
    parameters: int | None = None
    bf16: bool = False
    """A GPU that has no bf16 is not chosen; a person may name it."""


class Choice(Record):
    """A flavor, and why not a cheaper one."""

    flavor: Flavor
    why: str
    passed_over: tuple[str, ...] = ()
    """Each cheaper flavor, with what it lacks and by how much."""


@cache
def fallback() -> Table:
    """The dated table of the package."""
    data = _data()
    flavors = tuple(Flavor(name=name, **values) for name, values in data["flavors"].items())
    return Table(flavors=flavors, as_of=data["as_of"], source="file")


@cache
def gpus() -> dict[str, Gpu]:
    """Speeds, by model."""
    return {name: Gpu.model_validate(values) for name, values in _data()["gpus"].items()}


def gpu_key(model: str) -> str:
    """A model of GPU as the table spells it: `RTX PRO 6000` is `rtxpro6000`."""
    return "".join(letter for letter in model.lower() if letter.isalnum())


def short_of(flavor: Flavor, need: Need) -> str | None:
    """What a flavor lacks for a job, and by how much; None where it is large enough. What is unknown counts as there
    but for the GPU's memory."""
    if flavor.gpu is None:
        return _short_of_processor(flavor, need)
    each = flavor.vram_each_gb
    if each is None:
        return "nobody knows its GPU memory"
    room = VRAM_SHARE * each
    if need.vram_gb > room:
        return f"{need.vram_gb:.1f} GB needed, {room:.1f} of {each:g} GB of GPU memory usable"
    return _short_of_machine(flavor, need.ram_gb, need.disk_gb)


def unsuited(flavor: Flavor, need: Need) -> str | None:
    """Why a flavor is not chosen unless a person names it: it is too small, or it lacks bf16."""
    speeds = None if flavor.gpu is None else gpus().get(flavor.gpu)
    if need.bf16 and speeds is not None and not speeds.bf16:
        return "it has no bf16, and a model of this size may overflow in fp16"
    return short_of(flavor, need)


def fitting(table: Table, need: Need) -> tuple[Flavor, ...]:
    """Flavors with one GPU that are chosen for this, the cheapest first and of equal prices the largest."""
    return tuple(flavor for flavor in _cheapest_first(_single(table)) if unsuited(flavor, need) is None)


def choose(table: Table, need: Need, *, among: tuple[Flavor, ...] | None = None) -> Choice | Refusal:
    """The cheapest flavor that a job fits on.

    Args:
        table: what there is.
        need: of the job.
        among: flavors that a person named; None for all with one GPU.

    Returns:
        A refusal where none is large enough; it says which would be.
    """
    tried = _cheapest_first(_single(table) if among is None else among)
    lacking: list[str] = []
    for flavor in tried:
        short = unsuited(flavor, need) if among is None else short_of(flavor, need)
        if short is None:
            many = f"; one process uses one of its {flavor.gpus} GPUs" if flavor.gpus > 1 else ""
            chosen = "as named" if among is not None else "the cheapest that fits"
            why = f"{chosen}: {need.vram_gb:.1f} GB needed{_room_text(flavor)}, {flavor.price_text}{many}"
            return Choice(flavor=flavor, why=why, passed_over=tuple(lacking))
        lacking.append(f"{flavor.name}: {short}")
    larger = [] if among is None else fitting(table, need)[:1]
    advice = f"{larger[0].name} at {larger[0].price_text} is large enough" if larger else "a smaller model would fit"
    names = ", ".join(flavor.name for flavor in tried) or "the table"
    why = f"nothing fits among {names}: {lacking[-1] if lacking else 'it has no GPU'}; {advice}"
    return Refusal(what="choose a flavor", why=why)


def _room_text(flavor: Flavor) -> str:
    each = flavor.vram_each_gb
    return "" if each is None else f" of the {VRAM_SHARE * each:.1f} usable of {each:g} GB"


def _short_of_processor(flavor: Flavor, need: Need) -> str | None:
    if need.parameters is None or need.parameters >= CPU_LIMIT:
        size = "an unknown number of" if need.parameters is None else f"{need.parameters:,}"
        return f"{size} weights, and a processor trains fewer than {CPU_LIMIT:,}"
    return _short_of_machine(flavor, need.ram_gb + need.vram_gb, need.disk_gb)


def _short_of_machine(flavor: Flavor, ram_gb: float, disk_gb: float) -> str | None:
    for needed, there, what in ((ram_gb, flavor.ram_gb, "memory"), (disk_gb, flavor.disk_gb, "disk")):
        if there is not None and needed > there:
            return f"{needed:.0f} GB of {what} needed, {there:g} there"
    return None


def _single(table: Table) -> tuple[Flavor, ...]:
    return tuple(flavor for flavor in table.flavors if flavor.gpus == 1)


def _cheapest_first(flavors: Iterable[Flavor]) -> list[Flavor]:
    return sorted(flavors, key=lambda f: (f.price_micro_usd_per_hour, -(f.vram_gb or 0), -(f.ram_gb or 0), f.name))


@cache
def _data() -> dict[str, Any]:
    text = (files("hfagent.agent") / "hardware.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
