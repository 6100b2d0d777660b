"""Rotary position embedding with learned directions (Heo et al. 2024, RoPE-Mixed, arXiv 2403.13298).

Each pair of channels of each head rotates with its own mixture of column and row; in axial rotary position
embedding it rotates with one of the two.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustok_blocks.rotary import check_head_width, grid_rotations
from robustok_core.values.full_precision import full_precision


def random_frequencies(depth: int, num_heads: int, head_width: int, base: float) -> Tensor:
    """(2, depth, heads head_width / 2): frequencies for columns and for rows, in a random direction for each head.

    Half of a head's pairs rotate along its direction, the others across it, at axial frequencies.

    Raises:
        ValueError: the width of a head is not a multiple of 4.
    """
    check_head_width(head_width)
    magnitudes = base ** -(torch.arange(0, head_width, 4) / head_width)  # (head_width / 4,)
    along = 2.0 * math.pi * torch.rand(depth, num_heads, 1)
    directions = [along, along + math.pi / 2.0]
    columns = torch.cat([magnitudes * angle.cos() for angle in directions], dim=-1)  # (depth, heads, head_width / 2)
    rows = torch.cat([magnitudes * angle.sin() for angle in directions], dim=-1)
    return torch.stack([columns.flatten(1), rows.flatten(1)])


def mixed_rotations(frequencies: Tensor, grid: tuple[int, int], num_heads: int) -> Tensor:
    """(heads, h w, head_width / 2, 2) cosines and sines for one layer's frequencies (2, heads head_width / 2)."""
    height, width = grid
    positions = torch.arange(height * width, device=frequencies.device)
    columns, rows = (positions % width)[:, None], (positions // width)[:, None]
    with full_precision(frequencies.device):
        angles = columns * frequencies[0].float() + rows * frequencies[1].float()  # (h w, heads head_width / 2)
        angles = angles.unflatten(1, (num_heads, -1)).transpose(0, 1)
        return torch.stack([angles.cos(), angles.sin()], dim=-1)


def axial_rotations(grid: tuple[int, int], head_width: int, base: float) -> Tensor:
    """(h w, head_width / 2, 2) like `grid_rotations`, but the first half of the pairs rotates with the column."""
    rows, columns = grid_rotations(grid, head_width, base).chunk(2, dim=1)
    return torch.cat([columns, rows], dim=1)


def still_around(rotations: Tensor, before: int, after: int) -> Tensor:
    """Pads rotations (..., n, d, 2) with identity rotations, giving (..., before + n + after, d, 2)."""

    def identity(count: int) -> Tensor:
        shape = (*rotations.shape[:-3], count, rotations.shape[-2])
        return torch.stack([rotations.new_ones(shape), rotations.new_zeros(shape)], dim=-1)

    return torch.cat([identity(before), rotations, identity(after)], dim=-3)
