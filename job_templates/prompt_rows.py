"""Rows of which a trainer takes the prompt alone, and writes the completion itself."""

from collections.abc import Mapping
from typing import Any

from hfagent.job_templates.training_args import Args


def fitting(data: Any, tokenizer: Any, settings: Any, args: Args) -> Any:
    """The rows whose completions have room within `max_length`; TRL would take all."""
    room = args.config.max_length - settings.max_completion_length
    return data.filter(lambda row: prompt_tokens(tokenizer, row) <= room)


def prompt_tokens(tokenizer: Any, row: Mapping[str, Any]) -> int:
    """Tokens of a row's prompt, with the chat template's own."""
    prompt = row["prompt"]
    if isinstance(prompt, str):
        return len(tokenizer(prompt)["input_ids"])
    tokens = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)
    return len(tokens["input_ids"])


def whole_length(trainer: Any, row: Mapping[str, Any]) -> int:
    """Tokens of a row with the longest completion."""
    return prompt_tokens(trainer.processing_class, row) + int(trainer.args.max_completion_length)
