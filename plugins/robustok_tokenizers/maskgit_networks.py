"""The encoder and decoder of MaskGIT's VQGAN (Chang et al. 2022, arXiv 2202.04200), without attention.

Attribute names are those of the published PyTorch checkpoint. Its convolutions have no bias inside the residual
blocks, and a block's shortcut reads the output of its branch, not its input; both are kept for released weights.
"""

from __future__ import annotations

import torch.nn.functional as F
from attrs import field, frozen
from torch import Tensor, nn

from robustok_blocks.conv import group_norm
from robustok_core.recipe.validators import width_range
from robustok_tokenizers.conv_levels import ConvLevels


@frozen(kw_only=True)
class MaskGITConfig(ConvLevels):
    """Options of one network of MaskGIT's VQGAN."""

    z_channels: int = field(default=256, validator=width_range, metadata={"doc": "channels of the coarsest map"})


class MaskGITBlock(nn.Module):
    """Norm, swish and 3x3 convolution, twice; the shortcut to more channels reads their output."""

    def __init__(self, channels_in: int, channels_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(channels_in, groups)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm2 = group_norm(channels_out, groups)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        if channels_in != channels_out:
            self.nin_shortcut = nn.Conv2d(channels_out, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, h, w) to (B, channels_out, h, w)."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return hidden + (self.nin_shortcut(hidden) if hasattr(self, "nin_shortcut") else x)


class DownLevel(nn.Module):
    """Residual blocks at one resolution."""

    def __init__(self, channels_in: int, channels: int, num_blocks: int, groups: int) -> None:
        super().__init__()
        sources = [channels_in, *[channels] * (num_blocks - 1)]
        self.block = nn.ModuleList(MaskGITBlock(source, channels, groups) for source in sources)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, h, w) to (B, channels, h, w)."""
        for block in self.block:
            x = block(x)
        return x


class MaskGITEncoder(nn.Module):
    """Images (B, 3, H, W) to maps (B, z_channels, h, w); `down.0` is the finest level."""

    def __init__(self, config: ConvLevels, z_channels: int) -> None:
        super().__init__()
        widths, groups = config.level_channels, config.norm_groups
        self.conv_in = nn.Conv2d(3, config.channels, 3, padding=1, bias=False)
        sources = [config.channels, *widths[:-1]]
        self.down = nn.ModuleList(
            DownLevel(source, width, config.num_res_blocks, groups)
            for source, width in zip(sources, widths, strict=True)
        )
        self.mid = nn.ModuleList(MaskGITBlock(widths[-1], widths[-1], groups) for _ in range(config.num_res_blocks))
        self.norm_out = group_norm(widths[-1], groups)
        self.conv_out = nn.Conv2d(widths[-1], z_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, z_channels, h, w)."""
        x = self.conv_in(images)
        for number, level in enumerate(self.down):
            x = level(x if number == 0 else F.avg_pool2d(x, 2))
        for block in self.mid:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class UpLevel(nn.Module):
    """Residual blocks at one resolution; all levels but the finest then double it."""

    def __init__(self, channels_in: int, channels: int, num_blocks: int, groups: int, *, upsample: bool) -> None:
        super().__init__()
        sources = [channels_in, *[channels] * (num_blocks - 1)]
        self.block = nn.ModuleList(MaskGITBlock(source, channels, groups) for source in sources)
        if upsample:
            self.upsample_conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, h, w) to (B, channels, h', w')."""
        for block in self.block:
            x = block(x)
        if hasattr(self, "upsample_conv"):
            x = self.upsample_conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


class MaskGITDecoder(nn.Module):
    """Maps (B, z_channels, h, w) to images; `up.0` is the finest level."""

    def __init__(self, config: ConvLevels, z_channels: int) -> None:
        super().__init__()
        widths, groups = config.level_channels, config.norm_groups
        self.conv_in = nn.Conv2d(z_channels, widths[-1], 3, padding=1)
        self.mid = nn.ModuleList(MaskGITBlock(widths[-1], widths[-1], groups) for _ in range(config.num_res_blocks))
        sources = [*widths[1:], widths[-1]]
        self.up = nn.ModuleList(
            UpLevel(source, width, config.num_res_blocks, groups, upsample=level > 0)
            for level, (source, width) in enumerate(zip(sources, widths, strict=True))
        )
        self.norm_out = group_norm(widths[0], groups)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, z_channels, h, w) to (B, 3, H, W)."""
        x = self.conv_in(hidden)
        for block in self.mid:
            x = block(x)
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))
