"""Read a Llama-architecture GGUF file into the folder that transformers loads, without torch.

transformers' own `gguf_file=` loader gives the same weights, takes 5 times as long (19 s), and needs two repairs: its
model cannot be saved (the quantizer's config is no JSON), and its tokenizer forgets to split numbers into digits.
"""

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfagent.agent.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader
    from numpy.typing import NDArray

_TOP_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL, _USER_DEFINED = 3, 4  # llama.cpp's token types that are matched whole


def convert(gguf: Path, folder: Path) -> None:
    """Write config, bfloat16 weights, tokenizer and chat template into an existing folder.

    Raises:
        ModelError: another architecture or tokenizer than SmolLM2's.
    """
    from gguf import GGUFReader

    reader = GGUFReader(gguf)
    kinds = tuple(_field(reader, key) for key in ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre"))
    if kinds != ("llama", "gpt2", "smollm"):
        raise ModelError(f"{gguf.name!r} is of architecture, tokenizer and splitting {kinds!r}, not a SmolLM2")
    config = _config(reader)
    special = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    tokens: list[str] = _field(reader, "tokenizer.ggml.tokens")
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "unk_token": tokens[_field(reader, "tokenizer.ggml.unknown_token_id")],
        **{key.removesuffix("_id"): tokens[index] for key, index in special.items()},
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", special)
    _write_json(folder / "tokenizer.json", _tokenizer(reader, tokens))
    _write_json(folder / "tokenizer_config.json", tokenizer_config)
    (folder / "chat_template.jinja").write_text(_field(reader, "tokenizer.chat_template"), encoding="utf-8")
    _write_weights(reader, folder / "model.safetensors", config)


def _field(reader: "GGUFReader", key: str) -> Any:
    field = reader.get_field(key)
    if field is None:
        raise ModelError(f"the GGUF file lacks {key!r}: not a whole language model")
    return field.contents()


def _config(reader: "GGUFReader") -> dict[str, Any]:
    hidden = _field(reader, "llama.embedding_length")
    heads = _field(reader, "llama.attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": _field(reader, "llama.vocab_size"),
        "hidden_size": hidden,
        "intermediate_size": _field(reader, "llama.feed_forward_length"),
        "num_hidden_layers": _field(reader, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _field(reader, "llama.attention.head_count_kv"),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "max_position_embeddings": _field(reader, "llama.context_length"),
        # Stored as float32; 7 digits give back the number that was meant, 1e-05.
        "rms_norm_eps": float(f"{_field(reader, 'llama.attention.layer_norm_rms_epsilon'):.7g}"),
        "rope_parameters": {"rope_type": "default", "rope_theta": _field(reader, "llama.rope.freq_base")},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in reader.tensors),
        "dtype": "bfloat16",
        "bos_token_id": _field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _field(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _field(reader, "tokenizer.ggml.padding_token_id"),
    }


def _tokenizer(reader: "GGUFReader", tokens: list[str]) -> dict[str, Any]:
    """`tokenizer.json` of a byte-level BPE that takes digits one by one, as SmolLM was trained."""
    kinds: list[int] = _field(reader, "tokenizer.ggml.token_type")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": token, **flags, "special": kind == _CONTROL}
            for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind in (_CONTROL, _USER_DEFINED)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {**byte_level, "add_prefix_space": False},
            ],
        },
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": _field(reader, "tokenizer.ggml.merges"),
        },
    }


def _hugging_face_name(name: str) -> str:
    if name in _TOP_NAMES:
        return _TOP_NAMES[name]
    if name == "output.weight":
        return "lm_head.weight"
    match name.split("."):
        case ["blk", block, part, "weight"] if part in _BLOCK_NAMES:
            return f"model.layers.{block}.{_BLOCK_NAMES[part]}.weight"
    raise ModelError(f"the GGUF file holds tensor {name!r}, which a Llama has not")


def _unpermuted(weights: "NDArray[np.float32]", heads: int) -> "NDArray[np.float32]":
    """Undo llama.cpp's order of a q or k projection's rows: it pairs rotary dimensions (i, i+1), Llama (i, i+d/2)."""
    rows, columns = weights.shape
    return weights.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _bfloat16(weights: "NDArray[np.float32]") -> bytes:
    """The upper halves, rounded to nearest, ties to even; weights are finite."""
    import numpy as np

    bits = np.ascontiguousarray(weights).view(np.uint32)
    return (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")).tobytes()


def _write_weights(reader: "GGUFReader", path: Path, config: dict[str, Any]) -> None:
    """Write the safetensors format by hand: length of header, header, tensors (its description is in the
    safetensors README); the library has no bfloat16 without torch.
    """
    from gguf.quants import dequantize

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in reader.tensors:
        shape = [int(size) for size in reversed(tensor.shape)]  # GGUF counts dimensions from the innermost
        end = offset + 2 * int(tensor.n_elements)
        entry = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        header[_hugging_face_name(tensor.name)] = entry
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in reader.tensors:
            weights = dequantize(tensor.data, tensor.tensor_type).reshape(
                [int(size) for size in reversed(tensor.shape)]
            )
            part = tensor.name.split(".")[-2]
            file.write(_bfloat16(_unpermuted(weights, heads[part]) if part in heads else weights))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=None if "model" in value else 2), encoding="utf-8")
