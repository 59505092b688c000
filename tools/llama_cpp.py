"""Loads a GGUF file with llama.cpp, by the package xllamacpp, and completes token ids with it."""

import importlib.util
import json
import os
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfagent.agent.errors import ModelError, PackageMissing

MAGIC = b"GGUF"
PROBE = "def f(x1):\n    return x1 * 23.5  # it's näive, 東京 \t\n\n print('ok!!')"
"""Words, digits, runs of spaces, punctuation, other scripts: what splitting rules differ in."""


@dataclass(frozen=True)
class Completion:
    """What followed a prompt."""

    text: str
    """Without special tokens."""
    tokens: tuple[int, ...]
    tokens_per_s: float
    """Of the answer, without reading the prompt."""


def require_binding() -> None:
    """Refuse before any work where the package is not installed.

    Raises:
        PackageMissing: with the pip command.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise PackageMissing("package 'xllamacpp' is needed to load GGUF files: pip install 'hfagent[gguf]'")


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    architecture: str
    quantization: str
    """Its file type, e.g. `Q4_K_M`."""
    context: int
    """Tokens of prompt and answer that the model was made for."""


def read_header(path: Path) -> Header:
    """Read a file's metadata.

    Raises:
        ModelError: no such file, not GGUF, or cut off.
    """
    from gguf import GGUFReader, LlamaFileType

    try:
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise ModelError(f"{str(path)!r} is no GGUF file: give one that an export wrote")
        reader = GGUFReader(path)
        architecture = reader.fields["general.architecture"].contents()
        kind = LlamaFileType(reader.fields["general.file_type"].contents()).name.removeprefix("MOSTLY_")
        return Header(architecture, kind, int(reader.fields[f"{architecture}.context_length"].contents()))
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise ModelError(f"the GGUF file {str(path)!r} cannot be read: {error}") from error


class LlamaFile:
    """A GGUF file in memory. It works on one prompt at a time and keeps nothing of the one before, so that an answer
    depends on its prompt alone.
    """

    def __init__(self, path: Path, *, context: int, threads: int | None = None) -> None:
        """Load the file.

        Args:
            path: the file.
            context: tokens of prompt and answer that are to fit.
            threads: the processor's cores without it. More than are free make it many times slower.

        Raises:
            ModelError: llama.cpp cannot load it.
            PackageMissing: xllamacpp is not installed.
        """
        require_binding()
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx, parameters.n_parallel = context, 1
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads or os.cpu_count() or 1
        parameters.warmup = parameters.cache_prompt = parameters.fit_params = False
        parameters.cache_ram_mib, parameters.verbosity = 0, 0
        self.path = path
        try:
            self._server = xllamacpp.Server(parameters)
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"llama.cpp cannot load {str(path)!r}: {error}") from error

    def tokenize(self, text: str) -> list[int]:
        """The text's tokens as llama.cpp sees them, special ones recognised, none added."""
        body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
        request = urllib.request.Request(  # noqa: S310 - the server in this process
            f"{self._server.listening_address}/tokenize", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            tokens: list[int] = json.load(response)["tokens"]
        return tokens

    def complete(self, ids: Sequence[int], *, max_new_tokens: int) -> Completion:
        """The likeliest tokens after a prompt, up to the one that ends an answer."""
        answer = self._ask(ids, {"n_predict": max_new_tokens, "temperature": 0.0, "n_probs": 1})
        [choice] = answer["choices"]
        tokens = tuple(item["id"] for item in (choice["logprobs"] or {"content": []})["content"])
        return Completion(choice["text"], tokens, float(answer["timings"]["predicted_per_second"]))

    def stream(
        self, ids: Sequence[int], *, max_new_tokens: int, temperature: float, seed: int, stop: Callable[[str], bool]
    ) -> str:
        """The answer to a prompt; `stop` is asked with the answer so far whenever it has grown, and may raise."""
        text: list[str] = []
        raised: list[BaseException] = []

        def grown(piece: dict[str, Any]) -> bool:
            try:
                text.extend(choice["text"] for choice in piece.get("choices", ()))
                return stop("".join(text))
            except BaseException as error:  # noqa: BLE001 - it must not pass through llama.cpp; raised below
                raised.append(error)
                return True

        options = {"n_predict": max_new_tokens, "temperature": temperature, "seed": seed, "stream": True}
        self._ask(ids, options, grown)
        if raised:
            raise raised[0]
        return "".join(text)

    def _ask(self, ids: Sequence[int], options: dict[str, Any], *streaming: Callable[[dict[str, Any]], bool]) -> Any:
        # Neutral: neither the likeliest tokens alone, nor a penalty on repetition.
        plain = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "cache_prompt": False}
        answer = self._server.handle_completions({"prompt": list(ids), **plain, **options}, *streaming)
        if isinstance(answer, dict) and (error := answer.get("error") or answer.get("message")):
            raise ModelError(f"llama.cpp gave no answer from {str(self.path)!r}: {error}")
        return answer


def check_tokens(file: LlamaFile, tokenizer: Any) -> None:
    """Refuse a file whose tokenizer is not the model's.

    Raises:
        ModelError: llama.cpp splits a text otherwise than transformers.
    """
    found, expected = file.tokenize(PROBE), list(tokenizer(PROBE, add_special_tokens=False)["input_ids"])
    if found != expected:
        place = next((i for i, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), -1)
        raise ModelError(
            f"llama.cpp reads {str(file.path)!r} with other tokens than the model's tokenizer gives, from token {place} "
            f"on: {found[place : place + 3]} instead of {expected[place : place + 3]}; convert the model again"
        )
