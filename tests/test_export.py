"""The export script and the evaluation of what it wrote, as jobs: real processes, real llama.cpp."""

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_bpe import edit_json, write_adapter, write_bpe_model

MODULE = [sys.executable, "-m", "hfagent.job_templates.export"]
needs_llama_cpp = pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="no xllamacpp")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("export")
    write_bpe_model(root / "model", max_position_embeddings=4096)
    write_adapter(root / "adapter", root / "model")
    return root


def run(
    root: Path, *args: str, module: str = "export", model: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    named = str(model or root / "model")
    command = [sys.executable, "-m", f"hfagent.job_templates.{module}", "--model", named, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def result(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    return found


@needs_llama_cpp
@pytest.mark.slow
def test_an_adapter_is_exported_and_its_file_evaluated(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ("--adapter", str(root / "adapter"), "--quantize", "F16,Q4_K_M", "--quantize", "q8_0", "--name", "mine")
    found = result(run(root, *args, "--output-dir", str(out)))
    assert (found["merged"], found["dtype"]) == (str(out / "merged"), "bfloat16")
    assert [file["quantization"] for file in found["files"]] == ["F16", "Q4_K_M", "Q8_0"]
    for file in found["files"]:
        path = Path(file["path"])
        assert path == out / f"mine-{file['quantization']}.gguf"
        assert file["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (file["size_bytes"], file["tokens_per_s"] > 0) == (path.stat().st_size, True)
    assert found["files"][0]["bits_per_weight"] == pytest.approx(16, abs=0.3)
    assert sorted(path.name for path in out.iterdir()) == sorted(["merged", *(f["name"] for f in found["files"])])

    def evaluated(name: str, *more: str, model: Path | None = None) -> dict[str, Any]:
        asked = ("--benchmark", "procedural_python", "--set", "search", "--n", "6", "--max-new-tokens", "12")
        folder = str(tmp_path / name)
        return result(run(root, *asked, *more, "--output-dir", folder, module="evaluate", model=model))

    score = evaluated("a", "--gguf", found["files"][0]["path"], "--batch-size", "3")
    assert (score["backend"], score["dtype"], score["device"], score["n"]) == ("llama.cpp", "F16", "cpu", 6)
    parts = json.loads((tmp_path / "a" / "harness.json").read_text())
    assert parts["backend"] == "llama.cpp"
    assert "job_templates/gguf_generation.py" in parts["sources"]
    assert parts["versions"]["xllamacpp"] is not None
    plain = evaluated("b", "--dtype", "float32", model=out / "merged")
    assert set(plain["outcomes"]) == set(score["outcomes"])
    assert plain["harness"] != score["harness"]
    # an answer depends on its prompt alone
    other = evaluated("c", "--gguf", found["files"][0]["path"], "--batch-size", "2")
    completions = [
        {one["id"]: one["completion"] for one in map(json.loads, (tmp_path / name / "details.jsonl").open())}
        for name in ("a", "c")
    ]
    assert completions[0] == completions[1]
    assert other["harness"] != score["harness"]  # which names the batch size


@pytest.mark.parametrize(
    ("args", "said", "code"),
    [
        (("--quantize", "Q2_K"), "no quantization 'Q2_K': there are F16, Q8_0, Q6_K, Q5_K_M, Q4_K_M", 2),
        ((), "nothing to do", 2),
        (("--adapter", "nowhere"), "holds no adapter", 1),
    ],
)
def test_arguments_that_cannot_be_used_end_with_one_line(
    args: tuple[str, ...], said: str, code: int, root: Path, tmp_path: Path
) -> None:
    done = run(root, *args, "--output-dir", str(tmp_path / "out"))
    assert done.returncode == code
    assert said in done.stderr.splitlines()[-1]
    assert "RESULT" not in done.stdout
    assert not (tmp_path / "out").exists()


@needs_llama_cpp
def test_an_unknown_architecture_is_refused_before_any_work(root: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text((root / "model" / "config.json").read_text())
    edit_json(tmp_path / "model" / "config.json", model_type="gpt_neox")
    done = run(tmp_path, "--quantize", "Q8_0", "--output-dir", str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "type 'gpt_neox' cannot be converted to GGUF here: the types llama, qwen2" in done.stderr
    assert not (tmp_path / "out").exists()


@needs_llama_cpp
def test_a_tokenizer_that_cannot_be_converted_is_refused_before_the_merge(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "model", tmp_path / "model")
    edit_json(tmp_path / "model" / "tokenizer.json", pre_tokenizer={"type": "Whitespace"})
    args = ("--adapter", str(root / "adapter"), "--quantize", "Q8_0", "--output-dir", str(tmp_path / "out"))
    done = run(root, *args, model=tmp_path / "model")
    assert (done.returncode, done.stdout) == (1, "")
    assert "splits text by" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_gguf_file_is_evaluated_with_its_own_weights(root: Path, tmp_path: Path) -> None:
    asked = ("--benchmark", "procedural_python", "--set", "search", "--n", "2", "--output-dir", str(tmp_path / "out"))
    done = run(root, *asked, "--gguf", "x.gguf", "--adapter", str(root / "adapter"), module="evaluate")
    assert done.returncode == 2
    assert "--gguf has its own weights" in done.stderr
    if importlib.util.find_spec("xllamacpp") is not None:
        (tmp_path / "x.gguf").write_bytes(b"no")
        done = run(root, *asked, "--gguf", str(tmp_path / "x.gguf"), module="evaluate")
        assert done.returncode == 1
        assert "x.gguf' is no GGUF file" in done.stderr


@needs_llama_cpp
@pytest.mark.slow
def test_sigterm_leaves_no_half_written_file(tmp_path: Path) -> None:
    write_bpe_model(tmp_path / "model", hidden_size=512, intermediate_size=1536, num_hidden_layers=40)
    out = tmp_path / "out"
    command = [*MODULE, "--model", str(tmp_path / "model"), "--quantize", "Q4_K_M", "--output-dir", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while not (out.is_dir() and any(out.iterdir())):  # the scratch file is there
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    assert process.stdout is not None
    assert "RESULT" not in process.stdout.read()
    assert list(out.iterdir()) == []
