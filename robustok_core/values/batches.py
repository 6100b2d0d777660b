"""Batches: rows of a split, as training reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import torch
from attrs import frozen
from torch import Tensor

from robustok_core.values.latents import Latents

if TYPE_CHECKING:
    from typing_extensions import Self


@frozen(kw_only=True, eq=False)
class Batch:
    """Rows of a split.

    Attributes:
        labels: (B,) int64 in [0, num_classes).
        indices: (B,) int64, the rows' indices in the split.
    """

    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: slice) -> Self:
        """Some rows of the batch."""
        return self._map(lambda value: value[rows])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The same batch on another device; with `non_blocking`, copies from pinned memory go on behind the program."""
        return self._map(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The same batch in page-locked memory."""
        return self._map(lambda value: value.pin_memory())

    def _map(self, change: Callable[[Any], Any]) -> Self:
        attributes = attrs.asdict(self, recurse=False)
        return attrs.evolve(self, **{name: change(value) for name, value in attributes.items()})


@frozen(kw_only=True, eq=False)
class ImageBatch(Batch):
    """Images of a split: `images` (B, 3, H, W) float32 in [-1, 1]; grey ones are repeated to 3 channels."""

    images: Tensor


@frozen(kw_only=True, eq=False)
class LatentBatch(Batch):
    """Training data of a generator: `latents` with codes (B, N), or vectors (B, N, D) in a continuous space."""

    latents: Latents
