"""Caches of past positions' keys and values, allocated once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robustok_blocks.attention import attend


class KeyValueCache:
    """The cached keys and values of one attention layer; each step attends to those that there are.

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

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Adds the next position's key and value (B, heads, 1, d); its query attends to all so far."""
        return attend(queries, *self.extend(keys, values))

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds keys and values (B, heads, n, d) of the next n positions; returns views of all so far."""
        if self._keys is None or self._values is None:
            rows, heads, _, width = keys.shape
            self._keys, self._values = (like.new_empty(rows, heads, self.length, width) for like in (keys, values))
        end = self.filled + keys.shape[2]
        self._keys[:, :, self.filled : end] = keys
        self._values[:, :, self.filled : end] = values
        self.filled = end
        return self.so_far()

    def so_far(self) -> tuple[Tensor, Tensor]:
        """Views of the keys and values of all positions so far."""
        assert self._keys is not None
        assert self._values is not None
        return self._keys[:, :, : self.filled], self._values[:, :, : self.filled]


class Window:
    """The positions that a step of fixed shape attends to: the first `size`, later ones than the step's masked.

    There are a few sizes, so that early steps do not read a whole cache. All are multiples of 16, which fused attention
    needs without copies.

    Args:
        filled: number of positions that are cached.
        length: number of positions to allocate at least.
        sizes: number of sizes.
        dtype, device: of the mask, those of the queries.
    """

    def __init__(self, filled: int, length: int, *, sizes: int, dtype: torch.dtype, device: torch.device) -> None:
        self._stride = -(-length // (16 * sizes)) * 16
        self.length = -(-length // self._stride) * self._stride
        self.size = self._stride
        self.place = torch.zeros(1, dtype=torch.int64, device=device)
        self.mask = torch.full((1, 1, 1, self.length), -torch.inf, dtype=dtype, device=device)
        self.mask[..., :filled] = 0.0

    def move(self, position: int) -> None:
        """To the next position, in place."""
        self.size = (position // self._stride + 1) * self._stride
        self.place.fill_(position)
        self.mask[..., position].fill_(0.0)


class FixedCache:
    """The cached keys and values of one attention layer, for steps of a fixed shape.

    Args:
        prefix: what is cached already, of some rows.
        row: (B,) int64, for each row which of these it continues.
        window: shared by all layers.
    """

    def __init__(self, prefix: KeyValueCache, row: Tensor, window: Window) -> None:
        self.window = window
        self.keys, self.values = (self._begun(cached, row) for cached in prefix.so_far())

    def _begun(self, cached: Tensor, row: Tensor) -> Tensor:
        # Zeros, since a masked value still counts if it is not finite.
        begun = cached.new_zeros(len(row), cached.shape[1], self.window.length, cached.shape[3])
        begun[:, :, : cached.shape[2]] = cached.index_select(0, row)
        return begun

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Adds the next position's key and value (B, heads, 1, d); its query attends to the window."""
        window = self.window
        self.keys.index_copy_(2, window.place, keys)
        self.values.index_copy_(2, window.place, values)
        seen_keys, seen_values = self.keys[:, :, : window.size], self.values[:, :, : window.size]
        return F.scaled_dot_product_attention(queries, seen_keys, seen_values, window.mask[..., : window.size])
