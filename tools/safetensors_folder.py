"""The weights of a model or adapter folder: names and shapes at once, values one tensor at a time."""

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hfagent.agent.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class Weights:
    """Opens all safetensors files of a folder; values are read when they are asked for."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    """As safetensors calls them: `BF16`."""

    def __init__(self, folder: Path):
        self._folder = folder

    def __enter__(self) -> "Weights":
        """Read the headers.

        Raises:
            ModelError: no weights, or files that cannot be read.
        """
        from safetensors import SafetensorError, safe_open

        self._stack, self._files = ExitStack(), {}
        self.shapes, self.dtypes = {}, {}
        try:
            for path in _files(self._folder):
                file = self._stack.enter_context(safe_open(path, framework="pt"))
                for name in file.keys():  # noqa: SIM118 - not a dict
                    part = file.get_slice(name)
                    self._files[name] = file
                    self.shapes[name], self.dtypes[name] = tuple(part.get_shape()), part.get_dtype()
        except (OSError, SafetensorError) as error:
            self._stack.close()
            raise ModelError(f"the weights in {str(self._folder)!r} cannot be read: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self._stack.close()

    def tensor(self, name: str) -> "torch.Tensor":
        """One tensor in its own format."""
        return self._files[name].get_tensor(name)

    def float32(self, name: str) -> "NDArray[np.float32]":
        """One tensor as single-precision numbers."""
        values: NDArray[Any] = self.tensor(name).float().numpy()
        return values

    _files: dict[str, Any]


def _files(folder: Path) -> list[Path]:
    """The index names them where there is one: a folder may hold files of other formats, too.

    Raises:
        ModelError: none there.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return [folder / name for name in sorted(names)]
    for name in ("model.safetensors", "adapter_model.safetensors"):
        if (folder / name).is_file():
            return [folder / name]
    raise ModelError(
        f"{str(folder)!r} holds no model.safetensors: save the model with save_pretrained(..., safe_serialization=True)"
    )
