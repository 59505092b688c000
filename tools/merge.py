"""Merges a LoRA adapter into its base model: a folder like the base's, checked weight by weight."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfagent.agent.errors import ModelError
from hfagent.tools.safe_weights import SAFE, require_safe
from hfagent.tools.safetensors_folder import Weights

_WEIGHT_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
_PREFIX = "base_model.model."
_PARTS = (".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector", ".lora_embedding_A", ".lora_embedding_B")


@dataclass(frozen=True)
class Merged:
    """A merged model."""

    folder: Path
    dtype: str
    """Of its weights, e.g. `bfloat16`: the base's."""
    changed: int
    """Tensors that differ from the base's."""
    tensors: int


def base_folder(base: str, revision: str | None) -> Path:
    """A folder as it is; of a Hub id the folder that its files were fetched into.

    Raises:
        ModelError: the Hub does not have it, or is not reached.
    """
    if Path(base).is_dir():
        return Path(base)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base, revision=revision, allow_patterns=list(_WEIGHT_FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        raise ModelError(f"the model {base!r} cannot be fetched: {str(error).splitlines()[0]}") from error


def check_fits(base: str, folder: Path, adapter: Path) -> None:
    """Refuse an adapter of another model, from names and shapes alone.

    Args:
        base: the model as it was named.
        folder: where it lies.
        adapter: the adapter's folder.

    Raises:
        ModelError: says which model the adapter is for, or which matrix it does not fit.
    """
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{str(adapter)!r} holds no adapter, its adapter_config.json cannot be read: {error}; "
            "give the folder that a training run has saved its adapter in"
        ) from error
    if config.get("peft_type") != "LORA":
        raise ModelError(f"the adapter {str(adapter)!r} is of type {config.get('peft_type')!r}: only LORA is merged")
    trained_on = config.get("base_model_name_or_path") or ""
    if not _same_model(trained_on, base):
        raise ModelError(f"the adapter {str(adapter)!r} was trained on {trained_on!r}, not on {base!r}: give --model")
    with Weights(folder) as model, Weights(adapter) as update:
        for name, shape in update.shapes.items():
            target, part = _target(name)
            expected = model.shapes.get(target)
            fan_in_fan_out = bool(config.get("fan_in_fan_out"))
            if expected is None or not _fits(shape, part, expected[::-1] if fan_in_fan_out else expected):
                raise ModelError(
                    f"the adapter {str(adapter)!r} does not fit {base!r}: its {name!r} is {shape}, "
                    f"and the model's {target!r} is {expected or 'missing'}"
                )


def _same_model(trained_on: str, base: str) -> bool:
    """Folders count as the same where their paths end alike and only one is here: an adapter may come from another
    machine.
    """
    if trained_on == base:
        return True
    ours, theirs = Path(base).expanduser(), Path(trained_on).expanduser()
    if not ours.is_dir():
        return False
    return ours.resolve() == theirs.resolve() or (not theirs.is_dir() and ours.resolve().name == theirs.name)


def _target(name: str) -> tuple[str, str]:
    """The base's tensor that an adapter's tensor changes, and its part; no part where it takes the tensor's place."""
    plain = name.removeprefix(_PREFIX)
    for part in _PARTS:
        if plain.endswith(part):
            return plain.removesuffix(part) + ".weight", part
    return plain, ""


def _fits(shape: tuple[int, ...], part: str, expected: tuple[int, ...]) -> bool:
    rows, columns = expected if len(expected) == 2 else (expected[0], 0)
    match part:
        case "":
            return shape == expected
        case ".lora_A.weight":
            return shape[-1] == columns
        case ".lora_B.weight" | ".lora_magnitude_vector":
            return shape[0] == rows
    return True  # embeddings: peft itself compares


def merge(
    base: str, adapter: Path, out: Path, *, revision: str | None = None, say: Callable[[str], None] = lambda line: None
) -> Merged:
    """Write the merged model: weights in the base's format, its tokenizer, chat template and generation defaults.

    The folder appears whole and checked, or not at all.

    Args:
        base: folder or Hub id.
        adapter: folder of a LoRA adapter.
        out: the folder to be; replaced if it is there.
        revision: of the base on the Hub.
        say: told of each step.

    Raises:
        ModelError: the adapter is not the base's, or the result is not what a merge gives.
    """
    folder = base_folder(base, revision)
    check_fits(base, folder, adapter)
    scratch = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        scratch.mkdir(parents=True)
        dtype = _write(folder, adapter, scratch)
        say(f"merged {str(adapter)!r} into {base!r}, {dtype}")
        changed, tensors = verify(folder, adapter, scratch)
        if out.exists():
            shutil.rmtree(out)
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say(f"checked {tensors} tensors, {changed} changed")
    return Merged(out, dtype, changed, tensors)


def _write(folder: Path, adapter: Path, out: Path) -> str:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", **SAFE)
        # As evaluate.py merges, so that the weights are those that were judged: peft's safe_merge rounds otherwise.
        model = PeftModel.from_pretrained(model, str(require_safe(adapter))).merge_and_unload()
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{str(adapter)!r} cannot be merged into {str(folder)!r}: {error}") from error
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, trust_remote_code=False).save_pretrained(out)
    return str(model.dtype).removeprefix("torch.")


def verify(base: Path, adapter: Path, merged: Path) -> tuple[int, int]:
    """Compare a merged model's files with its base's; how many tensors changed, and how many there are.

    Raises:
        ModelError: another set of tensors, shapes or formats; values that are no numbers; a change where the adapter
            has nothing, or none at all; or transformers does not load it.
    """
    with Weights(base) as before, Weights(merged) as after, Weights(adapter) as update:
        targets = {_target(name)[0] for name in update.shapes}
        tied = _tied(before.shapes, after.shapes)
        if before.shapes.keys() - tied != after.shapes.keys() - tied:
            odd = sorted((before.shapes.keys() ^ after.shapes.keys()) - tied)
            raise ModelError(f"the merged model has not the base's tensors: {odd[0]!r} is in one of them alone")
        common = after.shapes.keys() & before.shapes.keys()
        changed = [name for name in sorted(common) if _changed(name, before, after)]
    strange = [name for name in changed if name not in targets]
    if strange:
        raise ModelError(f"the merged model's {strange[0]!r} is not the base's, and the adapter does not touch it")
    if not changed:
        raise ModelError("the merged model equals its base in every weight: the adapter has learned nothing")
    _reload(merged)
    return len(changed), len(common)


def _tied(*shapes: dict[str, Any]) -> set[str]:
    """The output matrix, where one of the folders leaves it out since it is the embeddings."""
    return {"lm_head.weight"} if any("lm_head.weight" not in held for held in shapes) else set()


def _changed(name: str, before: Weights, after: Weights) -> bool:
    import torch

    if (before.shapes[name], before.dtypes[name]) != (after.shapes[name], after.dtypes[name]):
        raise ModelError(
            f"the merged model's {name!r} is {after.shapes[name]} {after.dtypes[name]}, "
            f"the base's {before.shapes[name]} {before.dtypes[name]}"
        )
    values = after.tensor(name)
    if not bool(torch.isfinite(values).all()):
        raise ModelError(f"the merged model's {name!r} holds values that are no finite numbers: the training diverged")
    return not torch.equal(values, before.tensor(name))


def _reload(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        _, loading = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True, **SAFE)
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"the merged model does not load: {error}") from error
    odd = {kind: sorted(names) for kind, names in loading.items() if names}
    if odd:
        raise ModelError(f"the merged model does not load whole: {odd}")
