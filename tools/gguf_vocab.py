"""A tokenizer of transformers as GGUF holds it: tokens, kinds, merges, and the name by which llama.cpp knows how text
is split before the merges.

llama.cpp has no splitting rules in the file, only a name for each set that it has built in. The tokenizer's
rules decide which name it is; rules that have none are refused, since any other would give other tokens.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfagent.agent.errors import ModelError

if TYPE_CHECKING:
    from gguf import GGUFWriter

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""llama.cpp's kinds of tokens."""
SPECIAL = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "pad": "padding_token_id"}
"""transformers' name of a special token -> GGUF's."""

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITTINGS = {
    (("ByteLevel", True),): "gpt-2",
    (("Digits", True), ("ByteLevel", True)): "smollm",
    (("Split", _WORDS + r"\p{N}" + _REST), ("ByteLevel", False)): "qwen2",
    (("Split", _WORDS + r"\p{N}{1,3}" + _REST), ("ByteLevel", False)): "llama-bpe",
}
"""What a tokenizer does before the merges -> llama.cpp's name for it."""
_WHOLE_WORDS_FIRST = {"llama-bpe"}
"""Splittings with which llama.cpp takes a word that is a token before it tries any merge."""
SPACE = "▁"


@dataclass(frozen=True)
class Vocabulary:
    """What GGUF holds of a tokenizer."""

    model: str
    """`gpt2` for byte-level merges, `llama` for SentencePiece."""
    splitting: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    """Of a byte-level tokenizer."""
    scores: list[float]
    """Of a SentencePiece tokenizer: the higher, the sooner merged."""
    special: dict[str, int]
    """GGUF's name -> token."""
    adds_bos: bool
    adds_eos: bool
    adds_space: bool
    """Before the text, by SentencePiece."""
    chat_template: str | None


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """Read the tokenizer of a model folder as transformers applies it: it builds some anew instead of taking the
    rules in tokenizer.json.

    Args:
        folder: tokenizer.json, tokenizer_config.json, perhaps chat_template.jinja and generation_config.json.
        size: the rows of the embeddings; the tokenizer may have fewer tokens.

    Raises:
        ModelError: none there, or one that llama.cpp would apply otherwise.
    """
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        rules = json.loads(loaded.backend_tokenizer.to_str())
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"no tokenizer can be converted to GGUF from {str(folder)!r}: {error}") from error
    model = rules["model"]
    if model["type"] != "BPE":
        raise ModelError(f"the tokenizer is of type {model['type']!r}, and only 'BPE' can be converted to GGUF here")
    tokens, kinds = _tokens(rules, size)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    sentencepiece = bool(model["byte_fallback"])
    if sentencepiece:
        unknown = model["unk_token"]
        kinds = [_sentencepiece_kind(token, kind, unknown) for token, kind in zip(tokens, kinds, strict=True)]
    template = loaded.chat_template
    ids = loaded("a")["input_ids"]
    return Vocabulary(
        model="llama" if sentencepiece else "gpt2",
        splitting="default" if sentencepiece else _splitting(rules),
        tokens=tokens,
        kinds=kinds,
        merges=[] if sentencepiece else merges,
        scores=_scores(tokens, merges) if sentencepiece else [],
        special=_special(folder, loaded),
        adds_bos=ids[0] == loaded.bos_token_id,  # asked, not guessed
        adds_eos=len(ids) > 1 and ids[-1] == loaded.eos_token_id,
        adds_space=sentencepiece and _adds_space(rules),
        chat_template=template.get("default") if isinstance(template, dict) else template,
    )


