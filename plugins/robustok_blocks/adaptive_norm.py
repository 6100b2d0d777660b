"""Blocks of a decoder that is styled by its latents: Open-MAGVIT2 (Luo et al. 2024, arXiv 2409.04410), GigaTok.

Attribute names are those of the published checkpoints.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

_EPS = 1e-6


class AdaptiveGroupNorm(nn.Module):
    """GroupNorm whose scale and shift are linear in the deviation and the mean of a style map's channels.

    The deviation is that of a sample (Bessel's correction), plus epsilon under the root.
    """

    def __init__(self, style_channels: int, channels: int, groups: int) -> None:
        super().__init__()
        self.gn = nn.GroupNorm(groups, channels, eps=_EPS, affine=False)
        self.gamma = nn.Linear(style_channels, channels)
        self.beta = nn.Linear(style_channels, channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape, with a style (B, S, h', w')."""
        values = style.float().flatten(2)
        deviation = (values.var(dim=-1) + _EPS).sqrt()
        return self.gamma(deviation)[..., None, None] * self.gn(x) + self.beta(values.mean(dim=-1))[..., None, None]


class DepthToSpace(nn.Module):
    """Doubles the size of a map: a 3x3 convolution to four times the channels, which become 2 x 2 positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, 2h, 2w)."""
        return rearrange(self.conv1(x), "b (p q c) h w -> b c (h p) (w q)", p=2, q=2)
