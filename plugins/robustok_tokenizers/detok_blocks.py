"""Transformer blocks of l-DeTok's released tokenizers (Yang et al. 2025).

Queries and keys are turned by position almost as with rotary positions, but the two channels of a pair turn by
different angles, so that lengths change. Released weights are used to it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustok_blocks.rotary import check_head_width
from robustok_blocks.rotary_transformer import GatedRotaryBlock, RotaryAttention
from robustok_blocks.swiglu import GatedMlp

#: Turns from one border of the image to the other, of the fastest and the slowest channel.
_MOST_TURNS, _FEWEST_TURNS = 7.0, 7e-4


def channel_rotations(grid: tuple[int, int], head_width: int) -> Tensor:
    """(h w, head_width, 2) cosine and sine of the angle of each channel, in raster order.

    The first half of the channels turns with the row, the second with the column. The frequencies of a half are
    geometric and follow each other twice, so a pair of neighbours has two of them.

    Raises:
        ValueError: the width of a head is not a multiple of 4.
    """
    check_head_width(head_width)
    count = head_width // 4
    falls = torch.arange(count) / max(1, count - 1)
    turns = _MOST_TURNS * (_FEWEST_TURNS / _MOST_TURNS) ** falls
    half = 2.0 * math.pi * torch.cat([turns, turns])
    rows, columns = (torch.linspace(0.0, 1.0, side)[:, None] * half for side in grid)
    angles = torch.cat([rows.repeat_interleave(grid[1], dim=0), columns.repeat(grid[0], 1)], dim=1)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def turn_channels(x: Tensor, rotations: Tensor) -> Tensor:
    """Turns neighbouring pairs of channels of x (..., N, d) by rotations (N, d, 2), one angle a channel.

    Computes in float32 and returns x's dtype.
    """
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    crossed = torch.stack([-odd, even], dim=-1).flatten(-2)
    cosine, sine = rotations.unbind(-1)
    return (x.float() * cosine + crossed * sine).to(x.dtype)


class DeTokAttention(RotaryAttention):
    """Self-attention whose queries and keys are turned by an angle per channel."""

    turn = staticmethod(turn_channels)


class DeTokBlock(GatedRotaryBlock):
    """RMS norms, this attention, and a gated MLP with biases."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__(width, num_heads)
        self.attn = DeTokAttention(width, num_heads)
        self.mlp = GatedMlp(width, int(2 / 3 * 4 * width))
