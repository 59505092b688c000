"""llama.cpp's recipes: which tensor gets how many bits; and the packing itself, without llama.cpp.

The K types are packed by `libgguf`, a small wheel with llama.cpp's reference kernels; all others by `gguf` itself,
whose bytes are the same (a test holds it).
"""

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hfagent.agent.errors import PackageMissing, UsageError

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType
    from numpy.typing import NDArray

K_BLOCK, BLOCK = 256, 32
"""Weights that share a scale: a row must be a multiple."""


@dataclass(frozen=True)
class Recipe:
    """Names of ggml types."""

    usual: str
    more: str
    """For values and down projections of some layers."""
    output: str
    """For the matrix that gives the logits."""
    file_type: str
    """`general.file_type`, as gguf.LlamaFileType calls it."""


RECIPES = {
    "F16": Recipe("F16", "F16", "F16", "MOSTLY_F16"),
    "Q8_0": Recipe("Q8_0", "Q8_0", "Q8_0", "MOSTLY_Q8_0"),
    "Q6_K": Recipe("Q6_K", "Q6_K", "Q6_K", "MOSTLY_Q6_K"),
    "Q5_K_M": Recipe("Q5_K", "Q6_K", "Q6_K", "MOSTLY_Q5_K_M"),
    "Q4_K_M": Recipe("Q4_K", "Q6_K", "Q6_K", "MOSTLY_Q4_K_M"),
}
_NARROW = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What stands in for a K type where rows are not a multiple of 256: the next larger one in blocks of 32."""


def quantizations(text: str) -> tuple[str, ...]:
    """The names in a comma-separated list, each once.

    Raises:
        UsageError: a name that is none.
    """
    wanted = tuple(dict.fromkeys(part.strip().upper() for part in text.split(",") if part.strip()))
    for name in wanted:
        if name not in RECIPES:
            raise UsageError(f"no quantization {name!r}: there are {', '.join(RECIPES)}")
    return wanted


def require_quantizer(names: Iterable[str]) -> None:
    """Refuse before any work what the installed packages cannot pack.

    Raises:
        PackageMissing: with the pip command.
    """
    needed = ["gguf"]
    if any(kind.endswith("_K") for name in names for kind in (RECIPES[name].usual, RECIPES[name].output)):
        needed.append("libgguf")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise PackageMissing(
            f"package {missing[0]!r} is needed to write {', '.join(names)}: pip install 'hfagent[gguf]'"
        )


def tensor_type(name: str, shape: tuple[int, ...], quantization: str, *, layers: int, tied: bool) -> str:
    """The ggml type of a tensor, by its name in GGUF.

    Args:
        name: `blk.3.attn_v.weight`.
        shape: outermost dimension first.
        quantization: of the file.
        layers: how many the model has.
        tied: whether the embeddings give the logits, too.
    """
    recipe = RECIPES[quantization]
    if len(shape) == 1 or not name.endswith(".weight"):
        return "F32"
    wanted = recipe.usual
    if name == ("token_embd.weight" if tied else "output.weight"):
        wanted = recipe.output
    elif name.endswith(("attn_v.weight", "ffn_down.weight")) and gets_more(int(name.split(".")[1]), layers):
        wanted = recipe.more
    if wanted.endswith("_K") and shape[-1] % K_BLOCK:
        wanted = _NARROW[wanted]
    return "F16" if wanted != "F16" and shape[-1] % BLOCK else wanted


def gets_more(layer: int, layers: int) -> bool:
    """Whether llama.cpp's mixtures give this layer's values and down projection more bits: the first and the last
    eighth, and every third between.
    """
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def pack(weights: "NDArray[np.float32]", kind: "GGMLQuantizationType") -> "NDArray[np.generic]":
    """The bytes of a tensor."""
    import numpy as np

    if kind.name == "F32":
        return np.ascontiguousarray(weights, dtype=np.float32)
    if kind.name == "F16":
        return weights.astype(np.float16)
    if kind.name.endswith("_K"):
        import libgguf

        packed: NDArray[np.generic] = libgguf.quantize_rows(weights, kind)
        return packed
    from gguf.quants import quantize

    legacy: NDArray[np.generic] = quantize(np.ascontiguousarray(weights), kind)
    return legacy
