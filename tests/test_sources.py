"""What a plan names is looked for before anything is launched."""

import json
import os
from pathlib import Path

import pytest

from hfagent.agent.cli import main
from hfagent.agent.errors import UsageError
from hfagent.agent.records import DatasetRef, ModelRef
from hfagent.tools.dataset_store import EMBEDDED
from hfagent.tools.sources import (
    BYTES_PER_TOKEN,
    context_length,
    require_dataset,
    require_model,
    require_teacher,
    rough_size,
)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    return tmp_path / "hub"


def model(name: str, *, hub: bool = False) -> None:
    require_model(ModelRef(id=name), hub=hub)


def dataset(name: str, *, hub: bool = False) -> None:
    require_dataset(DatasetRef(id=name), hub=hub)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("./missing", "'./missing' is neither a folder"),
        ("./empty", "holds no config.json"),
        ("nonsense", "the Hub does not answer"),
        ("nobody/model", "the Hub does not answer"),
        ("embedded:nothing", "there is embedded:"),
    ],
)
def test_a_model_that_cannot_be_had_is_refused(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=says):
        model(name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../d/missing.jsonl", "no file or folder '../d/missing.jsonl'"),
        ("missing.csv", "no file or folder"),
        ("nobody/data", "the Hub does not answer"),
        ("embedded:nothing", "embedded:procedural-python or embedded:"),
    ],
)
def test_a_dataset_that_cannot_be_had_is_refused(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        dataset(name)


def test_what_is_here_or_in_the_cache_or_may_be_on_the_hub_passes(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    (tmp_path / "rows").mkdir()
    (cache / "models--org--name" / "snapshots" / "abc").mkdir(parents=True)
    (cache / "datasets--org--rows" / "snapshots" / "abc").mkdir(parents=True)
    (tmp_path / "home" / "datasets" / "org___old").mkdir(parents=True)
    for name in ("m", "./m", "org/name", "embedded:SmolLM2-135M-Instruct"):
        model(name)
    for name in ("rows", "org/rows", "org/old", *EMBEDDED):
        dataset(name)
    model("nobody/model", hub=True)
    dataset("nobody/data", hub=True)


def tiny(folder: Path, words: dict[str, int], vocab_size: int = 9) -> ModelRef:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"vocab_size": vocab_size}))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words}, "added_tokens": []}))
    return ModelRef(id=str(folder))


def test_a_teacher_must_choose_from_the_models_own_tokens(tmp_path: Path) -> None:
    words = {"a": 0, "b": 1}
    student = tiny(tmp_path / "student", words)
    for teacher, says in (
        (tiny(tmp_path / "wide", words, vocab_size=10), "chooses from 10 tokens, and the model '.*student' from 9"),
        (tiny(tmp_path / "swapped", {"a": 1, "b": 0}), "has another tokenizer than '.*student'"),
        (ModelRef(id=f"{tmp_path}/wide/../student"), "is the model itself"),
    ):
        with pytest.raises(UsageError, match=says):
            require_teacher(teacher, student, None)
    require_teacher(tiny(tmp_path / "good", words | {"c": 2}), student, None)
    (tmp_path / "good" / "tokenizer.json").unlink()
    require_teacher(ModelRef(id=str(tmp_path / "good")), student, None)  # the job looks again


@pytest.mark.parametrize("end", ["", "\n"])
def test_rows_are_counted_by_lines_and_their_lengths_by_bytes(tmp_path: Path, end: str) -> None:
    text = "\n".join(json.dumps({"prompt": "x" * 40}) for _ in range(60)) + end
    (tmp_path / "own.jsonl").write_text(text)
    (tmp_path / "own.csv").write_text("prompt,completion\n" + "a,b\n" * 5)
    size = rough_size(DatasetRef(id="own.jsonl"))
    assert size.rows == 60
    assert size.mean_tokens == pytest.approx(len(text) / 60 / BYTES_PER_TOKEN)
    assert rough_size(DatasetRef(id="own.csv")).rows == 5


def test_the_files_of_a_folder_add_up(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "data" / name).write_text("{}\n" * 7)
    assert rough_size(DatasetRef(id="data")).rows == 14


@pytest.mark.parametrize("name", ["data.parquet", "rows.json", "empty.jsonl", "org/name"])
def test_what_cannot_be_counted_is_unknown(tmp_path: Path, name: str) -> None:
    for there in ("data.parquet", "rows.json", "empty.jsonl"):
        (tmp_path / there).touch()
    assert rough_size(DatasetRef(id=name)).rows is None


def test_the_context_is_read_from_a_models_configuration(tmp_path: Path) -> None:
    for name, config, expected in (
        ("a", {"max_position_embeddings": 8192}, 8192),
        ("b", {"n_positions": 1024}, 1024),
        ("c", {"text_config": {"max_position_embeddings": 32768}}, 32768),
        ("d", {}, None),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        assert context_length(str(tmp_path / name)) == expected
    assert context_length("nobody/model") is None


def test_a_dry_run_looks_for_the_files_and_counts_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SystemExit) as ended:
        main(["improve code", "--dataset", "../missing.jsonl", "--dry-run"])
    assert ended.value.code == 2
    assert "'../missing.jsonl'" in capsys.readouterr().err
    estimates = []
    for rows in (60, 6000):
        (tmp_path / "own.jsonl").write_text("{}\n" * rows)
        with pytest.raises(SystemExit):
            main(["improve code", "--dataset", "own.jsonl", "--dry-run", "--json"])
        estimates.append(json.loads(capsys.readouterr().out)["estimate_s"])
    assert estimates[0] < estimates[1]


def test_a_hub_that_does_not_answer_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(SystemExit) as ended:
        main(["improve code", "--model", "nobody/model", "--dry-run"])
    assert ended.value.code == 2
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    "goal", ["improve code with SFT and convert to GGUF", "improve code with SFT then DPO, then GGUF"]
)
def test_a_model_that_cannot_become_gguf_is_refused_at_the_plan(
    tmp_path: Path, goal: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "neox").mkdir()
    (tmp_path / "neox" / "config.json").write_text('{"model_type": "gpt_neox"}')
    with pytest.raises(SystemExit) as ended:
        main([goal, "--model", "./neox", "--dry-run"])
    assert ended.value.code == 2
    assert "a model of type 'gpt_neox' cannot be converted to GGUF" in capsys.readouterr().err


def test_gguf_files_that_nothing_here_can_write_are_refused_at_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PATH", str(tmp_path))  # no uv
    monkeypatch.setattr("hfagent.tools.script_command.is_installed", lambda requirement: requirement.name != "libgguf")
    with pytest.raises(SystemExit) as ended:
        main(["improve code with SFT then DPO", "--dry-run"])
    assert ended.value.code == 0  # its stages are merged, which takes nothing further
    with pytest.raises(SystemExit) as ended:
        main(["improve code and convert to GGUF", "--dry-run"])
    assert ended.value.code == 2
    assert "needs libgguf" in capsys.readouterr().err
