"""Micro-batches by length, and the loss by rows: less time for the same gradient."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import write_tiny_model

from hfagent.job_templates import sft_trainer
from hfagent.job_templates.micro_batches import divide
from hfagent.job_templates.training import Schedule

LENGTHS = [3, 40, 5, 4, 38, 21, 3, 20]


def cost(passes: Sequence[Sequence[int]], lengths: Sequence[int], pass_tokens: int) -> int:
    return sum(pass_tokens + len(rows) * max(lengths[row] for row in rows) for rows in passes)


def fits(passes: Sequence[Sequence[int]], lengths: Sequence[int], most_tokens: int) -> bool:
    return all(len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= most_tokens for rows in passes)


def divisions(rows: Sequence[int]) -> Iterator[list[list[int]]]:
    if not rows:
        yield []
        return
    for size in range(len(rows)):
        for others in combinations(rows[1:], size):
            rest = [row for row in rows[1:] if row not in others]
            yield from ([[rows[0], *others], *division] for division in divisions(rest))


@given(
    lengths=st.lists(st.integers(1, 600), max_size=6), most_tokens=st.integers(1, 3000), pass_tokens=st.integers(0, 300)
)
def test_no_division_of_a_step_takes_less_time_within_the_memory(
    lengths: list[int], most_tokens: int, pass_tokens: int
) -> None:
    found = divide(lengths, most_tokens=most_tokens, pass_tokens=pass_tokens)
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
    allowed = [division for division in divisions(range(len(lengths))) if fits(division, lengths, most_tokens)]
    assert fits(found, lengths, most_tokens)
    assert cost(found, lengths, pass_tokens) == min(cost(division, lengths, pass_tokens) for division in allowed)


def test_the_longest_row_comes_first_in_each_pass() -> None:
    assert divide([10, 100, 12, 90], most_tokens=10_000, pass_tokens=50) == [[1, 3], [2, 0]]


@pytest.mark.parametrize("rows", [1, 16, 37])
def test_the_loss_by_rows_is_torch_s(rows: int) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    from hfagent.job_templates.token_loss import SummedCrossEntropy

    torch.manual_seed(rows)
    logits = (20 * torch.randn(rows, 101)).requires_grad_()
    labels = torch.randint(0, 101, (rows,))
    labels[::3] = -100
    before = logits.detach().clone()
    losses = [cross_entropy(logits, labels, reduction="sum"), SummedCrossEntropy.apply(logits, labels)]
    assert torch.equal(logits, before)
    theirs, ours = (torch.autograd.grad(3 * loss, logits)[0] for loss in losses)
    assert float(losses[1]) == pytest.approx(float(losses[0]), rel=1e-5)
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


def trained(trainer_class: type, model: Path, out: Path, **batch: int) -> dict[str, Any]:
    """Weights of the adapter after two steps over rows of all lengths."""
    import datasets
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig

    rows = [
        {"prompt": "w1 w2", "completion": " ".join(f" w{(row + place) % 40}" for place in range(length))}
        for row, length in enumerate(LENGTHS * 2)
    ]
    torch.manual_seed(0)
    trainer = trainer_class(
        AutoModelForCausalLM.from_pretrained(model),
        args=SFTConfig(
            output_dir=str(out), max_steps=2, learning_rate=0.01, lr_scheduler_type="constant", report_to="none",
            use_cpu=True, bf16=False, logging_steps=1, save_strategy="no", disable_tqdm=True, **batch,
        ),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    trainer.schedule = Schedule(2, 0, 0, frozenset())
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {"losses": losses, **{n: p.detach() for n, p in trainer.model.named_parameters() if "lora_B" in n}}


@pytest.mark.parametrize("rows", [1, 2, 8])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_step_is_that_of_trl_however_it_is_divided(
    rows: int, device: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from trl import SFTTrainer

    monkeypatch.setitem(sft_trainer.PASS_TOKENS, device, 5)
    theirs = trained(SFTTrainer, model, tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    ours = trained(sft_trainer.sft_trainer(device, rows=rows), model, tmp_path, per_device_train_batch_size=8)
    assert ours.pop("losses") == pytest.approx(theirs.pop("losses"), rel=1e-4)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)
    assert any(weights.any() for weights in theirs.values())


def test_a_step_is_the_same_where_a_model_does_not_ask_how_many_tokens_it_has(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import LlamaForCausalLM

    monkeypatch.setitem(sft_trainer.PASS_TOKENS, "cpu", 0)
    plain = trained(sft_trainer.sft_trainer("cpu", rows=8), model, tmp_path, per_device_train_batch_size=8)
    monkeypatch.setattr(LlamaForCausalLM, "accepts_loss_kwargs", False, raising=False)
    found = trained(sft_trainer.sft_trainer("cpu", rows=1), model, tmp_path, per_device_train_batch_size=8)
    assert found.pop("losses") == pytest.approx(plain.pop("losses"), rel=1e-4)
    assert all(torch.allclose(found[name], plain[name], atol=1e-5) for name in plain)