def write_vocabulary(writer: "GGUFWriter", vocabulary: Vocabulary) -> None:
    """Put it into a file's metadata."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.splitting)
    writer.add_token_list(vocabulary.tokens)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    for name, token in vocabulary.special.items():
        writer.add_uint32(f"tokenizer.ggml.{name}", token)
    writer.add_add_space_prefix(vocabulary.adds_space)
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(vocabulary.adds_eos)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)


def _tokens(tokenizer: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Each id's text and kind; ids without a token, which pad the embeddings, are unused ones."""
    texts = {index: token for token, index in tokenizer["model"]["vocab"].items()}
    kinds = dict.fromkeys(texts, NORMAL)
    for added in tokenizer["added_tokens"]:
        texts[added["id"]] = added["content"]
        kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    if max(texts) >= size:
        raise ModelError(
            f"the tokenizer has a token {max(texts)}, and the model has embeddings for {size}: it is another model's"
        )
    return [texts.get(i, f"[PAD{i}]") for i in range(size)], [kinds.get(i, UNUSED) for i in range(size)]


def _special(folder: Path, tokenizer: Any) -> dict[str, int]:
    """The tokenizer's own special tokens, and what else ends an answer."""
    held = {stored: getattr(tokenizer, f"{name}_token_id") for name, stored in SPECIAL.items()}
    found = {stored: int(token) for stored, token in held.items() if token is not None}
    path = folder / "generation_config.json"
    ends = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
    listed = ends if isinstance(ends, list) else [ends]
    further = [end for end in listed if end is not None and end != found.get("eos_token_id")]
    if further:
        found["eot_token_id" if "eos_token_id" in found else "eos_token_id"] = further[0]
    return found


def _splitting(tokenizer: Mapping[str, Any]) -> str:
    normalizer = (tokenizer.get("normalizer") or {}).get("type")
    if normalizer not in (None, "NFC"):  # llama.cpp composes no characters: the same tokens for all composed text
        raise ModelError(f"llama.cpp has not the tokenizer's normalizer {normalizer!r}: it would see other tokens")
    before = tokenizer.get("pre_tokenizer") or {}
    steps = tuple(_step(step) for step in before.get("pretokenizers", [before]))
    name = _SPLITTINGS.get(steps)
    if name is None:
        known = ", ".join(_SPLITTINGS.values())
        raise ModelError(
            f"the tokenizer splits text by {steps!r}, for which no name of llama.cpp is known here ({known}): "
            "with another one it would see other tokens"
        )
    whole = bool(tokenizer["model"].get("ignore_merges"))
    if whole != (name in _WHOLE_WORDS_FIRST):
        raise ModelError(f"the tokenizer has ignore_merges {whole}, and llama.cpp's {name!r} has {not whole}")
    return name


def _step(step: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a step does, as `_SPLITTINGS` spells it; any other form is kept as it is, and so matches nothing."""
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": bool(use)}:
            return ("ByteLevel", use)
        case {"type": "Digits", "individual_digits": bool(single)}:
            return ("Digits", single)
        case {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": "Isolated", "invert": False}:
            return ("Split", regex)
    return (json.dumps(step, sort_keys=True),)


def _sentencepiece_kind(token: str, kind: int, unknown: str | None) -> int:
    if token == unknown:
        return UNKNOWN
    if kind == NORMAL and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return BYTE
    return kind


def _scores(tokens: Sequence[str], merges: Sequence[str]) -> list[float]:
    """SentencePiece merges the best-scored piece first: that is the order of the merges, and nothing else is merged."""
    first: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        first.setdefault("".join(merge.split(" ")), rank)
    last = len(merges)
    return [-float(first.get(token, last)) for token in tokens]


def _adds_space(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a word's mark is put before the text.

    Raises:
        ModelError: spaces do not become `▁`, as SentencePiece has it.
    """
    normalizer = tokenizer.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    before = tokenizer.get("pre_tokenizer") or {}
    replaces = any(s.get("type") == "Replace" and s.get("content") == SPACE for s in steps)
    metaspace = before.get("type") == "Metaspace"
    if not replaces and not metaspace:
        raise ModelError("the tokenizer falls back to bytes, but does not write spaces as '▁': llama.cpp knows it not")
    prepends = any(s.get("type") == "Prepend" for s in steps)
    return prepends or (metaspace and before.get("prepend_scheme") in ("first", "always"))
