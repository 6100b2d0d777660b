"""Fixed sinusoidal position embeddings (Vaswani et al. 2017, arXiv 1706.03762)."""

from __future__ import annotations

import torch
from torch import Tensor

_LONGEST = 10_000.0


def sequence_positions(num_tokens: int, width: int) -> Tensor:
    """(N, width) float32: sine and cosine of each frequency in neighbouring channels.

    Raises:
        ValueError: the width is odd.
    """
    return torch.stack(_waves(torch.arange(num_tokens), width), dim=-1).flatten(1)


def grid_positions(grid: tuple[int, int], width: int) -> Tensor:
    """(h w, width) float32, in raster order: the first half of the channels encodes the column, the second the row.

    Each half holds all sines, then all cosines, as in MAE (He et al. 2021, arXiv 2111.06377).

    Raises:
        ValueError: the width is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"positions on a grid need a width that is a multiple of 4, not {width}")
    rows, columns = (torch.cat(_waves(torch.arange(side), width // 2), dim=1) for side in grid)
    return torch.cat([columns.repeat(grid[0], 1), rows.repeat_interleave(grid[1], dim=0)], dim=1)


def _waves(positions: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Sines and cosines (n, width / 2); angles are float64, because they grow with the number of tokens."""
    if width % 2:
        raise ValueError(f"positions need an even width, not {width}")
    half = width // 2
    frequencies = _LONGEST ** -(torch.arange(half, dtype=torch.float64) / half)
    angles = positions[:, None] * frequencies
    return angles.sin().float(), angles.cos().float()
