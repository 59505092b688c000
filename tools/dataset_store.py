"""Makes a dataset readable for a job: an embedded one is written once as JSON lines, all others are as they are."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hfagent.agent.errors import DatasetError
from hfagent.agent.records import DatasetRef
from hfagent.agent.train_config import METHODS, Method
from hfagent.tools import procedural_math, procedural_python, reasoning_gym_problems
from hfagent.tools.dataset_files import write_text
from hfagent.tools.dataset_read import looks_local

DEFAULT_ROWS = 1000
EMBEDDED: dict[str, Callable[[int, int, Method], list[dict[str, Any]]]] = {
    "embedded:procedural-python": procedural_python.train_rows,
    "embedded:procedural-math": procedural_math.train_rows,
    "embedded:reasoning-gym": reasoning_gym_problems.train_rows,
}
"""By number of rows, seed and method."""
MADE_FILE = "train.jsonl"
"""The rows that a model made, in their folder."""


class LocalDatasetStore:
    """Implements `DatasetStore` with a folder for embedded datasets."""

    def __init__(self, folder: Path):
        self._folder = folder

    def prepare(self, dataset: DatasetRef, *, rows: int | None, seed: int) -> str:
        """The path of an embedded dataset's file, the absolute path of a local one, or the Hub id.

        The configs of the embedded dataset are the methods: the same tasks in the columns of each.

        Raises:
            DatasetError: an unknown embedded dataset or config, no such file, or the folder cannot be written.
        """
        if not dataset.id.startswith("embedded:"):
            path = Path(dataset.id).expanduser()
            if os.path.exists(path):  # noqa: PTH110 - False, too, for what may not be looked at
                return str(path.resolve())
            if looks_local(dataset.id):
                raise DatasetError(f"no file or folder {dataset.id!r}; a Hub dataset is written `org/name`")
            return dataset.id
        if dataset.id not in EMBEDDED:
            raise DatasetError(f"unknown embedded dataset {dataset.id!r}; there is {' or '.join(EMBEDDED)}")
        method = next((name for name in METHODS if name == (dataset.config or "sft")), None)
        if method is None:
            configs = ", ".join(METHODS)
            raise DatasetError(f"{dataset.id!r} has no config {dataset.config!r}: its configs are {configs}")
        count, kind = rows or DEFAULT_ROWS, "" if method == "sft" else f"-{method}"
        target = self._folder.resolve() / f"{dataset.id.removeprefix('embedded:')}{kind}-{count}-seed{seed}.jsonl"
        if not target.exists():
            made = EMBEDDED[dataset.id](count, seed, method)
            write_text(target, "".join(f"{json.dumps(row)}\n" for row in made))
        return str(target)

    def verify(self, made: str, *, sha256: str) -> None:
        """Hold the rows that a model made against the hash that its job told.

        Raises:
            DatasetError: they are cut, changed or gone.
        """
        path = Path(made) / MADE_FILE
        try:
            rows = path.read_bytes()
        except OSError as error:
            raise DatasetError(f"the rows that the model made, {str(path)!r}: {error.strerror}") from error
        if hashlib.sha256(rows).hexdigest() != sha256:
            raise DatasetError(
                f"the rows that the model made, {str(path)!r}, are not what its job wrote: they have another hash; put "
                "them back, or begin a new project"
            )
