"""The dataset check against the genuine TRL trainers: what it calls ready trains, what it calls incompatible fails."""

from pathlib import Path
from typing import Any

import pytest

from hfagent.agent.records import Method
from hfagent.tools.dataset_check import check_rows
from hfagent.tools.dataset_mapping import map_rows

pytest.importorskip("trl")
pytestmark = pytest.mark.slow  # 20 s of CPU for some 50 trainers

MAX_LENGTH = 16
USER = {"role": "user", "content": "w1 w2"}
GOOD = {"role": "assistant", "content": "w3"}
BAD = {"role": "assistant", "content": "w4"}
# Concatenation, as most real templates have it: it refuses content that is not a text.
TEMPLATE = (
    "{% for turn in messages %}{{ '<|' + turn['role'] + '|> ' + turn['content'] + ' <eos> ' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
READY: list[tuple[Method, dict[str, Any]]] = [
    ("sft", {"messages": [USER, GOOD]}),
    ("sft", {"messages": [USER, GOOD], "text": "w1", "label": 3}),
    ("sft", {"prompt": "w1 ", "completion": "w2"}),
    ("sft", {"prompt": [USER], "completion": [GOOD]}),
    ("sft", {"text": "w1"}),
    ("sft", {"conversations": [{"from": "user", "value": "w1"}, {"from": "assistant", "value": "w2"}]}),
    ("dpo", {"prompt": "w1 ", "chosen": "w2", "rejected": "w3"}),
    ("dpo", {"chosen": [USER, GOOD], "rejected": [USER, BAD]}),
    ("kto", {"prompt": "w1 ", "completion": "w2", "label": True}),
    ("kto", {"chosen": [USER, GOOD], "rejected": [USER, BAD]}),
    ("grpo", {"prompt": "w1", "answer": "w2"}),
    ("distillation", {"prompt": "w1", "answer": "w2"}),
    ("distillation", {"prompt": [USER], "completion": [GOOD]}),
    ("reward", {"prompt": "w1 ", "chosen": "w2", "rejected": "w3"}),
    ("reward", {"chosen": [USER, GOOD], "rejected": [USER, BAD]}),
]
NEEDS_MAPPING: list[tuple[Method, dict[str, Any]]] = [
    ("sft", {"conversations": [USER, GOOD]}),
    ("sft", {"instruction": "w1", "input": "", "output": "w2"}),
    ("sft", {"prompt": "w1", "response": "w2"}),
    ("sft", {"messages": [USER, GOOD], "prompt": "w1"}),
    ("sft", {"messages": '[{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}]'}),
    ("sft", {"prompt": "w1", "completion": [GOOD]}),
    ("sft", {"messages": [USER, GOOD], "images": []}),
    ("sft", {"text": "w1", "labels": 1}),
    ("sft", {"messages": [USER, GOOD], "tools": ""}),
    ("dpo", {"question": "w1", "good_response": "w2", "bad_response": "w3"}),
    ("dpo", {"prompt": "w1", "chosen": [GOOD], "rejected": [BAD]}),
    ("dpo", {"prompt": "w1 w2", "chosen": [USER, GOOD], "rejected": [USER, BAD]}),
    ("kto", {"prompt": "w1", "response": "w2", "label": True}),
    ("grpo", {"question": "w1", "completions": "w2"}),
    ("distillation", {"question": "w1", "completions": "w2"}),
    ("reward", {"question": "w1", "good_response": "w2", "bad_response": "w3"}),
    ("reward", {"prompt": "w1 ", "chosen": "w2", "rejected": "w3", "margin": "wide"}),
]
INCOMPATIBLE: list[tuple[Method, dict[str, Any]]] = [
    ("sft", {"title": "w1", "stars": 5}),
    ("sft", {"messages": []}),
    ("sft", {"text": ["w1"]}),
    ("sft", {"messages": [USER, {"role": "assistant", "content": None}]}),
    ("sft", {"messages": [{"role": "user", "content": [{"type": "text", "text": "w1"}]}]}),
    ("sft", {"prompt": "w1 " * MAX_LENGTH, "completion": "w2"}),
    ("dpo", {"messages": [USER, GOOD]}),
    ("dpo", {"chosen": [GOOD], "rejected": [BAD]}),
    ("dpo", {"prompt": "w1 " * MAX_LENGTH, "chosen": "w2", "rejected": "w3"}),
    ("kto", {"prompt": "w1", "completion": "w2", "label": "good"}),
    ("grpo", {"messages": [USER, GOOD]}),
    ("distillation", {"chosen": [USER, GOOD], "rejected": [USER, BAD]}),
    ("reward", {"prompt": "w1", "completion": "w2"}),
]


def judge(method: Method, row: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    report = check_rows(
        "org/data",
        rows,
        columns=dict.fromkeys(row, "?"),
        total_rows=len(rows),
        token_length=lambda text: len(text.split()),
        max_length=MAX_LENGTH,
    )
    return report.methods[method]


def train(method: Method, rows: list[dict[str, Any]], folder: Path) -> Any:
    """One optimizer step on 3,000 random weights; returns the trainer."""
    import trl
    from datasets import Dataset

    common: dict[str, Any] = {
        "output_dir": str(folder),
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "max_steps": 1,
        "per_device_train_batch_size": 4,
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
    }
    data = {"train_dataset": Dataset.from_list(rows), "processing_class": tokenizer()}
    if method == "grpo":
        args = trl.GRPOConfig(num_generations=2, max_completion_length=4, **common)
        trainer: Any = trl.GRPOTrainer(
            model(), reward_funcs=lambda completions, **columns: [1.0] * len(completions), args=args, **data
        )
    elif method == "distillation":
        args = trl.DistillationConfig(max_completion_length=4, **common)
        trainer = trl.DistillationTrainer(model(), teacher_model=model(), args=args, **data)
    elif method == "sft":
        trainer = trl.SFTTrainer(model(), args=trl.SFTConfig(max_length=MAX_LENGTH, **common), **data)
    elif method == "dpo":
        trainer = trl.DPOTrainer(model(), model(), args=trl.DPOConfig(max_length=MAX_LENGTH, **common), **data)
    elif method == "reward":
        trainer = trl.RewardTrainer(scorer(), args=trl.RewardConfig(max_length=MAX_LENGTH, **common), **data)
    else:
        trainer = trl.KTOTrainer(model(), model(), args=trl.KTOConfig(max_length=MAX_LENGTH, **common), **data)
    trainer.train()
    return trainer


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<pad>", "<eos>", "<|user|>", "<|assistant|>", *(f"w{i}" for i in range(9))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", pad_token="<pad>", eos_token="<eos>")
    made.chat_template = TEMPLATE
    return made


def model() -> Any:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM(config())


def scorer() -> Any:
    from transformers import LlamaForSequenceClassification

    return LlamaForSequenceClassification(config(num_labels=1))


def config(**options: Any) -> Any:
    from transformers import LlamaConfig

    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaConfig(vocab_size=16, eos_token_id=2, pad_token_id=1, bos_token_id=None, **size, **options)


@pytest.fixture(autouse=True)
def _no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")  # TRL's own switch; it would look the Hub's name up for every trainer


@pytest.mark.parametrize(("method", "row"), READY)
def test_ready_trains_as_it_is(method: Method, row: dict[str, Any], tmp_path: Path) -> None:
    rows = [row] * 4
    assert judge(method, row, rows).verdict == "READY"
    train(method, rows, tmp_path)


@pytest.mark.parametrize(("method", "row"), NEEDS_MAPPING)
def test_a_mapping_is_needed_and_enough(method: Method, row: dict[str, Any], tmp_path: Path) -> None:
    rows = [row] * 4
    check = judge(method, row, rows)
    assert check.verdict == "NEEDS_MAPPING"
    with pytest.raises(Exception):  # noqa: B017, PT011 - TRL raises KeyError, TypeError, AttributeError and others
        train(method, rows, tmp_path)
    train(method, map_rows(rows, check.mapping), tmp_path)


@pytest.mark.parametrize(("method", "row"), INCOMPATIBLE)
def test_incompatible_fails(method: Method, row: dict[str, Any], tmp_path: Path) -> None:
    rows = [row] * 4
    assert judge(method, row, rows).verdict == "INCOMPATIBLE"
    with pytest.raises(Exception):  # noqa: B017, PT011 - as above
        train(method, rows, tmp_path)


def test_unsound_rows_end_a_training_unless_dropped(tmp_path: Path) -> None:
    rows = [{"messages": [USER, GOOD]}, {"messages": []}, {"messages": None}] * 4
    check = judge("sft", rows[0], rows)
    assert check.verdict == "NEEDS_MAPPING"
    with pytest.raises(IndexError):
        train("sft", rows, tmp_path)
    assert len(train("sft", map_rows(rows, check.mapping), tmp_path).train_dataset) == 4


def test_the_end_token_that_a_stray_text_column_costs_is_back_after_the_mapping(tmp_path: Path) -> None:
    rows = [{"prompt": "w1 ", "completion": "w2", "text": "w3"}] * 4
    check = judge("sft", rows[0], rows)
    end = tokenizer().eos_token_id
    assert train("sft", rows, tmp_path).train_dataset[0]["labels"][-1] != end
    assert train("sft", map_rows(rows, check.mapping), tmp_path).train_dataset[0]["labels"][-1] == end


def test_a_repeated_prompt_is_trained_once_after_the_mapping(tmp_path: Path) -> None:
    rows = [{"prompt": [USER], "chosen": [USER, GOOD], "rejected": [USER, BAD]}] * 4
    check = judge("dpo", rows[0], rows)
    words = tokenizer()

    def sequence(data: list[dict[str, Any]]) -> str:
        row = train("dpo", data, tmp_path).train_dataset[0]
        return str(words.decode(row["prompt_ids"] + row["chosen_ids"]))

    assert sequence(rows).count("w1 w2") == 2
    assert sequence(map_rows(rows, check.mapping)).count("w1 w2") == 1
