"""Fixed positions of tokens: sines and cosines of geometric frequencies (Vaswani et al. 2017, arXiv 1706.03762)."""

from __future__ import annotations

import torch
from torch import Tensor

_LONGEST = 10_000.0


def sequence_positions(num_tokens: int, width: int) -> Tensor:
    """(N, width) float32: sine and cosine of each frequency in neighbouring channels.

    Raises:
        ValueError: where the width is odd.
    """
    return torch.stack(_waves(torch.arange(num_tokens), width), dim=-1).flatten(1)


def grid_positions(grid: tuple[int, int], width: int) -> Tensor:
    """(h w, width) float32, in raster order: the column in the first half of the channels, the row in the second.

    Each half holds all its sines, then all its cosines: the layout of MAE's (He et al. 2021, arXiv 2111.06377).

    Raises:
        ValueError: where the width is no multiple of 4.
    """
    if width % 4:
        raise ValueError(f"positions on a grid need a width that is a multiple of 4, not {width}")
    rows, columns = (torch.cat(_waves(torch.arange(side), width // 2), dim=1) for side in grid)
    return torch.cat([columns.repeat(grid[0], 1), rows.repeat_interleave(grid[1], dim=0)], dim=1)


def _waves(places: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Sines and cosines (n, width / 2); the angles are float64, for they reach the number of tokens."""
    if width % 2:
        raise ValueError(f"positions need an even width, not {width}")
    half = width // 2
    frequencies = _LONGEST ** -(torch.arange(half, dtype=torch.float64) / half)
    angles = places[:, None] * frequencies
    return angles.sin().float(), angles.cos().float()
