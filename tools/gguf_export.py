"""Write a model folder of transformers as one GGUF file, tensor by tensor, with no compiler and no llama.cpp."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfagent.agent.errors import ModelError
from hfagent.tools.gguf_architectures import (
    ARCHITECTURES,
    as_stored,
    require_convertible,
    rope_factors,
    write_hyperparameters,
)
from hfagent.tools.gguf_quantize import RECIPES, pack, tensor_type
from hfagent.tools.gguf_vocab import read_vocabulary, write_vocabulary
from hfagent.tools.safetensors_folder import Weights

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter
    from numpy.typing import NDArray

F16_MAX = 65504.0
ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True)
class Written:
    """What went into a file."""

    parameters: int
    """Weights of the model, as it is stored: tied embeddings once."""
    bits_per_weight: float
    """Of the tensors, without the metadata."""
    types: dict[str, int]
    """ggml type -> number of tensors."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside the file, which becomes the file where the block ends well, and is removed where it does not."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield scratch
        scratch.replace(path)
    finally:
        with suppress(FileNotFoundError):
            scratch.unlink()


def read_config(folder: Path) -> dict[str, Any]:
    """config.json with the defaults of its architecture filled in.

    Raises:
        ModelError: it cannot be read, or llama.cpp does not know the architecture.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{str(folder)!r} holds no config.json that can be read: {error}") from error
    require_convertible(config)
    from transformers import AutoConfig

    try:
        full: dict[str, Any] = AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
    except ValueError as error:
        raise ModelError(f"the configuration in {str(folder)!r} cannot be read: {error}") from error
    require_convertible(full)
    return full


def write_gguf(folder: Path, path: Path, quantization: str, *, name: str) -> Written:
    """Convert a model folder; the caller decides what becomes of a file whose writing was cut off.

    Args:
        folder: config, safetensors, tokenizer.json, tokenizer_config.json, chat template.
        path: the file.
        quantization: a name in `RECIPES`.
        name: the model's name in the file.

    Raises:
        ModelError: an architecture, a tokenizer or weights that GGUF or llama.cpp cannot hold.
    """
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, size_label

    config = read_config(folder)
    vocabulary = read_vocabulary(folder, config["vocab_size"])
    with Weights(folder) as weights:
        plan = _plan(weights, config, quantization)
        parameters = sum(math.prod(shape) for _, _, shape, _ in plan)
        writer = GGUFWriter(path, ARCHITECTURES[config["model_type"]].name)
        writer.add_type("model")
        writer.add_name(name)
        writer.add_size_label(size_label(parameters, parameters, 0, 0))
        write_hyperparameters(writer, config)
        writer.add_file_type(LlamaFileType[RECIPES[quantization].file_type])
        writer.add_quantization_version(2)
        write_vocabulary(writer, vocabulary)
        factors = rope_factors(config)
        if factors is not None:
            writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
        size = 0
        for _, stored, shape, kind in plan:
            nbytes = _nbytes(shape, kind)
            size += nbytes
            # float32 here only tells the writer that the shape is counted in weights, not in packed bytes.
            writer.add_tensor_info(stored, shape, np.dtype("float32"), nbytes, raw_dtype=GGMLQuantizationType[kind])
        _write(writer, weights, plan, config, factors)
    types = [kind for *_, kind in plan]
    return Written(parameters, 8 * size / parameters, {kind: types.count(kind) for kind in sorted(set(types))})


_Planned = tuple[str, str, tuple[int, ...], str]
"""transformers' name, GGUF's, shape, ggml type."""


def _plan(weights: Weights, config: dict[str, Any], quantization: str) -> list[_Planned]:
    """What becomes of each tensor, in the file's order: by layer, the embeddings first."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    layers, tied = config["num_hidden_layers"], bool(config["tie_word_embeddings"])
    gguf_name = ARCHITECTURES[config["model_type"]].name
    arch = next(arch for arch, known in MODEL_ARCH_NAMES.items() if known == gguf_name)
    names = get_tensor_name_map(arch, layers)
    plan: list[_Planned] = []
    for name, shape in weights.shapes.items():
        if tied and name == "lm_head.weight":
            continue
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if stored is None:
            raise ModelError(f"the model has a tensor {name!r}, which llama.cpp's {gguf_name} has not")
        plan.append((name, stored, shape, tensor_type(stored, shape, quantization, layers=layers, tied=tied)))
    return sorted(plan, key=lambda planned: _order(planned[1]))


def _order(stored: str) -> tuple[int, str]:
    if stored.startswith("blk."):
        return int(stored.split(".")[1]), stored
    return (-1 if stored.startswith("token_embd") else 1 << 30), stored


def _write(
    writer: "GGUFWriter",
    weights: Weights,
    plan: list[_Planned],
    config: dict[str, Any],
    factors: "NDArray[np.float32] | None",
) -> None:
    from gguf import GGMLQuantizationType

    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for name, _, _, kind in plan:
            values = as_stored(name, weights.float32(name), config)
            _check(name, values, kind)
            writer.write_tensor_data(pack(values, GGMLQuantizationType[kind]))
    finally:
        writer.close()


def _check(name: str, values: "NDArray[np.float32]", kind: str) -> None:
    import numpy as np

    largest = float(np.abs(values).max(initial=0.0))
    if not np.isfinite(largest):
        raise ModelError(f"tensor {name!r} holds values that are no finite numbers: the training has diverged")
    if kind == "F16" and largest > F16_MAX:
        raise ModelError(f"tensor {name!r} holds {largest:g}, and F16 ends at {F16_MAX:g}: use Q8_0")


def _nbytes(shape: tuple[int, ...], kind: str) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return math.prod(shape) // int(block) * int(size)
