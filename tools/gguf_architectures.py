"""What llama.cpp needs to know of a model's architecture: its name, hyperparameters, and the form of its tensors.

A model is refused wherever llama.cpp would compute something else than transformers: its graphs have one activation,
one pattern of windows and one of layers without positions built in.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hfagent.agent.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter
    from numpy.typing import NDArray

Config = Mapping[str, Any]
KEEPS_UNQUANTIZED = "export without --quantize, which only merges, or serve the merged model as it is"


@dataclass(frozen=True)
class Architecture:
    """How a model type of transformers is written in GGUF."""

    name: str
    """llama.cpp's."""
    activation: str = "silu"
    pairs_rotary: bool = False
    """Rotary dimensions are pairs (i, i+1) in llama.cpp, so rows of q and k, stored as (i, i+d/2), change places."""
    norm_offset: float = 0.0
    """Added to the weights of a norm: Gemma stores their distance from 1."""


ARCHITECTURES = {
    "llama": Architecture("llama", pairs_rotary=True),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "gemma3_text": Architecture("gemma3", activation="gelu_pytorch_tanh", norm_offset=1.0),
    "smollm3": Architecture("smollm3", pairs_rotary=True),
}
"""By `model_type` of config.json."""

GEMMA_WINDOWS = 6
"""Every so many layers of a Gemma 3 one attends to everything."""
SMOLLM_POSITIONS = 4
"""Every so many layers of a SmolLM3 one has no rotary positions."""


def require_convertible(config: Config) -> None:
    """Refuse what cannot be written as GGUF, from config.json alone.

    Raises:
        ModelError: names the architectures that can.
    """
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(
            f"a model of type {kind!r} cannot be converted to GGUF here: the types {known} can; {KEEPS_UNQUANTIZED}"
        )
    flaws = [
        (name, config.get(name))
        for name in ("quantization_config", "final_logit_softcapping", "attn_logit_softcapping")
        if config.get(name) is not None
    ]
    flaws += [(name, value) for name, value, built_in in _built_in(kind, config) if value != built_in]
    if flaws:
        name, value = flaws[0]
        raise ModelError(
            f"the {kind} has {name} = {value!r} in its config.json, which llama.cpp's {ARCHITECTURES[kind].name} does "
            f"not compute: {KEEPS_UNQUANTIZED}"
        )
    rope = rope_parameters(config)
    if rope.get("rope_type", "default") not in _ROPE_TYPES:
        known = ", ".join(_ROPE_TYPES)
        raise ModelError(
            f"rotary positions of type {rope['rope_type']!r} cannot be converted to GGUF here: the types {known} can; "
            f"{KEEPS_UNQUANTIZED}"
        )


def _built_in(kind: str, config: Config) -> list[tuple[str, Any, Any]]:
    """Name, value here, and the value that llama.cpp's graph has built in."""
    layers = config.get("num_hidden_layers", 0)
    activation = config.get("hidden_act") or config.get("hidden_activation") or ARCHITECTURES[kind].activation
    found = [
        ("hidden_act", activation, ARCHITECTURES[kind].activation),
        ("partial_rotary_factor", rope_parameters(config).get("partial_rotary_factor") or 1.0, 1.0),
    ]
    if kind in ("qwen2", "qwen3", "smollm3"):
        found.append(("use_sliding_window", bool(config.get("use_sliding_window")), False))
    if kind == "gemma3_text":
        windows = ["full_attention" if (i + 1) % GEMMA_WINDOWS == 0 else "sliding_attention" for i in range(layers)]
        found.append(("layer_types", config.get("layer_types") or windows, windows))
        scale = config.get("query_pre_attn_scalar", head_dim(config))
        found.append(("query_pre_attn_scalar", scale, head_dim(config)))
        found.append(("use_bidirectional_attention", bool(config.get("use_bidirectional_attention")), False))
    if kind == "smollm3":
        positions = [int((i + 1) % SMOLLM_POSITIONS != 0) for i in range(layers)]
        found.append(("no_rope_layers", config.get("no_rope_layers") or positions, positions))
    return found


