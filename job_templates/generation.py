"""Batched generation with a transformers model that stops working on a row as soon as its answer is complete.

`generate` of transformers computes finished rows until the longest one of the batch ends: on the embedded model and
50 untrained answers 33 instead of 24 processor seconds, and more after training, when most answers are short. On a
processor each batch has a thread of its own, for threads that share each small multiplication wait for each other:
200 answers on 2 cores take 26 instead of 38 s.
"""

import inspect
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hfagent.agent.errors import ModelError

STEPS_OF_PROGRESS = 10


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are sampled."""

    max_new_tokens: int
    batch_size: int
    """Rows generated together; a prompt with several samples takes several rows."""
    num_samples: int = 1
    temperature: float = 0.0
    """0 takes the likeliest token."""
    seed: int = 0


@dataclass(slots=True)
class Row:
    """One answer on its way."""

    prompt: int
    """Index of its prompt."""
    tokens: list[int]
    text: str = ""
    """Without the special tokens, once it has ended."""
    end: int | None = None
    """The token that ended it, where one did."""


def generate(
    model: Any,
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
    """The samples of each prompt, in the prompts' order, without the special tokens.

    The prompts are worked on in the order given, batch by batch, and the batches depend on nothing else: in bfloat16 a
    row's answer may change with the rows beside it. Where `enough` ends the work, the prompts after those that it was
    asked about have no samples, also if some were ready: what comes back must not depend on which thread was faster.

    Args:
        model: A causal language model in evaluation mode.
        tokenizer: Its tokenizer.
        prompts: Complete texts.
        decoding: How to sample.
        is_complete: Given prompt and text so far after every token; the answer ends where it says yes.
        progress: Told the answers done, the answers in all, and the seconds so far, ten times in all; by any thread.
        add_special_tokens: Whether the tokenizer adds them; a chat template has already written them.
        answered: Given prompt and text of each row of a batch, by the batch's thread, while other batches go on. Works
            while it is iterated over, so that it can be stopped in between.
        enough: Asked after each batch but the last, once all before it are told, too, with the samples of all prompts
            so far; the work ends where it says yes.
    """
    encoded = tokenizer(list(prompts), add_special_tokens=add_special_tokens)["input_ids"]
    batches = math.ceil(len(prompts) * decoding.num_samples / decoding.batch_size)
    workers, complete = _completer(model, tokenizer, encoded, decoding, is_complete, batches=batches)

    def answer(index: int, batch: list[Row], ended: Callable[[int], None]) -> None:
        complete(index, batch, ended)
        for row in batch:
            row.text = tokenizer.decode(row.tokens, skip_special_tokens=True)

    return in_batches(
        answer, len(prompts), decoding, workers=workers, progress=progress, answered=answered, enough=enough
    )


def complete_ids(model: Any, tokenizer: Any, *, prompts: Sequence[list[int]], decoding: Decoding) -> list[list[int]]:
    """One completion of each prompt, as tokens, with the one that ended it where it ended within its limit."""
    rows = [Row(index, []) for index in range(len(prompts))]
    batches = [rows[begin : begin + decoding.batch_size] for begin in range(0, len(rows), decoding.batch_size)]
    workers, complete = _completer(model, tokenizer, prompts, decoding, lambda _, text: False, batches=len(batches))
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda index: complete(index, batches[index], lambda _: None), range(len(batches))))
    return [row.tokens + ([] if row.end is None else [row.end]) for row in rows]


def _completer(
    model: Any,
    tokenizer: Any,
    encoded: Sequence[list[int]],
    decoding: Decoding,
    is_complete: Callable[[int, str], bool],
    *,
    batches: int,
) -> tuple[int, Callable[[int, list[Row], Callable[[int], None]], None]]:
    """How many batches to work on at a time, and what completes one of them."""
    import torch

    prefix = shared_prefix(encoded)
    threads = torch.get_num_threads()
    workers = min(threads, batches) if model.device.type == "cpu" else 1

    def complete(index: int, batch: list[Row], ended: Callable[[int], None]) -> None:
        if workers > 1:
            torch.set_num_threads(max(1, threads // workers))  # of this thread alone
        generator = torch.Generator(device=model.device).manual_seed(decoding.seed + index)
        with torch.inference_mode():
            ids = [encoded[row.prompt] for row in batch]
            _complete(model, tokenizer, ids, prefix, batch, decoding, is_complete, ended, generator)

    return workers, complete


def in_batches(
    complete: Callable[[int, list[Row], Callable[[int], None]], None],
    prompts: int,
    decoding: Decoding,
    *,
    workers: int,
    progress: Callable[[int, int, float], None],
    answered: Callable[[Sequence[tuple[int, str]]], Iterable[None]] | None,
    enough: Callable[[list[list[str]]], bool] | None,
) -> list[list[str]]:
    """What `generate` gives, with the answers of a batch by `complete`.

    Args:
        complete: Given a batch's number and its rows, sets their texts; calls its third argument with the number of
            rows that have ended, after every token: it raises where the work is to end.
        prompts: How many there are.
        decoding: How to sample.
        workers: Batches worked on at a time, each by a thread.
        progress: As of `generate`.
        answered: As of `generate`.
        enough: As of `generate`.
    """
    rows = [Row(prompt, []) for prompt in range(prompts) for _ in range(decoding.num_samples)]
    batches = [rows[begin : begin + decoding.batch_size] for begin in range(0, len(rows), decoding.batch_size)]
    tally = _Tally(batches, decoding.num_samples, progress, enough)

    def work(index: int) -> None:
        batch = batches[index]
        with suppress(CancelledError):
            tally.ended(0)
            complete(index, batch, tally.ended)
            if answered is not None:
                for _ in answered([(row.prompt, row.text) for row in batch]):
                    tally.ended(0)
            tally.answered(index)

    with ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(work, range(len(batches))))  # raises what a batch raised
        finally:
            tally.stopped.set()  # a failure or SIGTERM ends the other batches at their next token
    samples = tally.samples()
    return samples + [[] for _ in range(prompts - len(samples))]


class _Tally:
    """What the batches' threads tell each other."""

    def __init__(
        self,
        batches: Sequence[list[Row]],
        num_samples: int,
        progress: Callable[[int, int, float], None],
        enough: Callable[[list[list[str]]], bool] | None,
    ) -> None:
        self.batches, self.num_samples, self.progress, self.enough = batches, num_samples, progress, enough
        self.stopped = threading.Event()
        self._started, self._lock = time.monotonic(), threading.Lock()
        self._rows, self._total = 0, sum(map(len, batches))
        self._answered: set[int] = set()
        self._in_order = 0
        """Batches answered, from the first without a gap."""

    def ended(self, number: int) -> None:
        """So many rows more have their answer.

        Raises:
            CancelledError: the work is to end.
        """
        if self.stopped.is_set():
            raise CancelledError
        with self._lock:
            before, self._rows = self._rows, self._rows + number
            if before * STEPS_OF_PROGRESS // self._total < self._rows * STEPS_OF_PROGRESS // self._total:
                self.progress(self._rows, self._total, time.monotonic() - self._started)

    def answered(self, index: int) -> None:
        """A batch is answered: ask whether that is enough, batch by batch in their order."""
        with self._lock:
            self._answered.add(index)
            while self._in_order in self._answered and not self.stopped.is_set():
                self._in_order += 1
                if self.enough and self._in_order < len(self.batches) and self.enough(self.samples()):
                    self.stopped.set()

    def samples(self) -> list[list[str]]:
        """The texts of the first prompts: of those that have all their samples in the batches answered in order."""
        texts = [row.text for batch in self.batches[: self._in_order] for row in batch]
        each = self.num_samples
        return [texts[i * each : (i + 1) * each] for i in range(len(texts) // each)]


def _complete(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    prefix: int,
    rows: list[Row],
    decoding: Decoding,
    is_complete: Callable[[int, str], bool],
    ended: Callable[[int], None],
    generator: Any,
) -> None:
    """Append tokens to the rows until each has ended; the ended ones leave the batch."""
    import torch

    end_tokens = _end_tokens(model, tokenizer)
    accepted = inspect.signature(model.forward).parameters
    room = max(map(len, prompts)) + decoding.max_new_tokens
    cache, prefix = _read_prefix(model, prompts[0][:prefix], copies=len(rows), room=room)
    rest = tokenizer.pad({"input_ids": [ids[prefix:] for ids in prompts]}, padding_side="left", return_tensors="pt").to(
        model.device
    )
    input_ids = rest["input_ids"]
    mask = torch.cat([rest["attention_mask"].new_ones(len(rows), prefix), rest["attention_mask"]], dim=1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, prefix:]
    for _ in range(decoding.max_new_tokens):
        inputs = {"input_ids": input_ids, "attention_mask": mask, "past_key_values": cache, "use_cache": True}
        optional = {"position_ids": positions, "logits_to_keep": 1}
        inputs |= {name: value for name, value in optional.items() if name in accepted}
        output = model(**inputs)
        cache = output.past_key_values
        chosen = _choose(output.logits[:, -1], decoding.temperature, generator)
        kept = []
        for index, (row, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
            if token in end_tokens:
                row.end = token
                continue
            row.tokens.append(token)
            if not is_complete(row.prompt, tokenizer.decode(row.tokens, skip_special_tokens=True)):
                kept.append(index)
        ended(len(rows) - len(kept))
        if not kept:
            return
        if len(kept) < len(rows):
            rows = [rows[index] for index in kept]
            selected = torch.tensor(kept, device=chosen.device)
            chosen, mask, positions = chosen[selected], mask[selected], positions[selected]
            cache.reorder_cache(selected)  # made for beams; it also selects
        input_ids = chosen[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        positions = positions[:, -1:] + 1
    ended(len(rows))


def shared_prefix(prompts: Sequence[list[int]]) -> int:
    """How many tokens all prompts begin with alike, at least one of each left out: system texts and shots are long."""
    shortest, longest = min(prompts), max(prompts)  # the two that differ first
    limit = min(len(ids) for ids in prompts) - 1
    return next((i for i in range(limit) if shortest[i] != longest[i]), max(limit, 0))


def _read_prefix(model: Any, ids: list[int], *, copies: int, room: int) -> tuple[Any, int]:
    """The cache after the shared tokens, computed once and repeated for each row, and how many tokens it holds.

    It has room for so many tokens of a row.

    Empty where a layer keeps anything but all keys and values: a sliding window would count the padding between the
    prefix and the rest of a row, and states of a convolution or recurrence cannot be repeated.

    Raises:
        ModelError: the model has no such cache at all.
    """
    import torch
    from transformers.cache_utils import DynamicLayer

    from hfagent.job_templates.roomy_cache import RoomyLayer

    if not ids:
        return None, 0
    cache = getattr(model(input_ids=torch.tensor([ids], device=model.device), use_cache=True), "past_key_values", None)
    if cache is None:
        raise ModelError(
            f"{type(model).__name__!r} keeps no keys and values between tokens, so no answers can be generated here: "
            "use a model with attention"
        )
    if any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None, 0
    cache.layers = [RoomyLayer(layer.keys, layer.values, copies=copies, room=room) for layer in cache.layers]
    return cache, len(ids)


def _choose(logits: Any, temperature: float, generator: Any) -> Any:
    if temperature == 0:
        return logits.float().argmax(-1)  # a third of the time that it takes in bfloat16
    probabilities = (logits.float() / temperature).softmax(-1)
    return probabilities.multinomial(1, generator=generator)[:, 0]


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return {token for token in [*listed, tokenizer.eos_token_id] if token is not None}
