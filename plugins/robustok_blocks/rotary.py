"""Rotary position embedding of tokens on a grid (Su et al. 2021, arXiv 2104.09864)."""

from __future__ import annotations

import torch
from torch import Tensor


def check_head_width(head_width: int) -> None:
    """Checks a head's width: half of its channels rotate with the row, half with the column, in pairs.

    Raises:
        ValueError: the width of a head is not a multiple of 4.
    """
    if head_width % 4:
        raise ValueError(f"rotary positions on a grid need heads whose width is a multiple of 4, not {head_width}")


def grid_rotations(grid: tuple[int, int], head_width: int, base: float = 10_000.0) -> Tensor:
    """(h w, head_width / 2, 2) cosines and sines, in raster order.

    The first half of the pairs rotates with the row, the second with the column.

    Raises:
        ValueError: the width of a head is not a multiple of 4.
    """
    check_head_width(head_width)
    frequencies = base ** -(torch.arange(0, head_width // 2, 2) / (head_width // 2))
    rows, columns = (torch.arange(side)[:, None] * frequencies for side in grid)
    angles = torch.cat(
        [rows.repeat_interleave(grid[1], dim=0), columns.repeat(grid[0], 1)], dim=1
    )  # (h w, head_width / 2)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def rotate(x: Tensor, rotations: Tensor) -> Tensor:
    """Rotates neighbouring pairs of channels of x (..., N, d) by rotations (N, d / 2, 2).

    Computes in float32 and returns x's dtype.
    """
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = rotations.unbind(-1)
    rotated = torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1)
    return rotated.flatten(-2).to(x.dtype)
