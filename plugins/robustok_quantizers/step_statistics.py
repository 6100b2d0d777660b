"""What the micro-batches of one optimiser step tell about a codebook, exact over all processes."""

from __future__ import annotations

import torch
from attrs import define, field
from torch import Tensor

from robustok_training.distributed import all_sum, rank, world_size

#: Sums are kept as integers of 2**-32: integer addition is exact, so no order of tokens, micro-batches
#: or processes changes a bit. With |z| <= 2**10 a code may be hit 2**21 times a step.
_STEPS_PER_UNIT = 2.0**32
_LARGEST = 2.0**10


@define(eq=False)
class StepStatistics:
    """Hits and sums by code over a step's micro-batches, and the vectors themselves; on this process.

    Attributes:
        counts: (K,) int64 hits by code.
        fixed_sums: (K, D) int64, sums of the vectors by code in steps of 2**-32.
        rows: the vectors (rows, D) of each micro-batch.
    """

    counts: Tensor | None = None
    fixed_sums: Tensor | None = None
    rows: list[Tensor] = field(factory=list)

    @torch.no_grad()
    def count(self, codes: Tensor, codebook_size: int) -> None:
        """Takes in the codes (rows,) of a micro-batch."""
        if self.counts is None:
            self.counts = torch.zeros(codebook_size, dtype=torch.int64, device=codes.device)
        self.counts.scatter_add_(0, codes, torch.ones_like(codes))

    @torch.no_grad()
    def add_up(self, vectors: Tensor, codes: Tensor, codebook_size: int) -> None:
        """Takes in the vectors (rows, D) of a micro-batch, for their sums by code (rows,)."""
        if self.fixed_sums is None:
            self.fixed_sums = torch.zeros(codebook_size, vectors.shape[1], dtype=torch.int64, device=vectors.device)
        fixed = (vectors.detach().clamp(-_LARGEST, _LARGEST) * _STEPS_PER_UNIT).round().to(torch.int64)
        self.fixed_sums.index_add_(0, codes, fixed)

    def keep(self, vectors: Tensor) -> None:
        """Takes in the vectors (rows, D) of a micro-batch, to `pick` from."""
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
        """(<= count, D) distinct vectors of the step, the same on every process however the step was cut.

        The step's rows are numbered micro-batch by micro-batch and within it process by process, as one
        process would have read them; each process fills in the rows that it holds.
        """
        own = torch.zeros(len(self.rows), world_size(), dtype=torch.int64, device=self.rows[0].device)
        own[:, rank()] = torch.tensor([len(part) for part in self.rows], device=own.device)
        ends = all_sum(own).flatten().cumsum(0)
        chosen = torch.randperm(int(ends[-1]), generator=generator)[:count].to(own.device)
        found = torch.zeros(len(chosen), self.rows[0].shape[1], device=own.device)
        for number, part in enumerate(self.rows):
            place = chosen - (ends[number * world_size() + rank()] - len(part))
            mine = (place >= 0) & (place < len(part))
            found[mine] = part[place[mine]]
        return all_sum(found)
