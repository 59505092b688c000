from pathlib import Path
from typing import Any

import pytest
from tiny_model import write_tiny_model

from hfagent.agent.integrity import check_trained
from hfagent.job_templates import training

GOOD = {
    "base_model": "org/base",
    "base_revision": "abc",
    "adapter_base_model": "org/base",
    "base_fingerprint": "0123",
    "weight_change": 0.01,
}


def test_a_trained_adapter_of_the_planned_base_is_right() -> None:
    assert check_trained(planned_model="org/base", result=GOOD, base_fingerprint="0123") is None
    folder = GOOD | {"base_model": "/models/base", "adapter_base_model": "/models/base/"}
    assert check_trained(planned_model="/models/base/", result=folder) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base_model": "org/base-instruct"}, "'org/base-instruct'"),
        ({"base_model": None}, "None"),
        ({"adapter_base_model": "org/other"}, "adapter's base model is 'org/other'"),
        ({"base_fingerprint": None}, "'base_fingerprint' is missing"),
        ({"base_fingerprint": "4567"}, "4567, not 0123"),
        ({"weight_change": 0.0}, "nothing was learned"),
        ({"weight_change": None}, "no number"),
        ({"weight_change": True}, "no number"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, Any], said: str) -> None:
    assert said in str(check_trained(planned_model="org/base", result=GOOD | change, base_fingerprint="0123"))


def test_a_result_without_the_facts_is_not_right() -> None:
    for missing in GOOD.keys() - {"base_revision"}:
        result = {key: value for key, value in GOOD.items() if key != missing}
        assert check_trained(planned_model="org/base", result=result) is not None


def load(folder: Path, dtype: str = "float32") -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))


def test_a_fingerprint_is_that_of_the_weights_wherever_they_lie(tmp_path: Path) -> None:
    import torch

    one, two = load(write_tiny_model(tmp_path / "one")), load(write_tiny_model(tmp_path / "two"))
    fingerprint = training.base_fingerprint(one)
    assert (
        training.base_fingerprint(two) == fingerprint == training.base_fingerprint(load(tmp_path / "one", "bfloat16"))
    )
    with torch.no_grad():
        two.model.layers[1].mlp.up_proj.weight.mul_(1.1)
    assert training.base_fingerprint(two) != fingerprint
    one.config.rope_parameters = {"rope_theta": 5.0, "rope_type": "default"}
    assert training.base_fingerprint(one) != fingerprint


def test_the_change_of_the_weights_is_that_of_the_merged_model(tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    base = load(write_tiny_model(tmp_path / "base"))
    before = {name: tensor.clone() for name, tensor in base.named_parameters()}
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"]))
    assert training.weight_change(model) == 0.0
    model.save_pretrained(tmp_path / "adapter")
    assert training.weight_facts(model, tmp_path / "adapter") == {
        "base_model": str(tmp_path / "base"),
        "base_revision": None,
        "adapter_base_model": str(tmp_path / "base"),
        "weight_change": 0.0,
    }
    torch.manual_seed(1)
    for name, tensor in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(tensor, std=0.1)
    change = training.weight_change(model)
    merged = dict(model.merge_and_unload().named_parameters())
    names = [name for name in before if "q_proj" in name or "up_proj" in name]
    update = sum(float((merged[name] - before[name]).detach().square().sum()) for name in names)
    assert change == pytest.approx(
        (update / sum(float(before[name].detach().square().sum()) for name in names)) ** 0.5, rel=1e-4
    )


def test_a_change_that_is_no_number_is_none(tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(load(write_tiny_model(tmp_path)), LoraConfig(r=4, target_modules=["q_proj"]))
    with torch.no_grad():
        next(tensor for name, tensor in model.named_parameters() if "lora_B" in name).fill_(float("nan"))
    assert training.weight_change(model) is None
