"""A language model of 30,000 weights and its tokenizer, made in a second: real files for real trainers."""

from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} <eos> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
WORDS = ["<pad>", "<eos>", "<unk>", "<user>", "<assistant>", *(f"w{i}" for i in range(40))]


def write_tiny_model(folder: Path, *, sharp: float = 1.0, seed: int = 0) -> Path:
    """Write a Llama with random weights that `from_pretrained` loads; a `sharp` one can come to prefer a word."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", chat_template=CHAT_TEMPLATE
    )
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(WORDS), max_position_embeddings=128, pad_token_id=0, eos_token_id=1, **shape)
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data *= sharp
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
