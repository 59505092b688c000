"""Writes docs/hardware.md, sizes and flavors: `python -m hfagent.agent.hardware_docs > docs/hardware.md`."""

import sys
from typing import NamedTuple

from hfagent.agent.hardware import VRAM_SHARE, Choice, Flavor, Table, choose, fallback
from hfagent.agent.memory import BF16_FROM, need
from hfagent.agent.records import Method, TrainConfig
from hfagent.agent.train_config import METHODS


class Size(NamedTuple):
    """A model and its number of weights, as its safetensors files count them."""

    model: str
    parameters: int


SIZES = (
    Size("SmolLM2-135M", 134_515_008),
    Size("gemma-3-270m", 268_098_176),
    Size("SmolLM2-360M", 361_821_120),
    Size("Qwen2.5-0.5B", 494_032_768),
    Size("Qwen3-0.6B", 596_049_920),
    Size("gemma-3-1b", 999_885_952),
    Size("Llama-3.2-1B", 1_235_814_400),
    Size("Qwen2.5-1.5B", 1_543_714_304),
    Size("Qwen3-1.7B", 1_720_574_976),
    Size("SmolLM3-3B", 3_075_098_624),
    Size("Qwen3-4B", 4_022_468_096),
    Size("Llama-2-7B", 6_738_415_616),
    Size("Qwen2.5-7B", 7_615_616_512),
    Size("Qwen3-8B", 8_190_735_360),
    Size("Qwen3-14B", 14_768_307_200),
)
TRAIN = TrainConfig(per_device_train_batch_size=1, gradient_accumulation_steps=16, max_length=1024)
NOTHING = "none"
HEAD = f"""# Hardware

Made by `python -m hfagent.agent.hardware_docs`; a test holds this page against it.

`hfagent estimate "goal" --backend hf` says it for a goal of yours, at today's prices.

## Which flavor a model gets

The cheapest flavor of Hugging Face Jobs with one GPU whose memory holds a training step, at {VRAM_SHARE:.0%} of what it
has, beside room on the host and on the disk; from {BF16_FROM / 1e9:g}B weights on not a T4, which has no bf16.
{TRAIN.per_device_train_batch_size} row of {TRAIN.max_length} tokens at a
time, {TRAIN.gradient_accumulation_steps} for a step; LoRA at rank {TRAIN.lora_r} on all linear layers. Each cell is
flavor and GB needed, by LoRA / in full. hfagent trains by LoRA: the rest is what it would take. Full means
weights, gradients and both moments in float32. Distillation is without its teacher, which takes 2 GB more for each
billion of its weights.

How memory is counted, term by term and with sources, is in `agent/memory.py`. It was checked by counting what torch
keeps for the backward pass, and not on a GPU yet.
"""


def row(size: Size, table: Table) -> tuple[str, ...]:
    """A model's cells: its name, its weights, and one cell a method."""
    return size.model, f"{size.parameters / 1e9:.3f}B", *(_cell(size.parameters, method, table) for method in METHODS)


def render(table: Table) -> str:
    """The whole page."""
    lines = [HEAD, *_markdown(("model", "weights", *METHODS), [row(size, table) for size in SIZES]), ""]
    lines += [
        f"`{NOTHING}`: more than the largest single GPU. Several GPUs in one flavor do not help: a job is one process,",
        "and one process trains on one GPU. Such flavors are taken only where `--flavor` names them, and count as one.",
        "",
        f"## All flavors, {table.as_of.isoformat()}",
        "",
        "Used where the Hub does not list them; its own list counts where it answers. GPU memory is that of all GPUs.",
        "",
        *_markdown(
            ("flavor", "$/h", "GPUs", "GPU memory GB", "vCPU", "memory GB", "disk GB"), map(_flavor_row, table.flavors)
        ),
    ]
    return "\n".join(lines) + "\n"


def flavor_for(parameters: int, method: Method, table: Table, *, lora: bool) -> str:
    """The flavor's name."""
    found = choose(table, need(parameters, method, lora=lora, train=TRAIN))
    return found.flavor.name if isinstance(found, Choice) else NOTHING


def _cell(parameters: int, method: Method, table: Table) -> str:
    return " / ".join(
        f"{flavor_for(parameters, method, table, lora=lora)} "
        f"{need(parameters, method, lora=lora, train=TRAIN).vram_gb:.1f}"
        for lora in (True, False)
    )


def _flavor_row(flavor: Flavor) -> tuple[str, ...]:
    gpus = "" if flavor.gpu is None else f"{flavor.gpus} {flavor.gpu}"
    sizes = (flavor.vram_gb, flavor.vcpu, flavor.ram_gb, flavor.disk_gb)
    price = f"{flavor.price_micro_usd_per_hour / 1e6:.2f}"
    return flavor.name, price, gpus, *("" if size is None else f"{size:g}" for size in sizes)


def _markdown(heads: tuple[str, ...], rows: "map[tuple[str, ...]] | list[tuple[str, ...]]") -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ("---",) * len(heads), *rows)]


if __name__ == "__main__":
    sys.stdout.write(render(fallback()))