def rope_parameters(config: Config, layers: str = "full_attention") -> dict[str, Any]:
    """The rotary positions of these layers, as transformers 5 or as its older versions write them."""
    held: dict[str, Any] | None = config.get("rope_parameters")
    if held is None:
        scaling = dict(config.get("rope_scaling") or {})
        base = config.get("rope_local_base_freq") if layers == "sliding_attention" else config.get("rope_theta")
        held = {"rope_theta": base or 10_000.0}
        held |= scaling if layers == "full_attention" else {}
        held["rope_type"] = held.get("rope_type") or held.pop("type", "default")
    own: dict[str, Any] = held.get(layers, held)
    return dict(own)


def head_dim(config: Config) -> int:
    """Size of an attention head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def write_hyperparameters(writer: "GGUFWriter", config: Config) -> None:
    """The metadata from which llama.cpp builds the graph."""
    kind = config["model_type"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config.get("num_key_value_heads") or config["num_attention_heads"])
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    rope = rope_parameters(config)
    writer.add_rope_freq_base(rope["rope_theta"])
    if ARCHITECTURES[kind].pairs_rotary:
        writer.add_rope_dimension_count(head_dim(config))
    if kind == "gemma3_text":
        from gguf import Keys

        writer.add_sliding_window(config["sliding_window"])
        local = rope_parameters(config, "sliding_attention")["rope_theta"]
        writer.add_float32(Keys.Rope.FREQ_BASE_SWA.format(arch="gemma3"), local)
    _ROPE_TYPES[rope.get("rope_type", "default")](writer, config, rope)


def _linear(writer: "GGUFWriter", config: Config, rope: dict[str, Any]) -> None:
    from gguf import RopeScalingType

    writer.add_rope_scaling_type(RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(rope["factor"])


def _yarn(writer: "GGUFWriter", config: Config, rope: dict[str, Any]) -> None:
    from gguf import RopeScalingType

    writer.add_rope_scaling_type(RopeScalingType.YARN)
    writer.add_rope_scaling_factor(rope["factor"])
    original = rope.get("original_max_position_embeddings") or config["max_position_embeddings"]
    writer.add_rope_scaling_orig_ctx_len(original)


def _nothing(writer: "GGUFWriter", config: Config, rope: dict[str, Any]) -> None:
    """The default has no more to say; Llama 3's goes into a tensor of its own."""


_ROPE_TYPES: dict[str, Callable[["GGUFWriter", Config, dict[str, Any]], None]] = {
    "default": _nothing,
    "linear": _linear,
    "llama3": _nothing,
    "yarn": _yarn,
}


def rope_factors(config: Config) -> "NDArray[np.float32] | None":
    """By how much each rotary frequency of a Llama 3.1 and later is lowered; None where none is.

    Waves that fit often into the context of the pre-training stay, long ones are stretched by the factor, those
    between by something between.
    """
    import numpy as np

    rope = rope_parameters(config)
    if rope.get("rope_type") != "llama3":
        return None
    size = head_dim(config)
    frequencies = rope["rope_theta"] ** -(np.arange(0, size, 2, dtype=np.float64) / size)
    fits = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    kept = np.clip((fits - low) / (high - low), 0.0, 1.0)
    factors: NDArray[np.float32] = (1 / ((1 - kept) / rope["factor"] + kept)).astype(np.float32)
    return factors


def as_stored(name: str, weights: "NDArray[np.float32]", config: Config) -> "NDArray[np.float32]":
    """A tensor of transformers in the form in which llama.cpp multiplies with it.

    Args:
        name: transformers' name of the tensor.
        weights: its values.
        config: the model's config.json.
    """
    architecture = ARCHITECTURES[config["model_type"]]
    if architecture.norm_offset and name.endswith("norm.weight"):
        return weights + architecture.norm_offset
    heads = {
        "q_proj": config["num_attention_heads"],
        "k_proj": config.get("num_key_value_heads") or config["num_attention_heads"],
    }
    part = name.split(".")[-2]
    if not architecture.pairs_rotary or part not in heads:
        return weights
    rows = weights.shape[0] // heads[part]
    return weights.reshape(heads[part], 2, rows // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)
