"""Whether the model and the dataset of a plan can be had, and how much they are, before anything is launched."""

import json
import os
from pathlib import Path

from hfagent.agent.errors import DatasetError, ModelError, PlanRejected
from hfagent.agent.estimate import DataSize
from hfagent.agent.records import DatasetRef, ModelRef
from hfagent.tools.dataset_files import split_files
from hfagent.tools.dataset_read import looks_local
from hfagent.tools.dataset_store import DEFAULT_ROWS, EMBEDDED, LocalDatasetStore
from hfagent.tools.embedded_model import PREFIX, SOURCES, EmbeddedModelStore, default_cache, model_folder
from hfagent.tools.gguf_architectures import require_convertible
from hfagent.tools.hub_hardware import configuration, vocabulary

BYTES_PER_TOKEN = 4
"""Of English and code, the names of columns counted in: a rough figure, until a tokenizer has measured."""
CHUNK = 1 << 20
CONTEXT_KEYS = ("max_position_embeddings", "n_positions")
"""What configurations of transformers call the number of tokens that a model can read."""


def require_model(model: ModelRef, *, hub: bool) -> None:
    """Look for a model where its name says that it is.

    Args:
        model: of the plan.
        hub: whether the Hub answers; if it does, its models are not looked for.

    Raises:
        PlanRejected: no such embedded model or folder, or the Hub does not answer and the cache does not hold it.
    """
    if model.id.startswith(PREFIX):
        if model.id.removeprefix(PREFIX) not in SOURCES:
            known = ", ".join(PREFIX + name for name in SOURCES)
            raise PlanRejected(f"unknown embedded model {model.id!r}: there is {known}")
        return
    try:
        found = EmbeddedModelStore().prepare(model)
    except ModelError as error:
        raise PlanRejected(str(error)) from error
    if isinstance(found, str) and not hub and not _cached(found, "model"):
        raise PlanRejected(
            f"the model {found!r} is neither a folder here nor in the cache, and the Hub does not answer: "
            "name a local folder, or one that was fetched before"
        )


def require_teacher(teacher: ModelRef, model: ModelRef, token: str | None) -> None:
    """Look whether a teacher chooses from the model's own tokens, as far as that is known before anything is loaded.

    Raises:
        PlanRejected: it has another vocabulary or tokenizer, or is the same folder.
    """
    own, other = (_made_before(found) for found in (model, teacher))
    if Path(own).is_dir() and Path(other).is_dir() and Path(own).samefile(other):
        raise PlanRejected(f"the teacher {teacher.id!r} is the model itself: name a better model of the same family")
    sizes = [vocabulary(name, found.revision, token) for name, found in ((own, model), (other, teacher))]
    if None not in sizes and sizes[0] != sizes[1]:
        raise PlanRejected(
            f"the teacher {teacher.id!r} chooses from {sizes[1]} tokens, and the model {model.id!r} from {sizes[0]}: "
            "name a teacher of the model's own family"
        )
    tokens, theirs = _tokens(Path(own)), _tokens(Path(other))
    if tokens is not None and theirs is not None and not tokens.items() <= theirs.items():
        raise PlanRejected(
            f"the teacher {teacher.id!r} has another tokenizer than {model.id!r}: name one of its own family"
        )


def _made_before(model: ModelRef) -> str:
    """Where a model's files are: of an embedded one the folder that an earlier night made, or will."""
    if model.id.startswith(PREFIX):
        return str(model_folder(default_cache(), model.id.removeprefix(PREFIX)))
    return str(Path(model.id).expanduser()) if Path(model.id).expanduser().is_dir() else model.id


def _tokens(folder: Path) -> dict[str, int] | None:
    """Token -> its number, by a folder's `tokenizer.json`; None where that is not there, or of another form."""
    try:
        found = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        return dict(found["model"]["vocab"]) | {token["content"]: token["id"] for token in found["added_tokens"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def require_dataset(dataset: DatasetRef, *, hub: bool) -> None:
    """Look for a dataset where its name says that it is; see `require_model`.

    Raises:
        PlanRejected: no such embedded dataset, or the Hub does not answer and the cache does not hold it.
        DatasetError: no such file or folder.
    """
    if dataset.id.startswith(PREFIX):
        if dataset.id not in EMBEDDED:
            raise PlanRejected(f"unknown embedded dataset {dataset.id!r}: there is {' or '.join(EMBEDDED)}")
        return
    found = LocalDatasetStore(Path()).prepare(dataset, rows=None, seed=0)
    if looks_local(found):
        return
    if not hub and not _cached(dataset.id, "dataset"):
        raise PlanRejected(
            f"the dataset {dataset.id!r} is neither a file here nor in the cache, and the Hub does not answer: "
            "name a local file, or one that was fetched before"
        )


def require_gguf(model: ModelRef, token: str | None) -> None:
    """Look whether GGUF files can be made of a model, as far as its `config.json` can be had.

    Raises:
        PlanRejected: they cannot.
    """
    config = None if model.id.startswith(PREFIX) else configuration(model.id, model.revision, token)
    try:
        if config is not None:
            require_convertible(config)
    except ModelError as error:
        raise PlanRejected(f"no GGUF file can be made of {model.id!r}: {error}") from error


def rough_size(dataset: DatasetRef) -> DataSize:
    """Rows by counting lines, their lengths by bytes; unknown for what is not local or has no lines."""
    path = Path(dataset.id).expanduser()
    if dataset.id in EMBEDDED:
        return DataSize(rows=DEFAULT_ROWS)
    try:
        files = split_files(path, dataset.split) if path.is_dir() else [path]
        counts = [_lines(file) for file in files]
    except (DatasetError, OSError):
        return DataSize()
    rows = sum(counts)
    if not all(counts):
        return DataSize()
    return DataSize(rows=rows, mean_tokens=sum(file.stat().st_size for file in files) / rows / BYTES_PER_TOKEN)


def context_length(model: str) -> int | None:
    """How many tokens a model can read, by its `config.json` in a folder or in the Hub's cache; None while unknown."""
    from huggingface_hub import try_to_load_from_cache

    path: object = Path(model) / "config.json"
    if not Path(model).is_dir():
        path = try_to_load_from_cache(model, "config.json")
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return None
    config = json.loads(Path(path).read_text(encoding="utf-8"))
    config = {**config, **config.get("text_config", {})}
    return next((int(config[key]) for key in CONTEXT_KEYS if config.get(key)), None)


def _lines(file: Path) -> int:
    """Lines that hold rows; 0 for a format without lines."""
    suffix = file.suffix.lower()
    if suffix not in (".jsonl", ".ndjson", ".csv"):
        return 0
    count, last = 0, b"\n"
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            count, last = count + chunk.count(b"\n"), chunk[-1:]
    return max(0, count + (last != b"\n") - (suffix == ".csv"))


def _cached(name: str, kind: str) -> bool:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / "--".join([f"{kind}s", *name.split("/")]) / "snapshots"
    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
    return any(folder.glob("*")) or (kind == "dataset" and (prepared / name.replace("/", "___")).is_dir())
