"""Decoding of RAR one code at a time.

Modulations depend on the class and the position, not on the codes. They are therefore computed ahead, for many
positions in one product and once per class: the modulation weights, half of the model's, are read once per block of
positions instead of once per code.
"""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from robustok_generators.autoregressive import Decoding
from robustok_generators.key_value_cache import KeyValueCache
from robustok_generators.rar_block import RARHead

#: Rows of the products that compute modulations: enough for full speed, few enough to store.
_ROWS = 256


class RARModel(Protocol):
    """The parts of a `RAR` that decoding reads."""

    length: int
    cls_token: nn.Parameter
    embeddings: nn.Embedding
    timesteps_embeddings: nn.Parameter
    blocks: nn.ModuleList
    head: RARHead

    def class_embedding(self, labels: Tensor) -> Tensor:
        """(B, D) the embeddings of labels (B,)."""

    def positions(self) -> Tensor:
        """(1, length, D) the position embeddings in raster order."""


class Modulations:
    """The modulations of each block, by position.

    Args:
        model: the model whose blocks are modulated.
        labels: (rows,) int64 in [0, num_classes].
    """

    def __init__(self, model: RARModel, labels: Tensor) -> None:
        self.model = model
        classes, self.row = labels.unique(return_inverse=True)
        self.classes = model.class_embedding(classes)  # (classes, D)
        self.stride = max(1, _ROWS // len(classes))
        self.first, self.end = 0, 0
        self._tables: list[Tensor] = []

    def at(self, position: int) -> list[Tensor]:
        """Tables (classes, n D) of each block, then of the head, at a position; call with positions in order."""
        if position >= self.end:
            self.first, self.end = position, min(position + self.stride, self.model.length)
            self._tables = self._compute()
        return [table[position - self.first] for table in self._tables]

    def for_rows(self, table: Tensor) -> Tensor:
        """Expands one table to (rows, 1, n D)."""
        return table.index_select(0, self.row)[:, None]

    def _compute(self) -> list[Tensor]:
        positions = self.model.timesteps_embeddings[0, self.first : self.end, None]
        conditions = F.silu(self.classes + positions)  # (positions, classes, D)
        return [block.modulation(conditions) for block in [*self.model.blocks, self.model.head]]


class RARDecoding(Decoding):
    """Starts with the cls token and the class; each step then computes one position."""

    def __init__(self, model: RARModel, labels: Tensor) -> None:
        self.model = model
        self.labels = labels
        self.position = 0
        self.position_embeddings = model.positions()[0]
        self.modulations = Modulations(model, labels)
        self.caches = [KeyValueCache(model.length) for _ in model.blocks]

    def start(self) -> Tensor:
        self._step(self.model.cls_token[0].expand(len(self.labels), -1))
        return self._logits(self._step(self.model.class_embedding(self.labels)))

    def advance(self, codes: Tensor) -> Tensor:
        return self._logits(self._step(self.model.embeddings(codes)))

    def _step(self, embedded: Tensor) -> Tensor:
        """Output (rows, 1, D) of the last block, from the embeddings (rows, D) at the next position."""
        x = (embedded + self.position_embeddings[self.position])[:, None]
        self.tables = self.modulations.at(self.position)
        for block, table, cache in zip(self.model.blocks, self.tables, self.caches, strict=False):
            x = block(x, self.modulations.for_rows(table), cache)
        self.position += 1
        return x

    def _logits(self, x: Tensor) -> Tensor:
        return self.model.head(x, self.modulations.for_rows(self.tables[-1]))[:, 0]
