"""Keys and values of a batch in tensors that have room for the whole answer from the start.

transformers' own layer copies everything it holds for each new token: a sixth of the embedded model's time at 100 rows.
"""

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Writes new tokens into reserved room; `keys` and `values` are views of what is filled."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, *, copies: int, room: int) -> None:
        """Begin with the tokens of one row, repeated.

        Args:
            keys: Of shape [1, heads, tokens, dimensions].
            values: Of the same shape but for the dimensions.
            copies: Rows of the batch.
            room: Tokens that a row will hold at most.
        """
        super().__init__()
        self.lazy_initialization(keys, values)
        self._keys, self._values = (
            states.new_empty(copies, states.shape[1], room, states.shape[3]) for states in (keys, values)
        )
        self._fill(keys, values, begin=0)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append to every row and return all that is filled."""
        self._fill(key_states, value_states, begin=self.get_seq_length())
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep these rows, in this order."""
        length = self.get_seq_length()
        self._keys, self._values = self._keys.index_select(0, beam_idx), self._values.index_select(0, beam_idx)
        self._show(length)

    def _fill(self, keys: torch.Tensor, values: torch.Tensor, *, begin: int) -> None:
        end = begin + keys.shape[-2]
        self._keys[:, :, begin:end] = keys
        self._values[:, :, begin:end] = values
        self._show(end)

    def _show(self, length: int) -> None:
        self.keys, self.values = self._keys[:, :, :length], self._values[:, :, :length]
