"""Reads a dataset wherever it is, a file, a folder or the Hub, and checks a sample of it."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

from hfagent.agent.dataset_records import DatasetReport
from hfagent.agent.errors import DatasetError, ModelNotFound
from hfagent.agent.records import (
    DatasetRef,
    ModelRef,
)
from hfagent.tools.dataset_check import check_rows
from hfagent.tools.dataset_files import SUFFIXES, read_file, split_files, unknown_split
from hfagent.tools.dataset_places import picked, places, spread_out

SAMPLE_ROWS = 1000
HUB_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class DatasetRows:
    """Rows of one split."""

    rows: list[dict[str, Any]]
    columns: dict[str, str]
    """Column -> type as `datasets` spells it; `mixed` where the values cannot share a type."""
    total: int | None
    """Rows of the whole split; None where the Hub does not say."""
    first_only: bool = False
    """They are the first ones, though rows at even distances were asked for."""


class Tokenizer(Protocol):
    """What the check needs of a transformers tokenizer."""

    chat_template: Any

    def __call__(self, text: str, *, add_special_tokens: bool, verbose: bool) -> Any:
        """A mapping whose `input_ids` are the tokens."""
        ...


class DatasetReader:
    """Implements `DatasetChecker`."""

    def __init__(
        self, sample_rows: int = SAMPLE_ROWS, *, load_tokenizer: Callable[[ModelRef], Tokenizer | None] | None = None
    ):
        """Without `load_tokenizer` lengths stay unknown."""
        self._sample_rows = sample_rows
        self._load_tokenizer = load_tokenizer

    def check(self, dataset: DatasetRef, *, model: ModelRef | None, max_length: int | None) -> DatasetReport:
        """Judge a sample, spread over the split: evenly where it is local, over some places of one on the Hub.

        Raises:
            DatasetError: it cannot be found or read.
            ModelNotFound: the model's tokenizer cannot be loaded.
        """
        data = load_rows(dataset, limit=self._sample_rows, spread=True)
        tokenizer = self._load_tokenizer(model) if model and self._load_tokenizer else None
        return check_rows(
            dataset.id,
            data.rows,
            columns=data.columns,
            total_rows=data.total,
            token_length=_counter(tokenizer) if tokenizer else None,
            max_length=max_length,
            chat_template=bool(tokenizer.chat_template) if tokenizer else None,
        ).model_copy(update={"first_only": data.first_only})


def auto_tokenizer(model: ModelRef) -> Tokenizer | None:
    """The model's own tokenizer, or None where transformers is not installed.

    Raises:
        ModelNotFound: no tokenizer there.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError:
        return None
    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(model.id, revision=model.revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelNotFound(
            f"cannot load the tokenizer of {model.id!r}: {_first_line(error)}; check the name and the network, "
            "or name a folder that save_pretrained wrote"
        ) from error
    return tokenizer


def load_rows(ref: DatasetRef, *, limit: int | None, spread: bool = False, revision: str | None = None) -> DatasetRows:
    """The first `limit` rows of a split, or all; with `spread`, rows at even distances, or from several places.

    Of a Hub dataset those at the commit `revision`, else at its newest.

    Local files are read to their end even so: a broken line is found now and not during the training.

    Raises:
        DatasetError: it cannot be found or read; the text names the file and line, or what to choose from.
    """
    path = Path(ref.id).expanduser()
    if ref.id.startswith("embedded:"):
        raise DatasetError(f"{ref.id!r} is not written to a file yet: prepare it with the dataset store first")
    try:
        found = path.exists()
        saved = path.is_dir() and any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
    except OSError as error:  # a folder above that may not be entered, a name that is too long
        raise DatasetError(f"cannot read {ref.id!r}: {error.strerror}") from error
    if saved:
        return _from_disk(path, ref, limit=limit, spread=spread)
    if found:
        return _from_files(path, ref, limit=limit, spread=spread)
    if looks_local(ref.id):
        raise DatasetError(f"no file or folder {ref.id!r}; a Hub dataset is written `org/name`")
    return _from_hub(ref, limit=limit, spread=spread, revision=revision)


def hub_revision(dataset: str) -> str:
    """The newest commit of a Hub dataset.

    Raises:
        DatasetError: no such dataset, or the Hub does not answer.
    """
    from datasets.exceptions import DatasetsError

    try:
        return str(_ask_hub(dataset).sha)
    except (DatasetsError, _http_error(), OSError, ValueError) as error:
        raise _hub_error(DatasetRef(id=dataset), error) from error


def _from_files(path: Path, ref: DatasetRef, *, limit: int | None, spread: bool) -> DatasetRows:
    if path.is_dir():
        folder = path / ref.config if ref.config else path
        if not folder.is_dir():
            raise DatasetError(f"{ref.id!r} has no config {ref.config!r}: a config of a local folder is a folder in it")
        files = split_files(folder, ref.split)
    elif ref.split != "train":
        raise DatasetError(f"{ref.id!r} is one file and so one split, 'train'; there is no {ref.split!r}")
    else:
        files = [path]
    rows, total = _chosen(chain.from_iterable(map(read_file, files)), limit=limit, spread=spread)
    if not rows:
        raise DatasetError(f"{ref.id!r} has no rows: {', '.join(repr(file.name) for file in files[:3])} is empty")
    return DatasetRows(rows, _column_types(rows), total)


def _chosen(rows: Iterable[dict[str, Any]], *, limit: int | None, spread: bool) -> tuple[list[dict[str, Any]], int]:
    """The wanted rows and how many there are, in one pass."""
    if limit is not None and spread:
        return picked(rows, limit)
    iterator = iter(rows)
    kept = list(islice(iterator, limit))
    return kept, len(kept) + sum(1 for _ in iterator)


def _column_types(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Types as Arrow infers them from the rows, column by column."""
    import pyarrow
    from datasets import Features

    types = {}
    for name in dict.fromkeys(chain.from_iterable(rows)):
        try:
            schema = pyarrow.table({name: [row.get(name) for row in rows]}).schema
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError):
            types[name] = "mixed"
        else:
            types |= _spelled(Features.from_arrow_schema(schema))
    return types


def _spelled(features: Any) -> dict[str, str]:
    """`string` for a plain value, `List({...})` and the like as `datasets` prints it."""
    return {name: getattr(feature, "dtype", None) or repr(feature) for name, feature in features.items()}


def _from_disk(path: Path, ref: DatasetRef, *, limit: int | None, spread: bool) -> DatasetRows:
    """A folder that `save_to_disk` wrote."""
    from datasets import DatasetDict, load_from_disk

    try:
        data = load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read {ref.id!r} as a saved dataset: {_first_line(error)}") from error
    if isinstance(data, DatasetDict):
        if ref.split not in data:
            raise unknown_split(ref.id, ref.split, sorted(data))
        data = data[ref.split]
    return _selected(data, limit=limit, spread=spread)


def _selected(data: Any, *, limit: int | None, spread: bool) -> DatasetRows:
    """The wanted rows of a `datasets.Dataset`."""
    wanted = len(data) if limit is None else limit
    chosen = places(len(data), wanted) if spread else range(min(len(data), wanted))
    return DatasetRows(data.select(chosen).to_list(), _spelled(data.features), len(data))


def _from_hub(ref: DatasetRef, *, limit: int | None, spread: bool, revision: str | None) -> DatasetRows:
    """With a limit only the head of the split is fetched, or some of its places, as streams."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub import constants

    try:
        if not constants.HF_HUB_OFFLINE:
            _ask_hub(ref.id)
        if limit is None or constants.HF_HUB_OFFLINE:
            data = load_dataset(ref.id, ref.config, split=ref.split, revision=revision)
            return _selected(data, limit=limit, spread=spread)
        stream = load_dataset(ref.id, ref.config, split=ref.split, revision=revision, streaming=True)
        rows, read, first_only = list(stream.take(limit)), None, False
        if len(rows) < limit:  # a stream that ends before the limit has been read whole
            read = len(rows)
        elif spread:
            rows, read, first_only = spread_out(stream, limit)
    except (DatasetsError, _http_error(), OSError, ValueError) as error:
        raise _hub_error(ref, error) from error
    known = (stream.info.splits or {}).get(ref.split)
    total = read or (known.num_examples if known else None)
    columns = _spelled(stream.features) if stream.features else _column_types(rows)
    return DatasetRows(rows, columns, total or None, first_only)


def _ask_hub(dataset: str) -> Any:
    """One quick request: `load_dataset` itself needs 23 s of retries to notice that there is no network."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from tenacity import retry, retry_if_exception, stop_after_attempt, wait_fixed

    def passing(error: BaseException) -> bool:
        return isinstance(error, _http_error()) and not isinstance(error, HfHubHTTPError)

    @retry(retry=retry_if_exception(passing), stop=stop_after_attempt(3), wait=wait_fixed(1), reraise=True)
    def ask() -> Any:
        return HfApi().dataset_info(dataset, timeout=HUB_TIMEOUT_S)

    return ask()


def _http_error() -> type[Exception]:
    """The base of what the Hub's client raises: httpx's in huggingface_hub 1, httpx2's in 2."""
    from huggingface_hub import errors

    base: type[Exception] = vars(errors)["HTTPError"]
    return base


def _hub_error(ref: DatasetRef, error: Exception) -> DatasetError:
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    text = str(error)
    choices = ", ".join(re.findall(r"'([^']+)'", (re.findall(r"\[(.*)\]", text) or [""])[-1]))
    if isinstance(error, GatedRepoError) or "gated dataset" in text:
        return DatasetError(f"dataset {ref.id!r} is gated: accept its terms on its Hub page, then set HF_TOKEN")
    if isinstance(error, DatasetNotFoundError | RepositoryNotFoundError):
        return DatasetError(
            f"no dataset {ref.id!r} on the Hub, or it is private: "
            f"check the name, or set HF_TOKEN to a token that may read it"
        )
    if isinstance(error, (ConnectionError, _http_error())) and not isinstance(error, HfHubHTTPError):
        return DatasetError(
            f"cannot reach the Hub for dataset {ref.id!r} ({_first_line(error)}): "
            f"check the network, or give a local file"
        )
    if "Config name is missing" in text:
        return DatasetError(f"dataset {ref.id!r} has several configs and no default; choose one of {choices}")
    if "BuilderConfig" in text and "not found" in text:
        return DatasetError(f"dataset {ref.id!r} has no config {ref.config!r}; choose one of {choices}")
    if "plit" in text and choices:
        return unknown_split(ref.id, ref.split, choices.split(", "))
    return DatasetError(f"cannot load dataset {ref.id!r}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


def looks_local(name: str) -> bool:
    """Whether a name can only be a path: no Hub id is written so."""
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or name.lower().endswith(SUFFIXES)


def _counter(tokenizer: Tokenizer) -> Callable[[str], int]:
    return lambda text: len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
