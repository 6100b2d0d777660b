"""Codebook statistics of one optimiser step's micro-batches, exact over all processes."""

from __future__ import annotations

import torch
from attrs import define, field
from torch import Tensor

from robustok_training.distributed import all_sum, rank, world_size

#: Sums are integers in units of 2**-32: integer addition is exact, so the order of tokens, micro-batches and
#: processes does not change a bit. With |z| <= 2**10 a code can be hit 2**21 times per step.
_STEPS_PER_UNIT = 2.0**32
_LARGEST = 2.0**10


@define(eq=False)
class StepStatistics:
    """Hits and vector sums per code over a step's micro-batches, and the vectors themselves, on this process.

    Attributes:
        counts: (K,) int64 hits per code.
        fixed_sums: (K, D) int64, sums of the vectors per code in units of 2**-32.
        rows: the vectors (rows, D) of each micro-batch.
    """

    counts: Tensor | None = None
    fixed_sums: Tensor | None = None
    rows: list[Tensor] = field(factory=list)

    @torch.no_grad()
    def count(self, codes: Tensor, codebook_size: int) -> None:
        """Counts the codes (rows,) of a micro-batch."""
        if self.counts is None:
            self.counts = torch.zeros(codebook_size, dtype=torch.int64, device=codes.device)
        self.counts.scatter_add_(0, codes, torch.ones_like(codes))

    @torch.no_grad()
    def add_up(self, vectors: Tensor, codes: Tensor, codebook_size: int) -> None:
        """Adds the vectors (rows, D) of a micro-batch to the sums of their codes (rows,)."""
        if self.fixed_sums is None:
            self.fixed_sums = torch.zeros(codebook_size, vectors.shape[1], dtype=torch.int64, device=vectors.device)
        fixed = (vectors.detach().clamp(-_LARGEST, _LARGEST) * _STEPS_PER_UNIT).round().to(torch.int64)
        self.fixed_sums.index_add_(0, codes, fixed)

    def keep(self, vectors: Tensor) -> None:
        """Stores the vectors (rows, D) of a micro-batch for `pick`."""
        self.rows.append(vectors.detach())

    def total_counts(self) -> Tensor:
        """(K,) int64, over all processes."""
        assert self.counts is not None
        return all_sum(self.counts)

    def total_sums(self) -> Tensor:
        """(K, D) float32, over all processes."""
        assert self.fixed_sums is not None
        return (all_sum(self.fixed_sums).to(torch.float64) / _STEPS_PER_UNIT).float()

    def pick(self, count: int, generator: torch.Generator) -> Tensor:
        """Picks (<= count, D) distinct vectors of the step, the same on every process however the step is split.

        The step's rows are numbered by micro-batch, then by process, as a single process would read them; each
        process fills in the rows that it holds.
        """
        row_counts = torch.zeros(len(self.rows), world_size(), dtype=torch.int64, device=self.rows[0].device)
        row_counts[:, rank()] = torch.tensor([len(vectors) for vectors in self.rows], device=row_counts.device)
        ends = all_sum(row_counts).flatten().cumsum(0)
        chosen = torch.randperm(int(ends[-1]), generator=generator)[:count].to(row_counts.device)
        picked = torch.zeros(len(chosen), self.rows[0].shape[1], device=row_counts.device)
        for micro_batch, vectors in enumerate(self.rows):
            position = chosen - (ends[micro_batch * world_size() + rank()] - len(vectors))
            is_local = (position >= 0) & (position < len(vectors))
            picked[is_local] = vectors[position[is_local]]
        return all_sum(picked)
