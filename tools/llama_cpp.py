"""Loads a GGUF file with llama.cpp, by the package xllamacpp, and completes token ids with it."""

import importlib.util
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfagent.agent.errors import ModelError, PackageMissing

MAGIC = b"GGUF"
PROBE = "def f(x1):\n    return x1 * 23.5  # it's näive, 東京 \t\n\n print('ok!!')"
"""Words, digits, runs of spaces, punctuation, other scripts: what splitting rules differ in."""


ANSWER_WITHIN_S = 600
_PLAIN = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "cache_prompt": False}
"""All tokens may be drawn, with their own probabilities."""


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
        asked = self._post("tokenize", {"content": text, "add_special": False, "parse_special": True})
        return [int(token) for token in asked["tokens"]]

    def complete(self, ids: Sequence[int], *, max_new_tokens: int) -> Completion:
        """The likeliest tokens after a prompt, up to the one that ends an answer.

        Raises:
            ModelError: llama.cpp gives none.
        """
        options = {"n_predict": max_new_tokens, "temperature": 0.0, "return_tokens": True}
        answer = self._post("completion", {"prompt": list(ids), **_PLAIN, **options})
        speed = float(answer["timings"]["predicted_per_second"])
        return Completion(answer["content"], tuple(answer["tokens"]), speed)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask the server, which is in this process; its callable form does not tell the tokens of an answer."""
        url, headers = f"{self._server.listening_address}/{path}", {"Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - 127.0.0.1
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_WITHIN_S) as response:  # noqa: S310
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            raise ModelError(f"llama.cpp gave no answer from {str(self.path)!r}: {said}") from error
        return answer

    def stream(
        self, ids: Sequence[int], *, max_new_tokens: int, temperature: float, seed: int, stop: Callable[[str], bool]
    ) -> str:
        """The answer to a prompt; `stop` is asked with the answer so far whenever it has grown, and may raise."""
        text: list[str] = []
        raised: list[BaseException] = []

        def grown(piece: dict[str, Any]) -> bool:
            try:
                if "error" in piece or "message" in piece:
                    raise ModelError(f"llama.cpp gave no answer from {str(self.path)!r}: {piece}")
                text.extend(choice["text"] for choice in piece.get("choices", ()))
                return stop("".join(text))
            except BaseException as error:  # noqa: BLE001 - it must not pass through llama.cpp; raised below
                raised.append(error)
                return True

        options = {"n_predict": max_new_tokens, "temperature": temperature, "seed": seed, "stream": True}
        self._server.handle_completions({"prompt": list(ids), **_PLAIN, **options}, grown)
        if raised:
            raise raised[0]
        return "".join(text)


def check_tokens(file: LlamaFile, tokenizer: Any) -> None:
    """Refuse a file whose tokenizer is not the model's.

    Raises:
        ModelError: llama.cpp splits a text otherwise than transformers.
    """
    found, expected = file.tokenize(PROBE), list(tokenizer(PROBE, add_special_tokens=False)["input_ids"])
    if found != expected:
        place = next((i for i, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), -1)
        raise ModelError(
            f"llama.cpp reads {str(file.path)!r} with other tokens than the model's tokenizer gives, from token "
            f"{place} on: {found[place : place + 3]} instead of {expected[place : place + 3]}; convert the model again"
        )
