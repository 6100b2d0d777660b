"""A cache of past positions' keys and values, allocated once."""

from __future__ import annotations

from torch import Tensor


class KeyValueCache:
    """The cached keys and values of one attention layer.

    Args:
        length: number of positions to allocate.

    Attributes:
        filled: number of positions cached so far.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.filled = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds keys and values (B, heads, n, d) of the next n positions; returns views of all so far."""
        if self._keys is None or self._values is None:
            rows, heads, _, width = keys.shape
            self._keys, self._values = (like.new_empty(rows, heads, self.length, width) for like in (keys, values))
        end = self.filled + keys.shape[2]
        self._keys[:, :, self.filled : end] = keys
        self._values[:, :, self.filled : end] = values
        self.filled = end
        return self._keys[:, :, :end], self._values[:, :, :end]
