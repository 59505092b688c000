"""Models of 100,000 to a million weights of each architecture, with a byte-level tokenizer trained in a moment."""

import json
from pathlib import Path
from typing import Any

TEXT = (
    "def add(a, b):\n    return a + b\n\nThe sun is a star, and 2345 other stars are near; it's näive, 東京.\n"
    "for number in range(10):\n    print(number * 3.5)\nWrite a Python function that adds two numbers.\n"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "qwen2": {"tie_word_embeddings": False},
    "qwen3": {"head_dim": 32},
    "gemma3_text": {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16},
    "smollm3": {},
}
"""What differs from `SHAPE`."""
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


def write_bpe_model(folder: Path, kind: str = "llama", **changes: Any) -> Path:
    """Write a model whose weights are the same in every version of torch, and exact in bfloat16 and float16."""
    import numpy as np
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = bpe_tokenizer()
    size = len(tokenizer) + 3  # as models pad their embeddings
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    config = AutoConfig.for_model(kind, **{**SHAPE, "vocab_size": size, **ids, **KINDS[kind], **changes})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for number, (name, weights) in enumerate(model.named_parameters()):
            drawn = np.random.RandomState(number).randint(-64, 65, tuple(weights.shape))  # its draws never change
            values = torch.from_numpy(drawn).float() / 256  # exact in bfloat16
            is_norm = name.endswith("norm.weight")
            weights.copy_(values + 1 if is_norm and kind != "gemma3_text" else values)
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def bpe_tokenizer() -> Any:
    """As SmolLM2's: digits one by one, bytes, merges."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from tokenizers.decoders import ByteLevel
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    rules.decoder = ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    rules.train_from_iterator([TEXT], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rules, unk_token=special[0], bos_token=special[1], eos_token=special[2],
        pad_token=special[2], chat_template=CHAT_TEMPLATE,
    )  # fmt: skip
    tokenizer.add_tokens(["<tool>"])
    return tokenizer


def write_adapter(folder: Path, model: Path, *, targets: "str | list[str]" = "all-linear") -> Path:
    """A LoRA adapter with random weights on a model's folder."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model)
    lora = LoraConfig(target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(base, lora).save_pretrained(folder)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
