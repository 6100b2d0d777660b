"""Keys and values of past positions, kept in memory that is reserved once."""

from __future__ import annotations

from torch import Tensor


class KeyValueCache:
    """What one attention layer remembers.

    Args:
        length: how many positions it will hold.

    Attributes:
        filled: how many it holds.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.filled = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Takes in keys and values (B, heads, n, d) of the next n positions; returns those of all so far, as views."""
        if self._keys is None or self._values is None:
            rows, heads, _, width = keys.shape
            self._keys, self._values = (new.new_empty(rows, heads, self.length, width) for new in (keys, values))
        end = self.filled + keys.shape[2]
        self._keys[:, :, self.filled : end] = keys
        self._values[:, :, self.filled : end] = values
        self.filled = end
        return self._keys[:, :, :end], self._values[:, :, :end]
