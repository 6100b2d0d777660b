"""Decoding of RAR one code at a time.

Modulations depend on the class and the position, not on the codes. They are therefore computed ahead, for many
positions in one product and once per class: the modulation weights, half of the model's, are read once per block of
positions instead of once per code.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustok_generators.decoding import Decoding
from robustok_generators.rar_block import RARHead

#: Rows of the products that compute modulations: enough for full speed, few enough to store.
_ROWS, _ROWS_ON_CUDA = 256, 1024


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
        products = _ROWS_ON_CUDA if labels.is_cuda else _ROWS
        self.stride = max(1, products // len(classes))
        self.first, self.end = 0, 0
        self.index = torch.zeros_like(self.row)  # of each row's class at the present position, in the tables
        self._tables: list[Tensor] = []
        self._fixed = False

    def fix(self, row: Tensor) -> None:
        """From now on, there are (rows,) rows, each of which continues one so far, and all changes are in place."""
        self.row = self.row.index_select(0, row)
        self.index = torch.zeros_like(self.row)
        self._fixed = True

    def move(self, position: int) -> None:
        """To a position; call with all positions in order."""
        if position >= self.end:
            self.first, self.end = position, min(position + self.stride, self.model.length)
            self._keep(self._compute())
        torch.add(self.row, (position - self.first) * len(self.classes), out=self.index)

    def of(self, number: int) -> Tensor:
        """Modulations (rows, 1, n D) of a block, or of the head, which is the last, at the present position."""
        return self._tables[number].index_select(0, self.index)[:, None]

    def _keep(self, tables: list[Tensor]) -> None:
        if not self._fixed:
            self._tables = tables
            return
        for kept, table in zip(self._tables, tables, strict=True):
            kept[: len(table)].copy_(table)

    def _compute(self) -> list[Tensor]:
        """Tables (positions classes, n D)."""
        positions = self.model.timesteps_embeddings[0, self.first : self.end, None]
        conditions = F.silu(self.classes + positions)  # (positions, classes, D)
        return [block.modulation(conditions).flatten(0, 1) for block in [*self.model.blocks, self.model.head]]


class RARDecoding(Decoding):
    """Starts with the cls token and the class; each step then computes one position."""

    def __init__(self, model: RARModel, labels: Tensor) -> None:
        super().__init__(model.blocks, model.length, labels.device)
        self.model = model
        self.labels = labels
        self.position_embeddings = model.positions()[0]
        self.modulations = Modulations(model, labels)

    def start(self) -> Tensor:
        self.move()
        self._blocks(self.model.cls_token[0].expand(len(self.labels), -1))
        self.move()
        return self._logits(self._blocks(self.model.class_embedding(self.labels)))

    def step(self, codes: Tensor) -> Tensor:
        return self._logits(self._blocks(self.model.embeddings(codes)))

    def move(self) -> None:
        self.modulations.move(self.position)
        super().move()

    def fix(self, row: Tensor, windows: int) -> None:
        super().fix(row, windows)
        self.modulations.fix(row)

    def _blocks(self, embedded: Tensor) -> Tensor:
        """Output (rows, 1, D) of the last block, from the embeddings (rows, D) at the present position."""
        x = (embedded + self.position_embeddings.index_select(0, self.place))[:, None]
        for number, (block, cache) in enumerate(zip(self.blocks, self.caches, strict=True)):
            x = block(x, self.modulations.of(number), cache)
        return x

    def _logits(self, x: Tensor) -> Tensor:
        return self.model.head(x, self.modulations.of(len(self.blocks)))[:, 0]
