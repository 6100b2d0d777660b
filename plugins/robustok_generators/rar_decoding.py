"""RAR one code at a time.

What modulates its blocks depends on the class and on the place in the sequence, never on the codes. It is
therefore made ahead, for many places in one product, once for each class among the rows: half of the model's
weights are read once per block of places instead of once per code, and never for a row twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from robustok_generators.autoregressive import Decoding
from robustok_generators.key_value_cache import KeyValueCache

if TYPE_CHECKING:
    from robustok_generators.rar import RAR

#: Rows of the products that make modulations: enough for a matrix product at full speed, few enough to keep.
_ROWS = 256


class Modulations:
    """What modulates each block, by place.

    Args:
        model: whose blocks.
        labels: (rows,) int64 in [0, num_classes].
    """

    def __init__(self, model: RAR, labels: Tensor) -> None:
        self.model = model
        classes, self.row = labels.unique(return_inverse=True)
        self.classes = model.class_embedding(classes)  # (classes, D)
        self.stride = max(1, _ROWS // len(classes))
        self.first, self.end = 0, 0
        self._tables: list[Tensor] = []

    def at(self, place: int) -> list[Tensor]:
        """(classes, n D) for each block, then for the head, at a place; places are asked for in order."""
        if place >= self.end:
            self.first, self.end = place, min(place + self.stride, self.model.length)
            self._tables = self._make()
        return [table[place - self.first] for table in self._tables]

    def for_rows(self, table: Tensor) -> Tensor:
        """(rows, 1, n D) of one of them."""
        return table.index_select(0, self.row)[:, None]

    def _make(self) -> list[Tensor]:
        places = self.model.timesteps_embeddings[0, self.first : self.end, None]
        conditions = F.silu(self.classes + places)  # (places, classes, D)
        return [part.modulation(conditions) for part in [*self.model.blocks, self.model.head]]


class RARDecoding(Decoding):
    """Begins with the cls token and the class; each step then costs one position."""

    def __init__(self, model: RAR, labels: Tensor) -> None:
        self.model = model
        self.labels = labels
        self.place = 0
        self.places = model.places()[0]
        self.modulations = Modulations(model, labels)
        self.caches = [KeyValueCache(model.length) for _ in model.blocks]

    def start(self) -> Tensor:
        self._step(self.model.cls_token[0].expand(len(self.labels), -1))
        return self._logits(self._step(self.model.class_embedding(self.labels)))

    def advance(self, codes: Tensor) -> Tensor:
        return self._logits(self._step(self.model.embeddings(codes)))

    def _step(self, embedded: Tensor) -> Tensor:
        """(rows, 1, D) behind the last block, from the embeddings (rows, D) at the next place."""
        x = (embedded + self.places[self.place])[:, None]
        self.tables = self.modulations.at(self.place)
        for block, table, cache in zip(self.model.blocks, self.tables, self.caches, strict=False):
            x = block(x, self.modulations.for_rows(table), cache)
        self.place += 1
        return x

    def _logits(self, x: Tensor) -> Tensor:
        return self.model.head(x, self.modulations.for_rows(self.tables[-1]))[:, 0]
