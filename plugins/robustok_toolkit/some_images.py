"""Some of the images of a split."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robustok_core.kinds.dataset import Images
from robustok_core.runs.fingerprints import fingerprint_of
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws


class SomeImages(Images):
    """The images at indices `rows` (m,) int64, in this order; an index may occur more than once."""

    def __init__(self, images: Images, rows: Tensor) -> None:
        self._images, self._rows = images, rows

    @property
    def labels(self) -> Tensor:
        return self._images.labels[self._rows]

    @property
    def fingerprint(self) -> str:
        return fingerprint_of([self._images.fingerprint, self._rows.tolist()])

    def load(self, indices: Sequence[int], draws: Draws | None = None) -> ImageBatch:
        return self._images.load(self._rows[torch.as_tensor(indices, dtype=torch.int64)].tolist(), draws)
