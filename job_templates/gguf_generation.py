"""Answers of a GGUF file by llama.cpp, called as `generation.generate` is.

Each batch has a copy of the program and a share of the cores, as on the transformers side; the weights, which are
mapped from the file, are in memory once. Within it one prompt follows the other, and nothing of one is kept for the
next, so that an answer depends on its prompt alone: neither on the batch nor on which thread was faster.
"""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from hfagent.job_templates.generation import Decoding, Row, in_batches
from hfagent.tools.llama_cpp import LlamaFile, check_tokens


def generate(
    model: Path,
    tokenizer: Any,
    *,
    prompts: Sequence[str],
    decoding: Decoding,
    is_complete: Callable[[int, str], bool],
    progress: Callable[[int, int, float], None],
    add_special_tokens: bool = False,
    answered: Callable[[Sequence[tuple[int, str]]], Iterable[None]] | None = None,
    enough: Callable[[list[list[str]]], bool] | None = None,
) -> list[list[str]]:
    """The samples of each prompt; all arguments are those of `generation.generate`, but for the file.

    Raises:
        ModelError: llama.cpp cannot load the file, or it is not the tokenizer's.
    """
    encoded = tokenizer(list(prompts), add_special_tokens=add_special_tokens)["input_ids"]
    context = max(map(len, encoded)) + decoding.max_new_tokens
    cores = os.cpu_count() or 1
    workers = max(1, min(cores, math.ceil(len(prompts) * decoding.num_samples / decoding.batch_size)))
    free: SimpleQueue[LlamaFile] = SimpleQueue()
    for _ in range(workers):
        free.put(LlamaFile(model, context=context, threads=max(1, cores // workers)))
    first = free.get()
    check_tokens(first, tokenizer)
    free.put(first)

    def complete(index: int, batch: list[Row], ended: Callable[[int], None]) -> None:
        file = free.get()
        try:
            for number, row in enumerate(batch, start=decoding.seed + index * decoding.batch_size):

                def stop(text: str, prompt: int = row.prompt) -> bool:
                    ended(0)
                    return is_complete(prompt, text)

                row.text = file.stream(
                    encoded[row.prompt],
                    max_new_tokens=decoding.max_new_tokens,
                    temperature=decoding.temperature,
                    seed=number,
                    stop=stop,
                )
                ended(1)
        finally:
            free.put(file)

    return in_batches(
        complete, len(prompts), decoding, workers=workers, progress=progress, answered=answered, enough=enough
    )
