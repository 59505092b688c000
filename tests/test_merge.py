"""An adapter in its base: real files, checked weight by weight."""

import json
from pathlib import Path

import pytest
from tiny_bpe import edit_json, write_adapter, write_bpe_model

from hfagent.agent.errors import ModelError
from hfagent.tools.merge import check_fits, merge, verify
from hfagent.tools.safetensors_folder import Weights


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bpe_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def adapter(model: Path, tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter", model, targets=["q_proj", "down_proj"])


def test_a_merged_model_is_its_base_but_for_the_targets(model: Path, adapter: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    merged = merge(str(model), adapter, tmp_path / "merged")
    assert (merged.dtype, merged.changed) == ("bfloat16", 12)
    with Weights(model) as before, Weights(merged.folder) as after:
        assert (after.shapes, after.dtypes) == (before.shapes, before.dtypes)
        changed = {name for name in after.shapes if not torch.equal(after.tensor(name), before.tensor(name))}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "down_proj"}
    ids = torch.tensor([[5, 6, 7, 8]])
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    expected = PeftModel.from_pretrained(base, str(adapter))(ids).logits
    found = AutoModelForCausalLM.from_pretrained(merged.folder, dtype=torch.float32)(ids).logits
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)  # the merged weights are bfloat16
    names = {path.name for path in merged.folder.iterdir()}
    assert names >= {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert (merged.folder / "chat_template.jinja").read_text() == (model / "chat_template.jinja").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "merged"]


def test_the_merged_weights_are_those_that_an_evaluation_of_the_adapter_judges(
    model: Path, adapter: Path, tmp_path: Path
) -> None:
    import argparse

    import torch
    from transformers import AutoModelForCausalLM

    from hfagent.job_templates.evaluate import load_model

    folder = merge(str(model), adapter, tmp_path / "merged").folder
    written = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).state_dict()
    args = argparse.Namespace(model=str(model), revision="main", adapter=adapter)
    judged = load_model(args, "bfloat16", "cpu").state_dict()
    assert [name for name in written if not torch.equal(written[name], judged[name])] == []


def test_an_adapter_of_another_model_is_refused_before_anything_is_written(
    model: Path, adapter: Path, tmp_path: Path
) -> None:
    edit_json(adapter / "adapter_config.json", base_model_name_or_path="org/other")
    with pytest.raises(ModelError, match=r"was trained on 'org/other', not on '.*model': give --model"):
        merge(str(model), adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_adapter_from_another_machine_is_known_by_its_bases_name(model: Path, adapter: Path) -> None:
    edit_json(adapter / "adapter_config.json", base_model_name_or_path="/elsewhere/cache/model")
    check_fits(str(model), model, adapter)


def test_shapes_that_do_not_fit_are_named(model: Path, adapter: Path, tmp_path: Path) -> None:
    other = write_bpe_model(tmp_path / "wider" / "model", hidden_size=128)
    edit_json(adapter / "adapter_config.json", base_model_name_or_path=str(other))
    with pytest.raises(ModelError, match=r"lora_A.*does not fit|does not fit.*lora_[AB].* is \(\d+, \d+\)"):
        check_fits(str(other), other, adapter)


def test_another_kind_of_adapter_is_refused(model: Path, adapter: Path) -> None:
    edit_json(adapter / "adapter_config.json", peft_type="IA3")
    with pytest.raises(ModelError, match="of type 'IA3': only LORA is merged"):
        check_fits(str(model), model, adapter)


def test_an_adapter_that_learned_nothing_gives_no_model(model: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = adapter / "adapter_model.safetensors"
    zeros = {name: tensor * 0 for name, tensor in load_file(path).items()}
    save_file(zeros, path)
    with pytest.raises(ModelError, match="has learned nothing"):
        merge(str(model), adapter, tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [("nan", "no finite numbers: the training diverged"), ("elsewhere", "the adapter does not touch it")],
)
def test_a_damaged_merge_is_noticed(damage: str, said: str, model: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    merged = merge(str(model), adapter, tmp_path / "merged").folder
    weights = load_file(merged / "model.safetensors")
    weights["model.layers.0.self_attn.v_proj.weight"][0, 0] = float("nan") if damage == "nan" else 9.0
    save_file(weights, merged / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=said):
        verify(model, adapter, merged)


def test_a_merged_model_replaces_an_older_one(model: Path, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "old.txt").touch()
    merge(str(model), adapter, tmp_path / "merged")
    assert not (tmp_path / "merged" / "old.txt").exists()
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "bfloat16"
