"""The encoder and decoder of the VQGAN family, as published by LlamaGen (arXiv 2406.06525), also for small images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_blocks.conv import Downsample, ResidualBlock, SpatialAttention, Upsample, group_norm
from robustok_core.recipe.validators import depth_range, side_range, width_range


@frozen(kw_only=True)
class ConvNetworkConfig:
    """Options of a pair of convolutional networks; the defaults are LlamaGen's at 16 pixels a token."""

    image_size: int = field(
        default=256, validator=side_range, metadata={"doc": "height and width of the images, in pixels"}
    )
    channels: int = field(default=128, validator=width_range, metadata={"doc": "channels at multiplier 1"})
    channel_multipliers: tuple[int, ...] = field(
        default=(1, 1, 2, 2, 4),
        validator=[validators.min_len(1), validators.deep_iterable(depth_range)],
        metadata={"doc": "channels of each level, finest first; each level but the last halves the map"},
    )
    num_res_blocks: int = field(
        default=2,
        validator=depth_range,
        metadata={"doc": "residual blocks a level (the decoder has one more)"},
    )
    attention: bool = field(default=True, metadata={"doc": "self-attention over all positions at the coarsest level"})
    middle: bool = field(
        default=True, metadata={"doc": "two more residual blocks at the coarsest level, on each side of the latents"}
    )
    stem_patch: int = field(
        default=1,
        validator=side_range,
        metadata={"doc": "side of the pixel patches that the first level reads and outputs; 2 quarters its cost"},
    )
    norm_groups: int = field(
        default=32,
        validator=width_range,
        metadata={"doc": "GroupNorm groups; must divide every level's channels"},
    )
    z_channels: int = field(
        default=256,
        validator=width_range,
        metadata={"doc": "channels between the networks and the latents"},
    )

    def __attrs_post_init__(self) -> None:
        if self.image_size % self.downsampling:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of {self.downsampling}, "
                f"the side of a token with stem_patch {self.stem_patch} and {len(self.channel_multipliers)} levels"
            )
        bad = [width for width in (self.channels, *self.level_channels) if width % self.norm_groups]
        if bad:
            raise ValueError(f"norm_groups {self.norm_groups} does not divide the {bad[0]} channels of a level")

    @property
    def downsampling(self) -> int:
        """Side of a token in pixels."""
        return self.stem_patch * 2 ** (len(self.channel_multipliers) - 1)

    @property
    def level_channels(self) -> list[int]:
        """Channels of each level, finest first."""
        return [self.channels * multiplier for multiplier in self.channel_multipliers]

    @property
    def side(self) -> int:
        """Tokens per row and per column."""
        return self.image_size // self.downsampling


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention if `attend`, then resampling."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        num_blocks: int,
        groups: int,
        *,
        attend: bool,
        downsample: bool = False,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        sources = [channels_in, *[channels] * (num_blocks - 1)]
        self.res = nn.ModuleList(ResidualBlock(source, channels, groups) for source in sources)
        self.attn = nn.ModuleList(SpatialAttention(channels, groups) for _ in sources if attend)
        if downsample:
            self.downsample = Downsample(channels)
        if upsample:
            self.upsample = Upsample(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, h, w) to (B, channels, h', w')."""
        for number, block in enumerate(self.res):
            x = block(x)
            if self.attn:
                x = self.attn[number](x)
        for resample in ("downsample", "upsample"):
            if hasattr(self, resample):
                x = getattr(self, resample)(x)
        return x


def middle(channels: int, config: ConvNetworkConfig) -> nn.ModuleList:
    """The blocks at the coarsest level, next to the latents."""
    groups = config.norm_groups
    if not config.middle:
        return nn.ModuleList()
    between = SpatialAttention(channels, groups) if config.attention else nn.Identity()
    return nn.ModuleList(
        [ResidualBlock(channels, channels, groups), between, ResidualBlock(channels, channels, groups)]
    )


class ConvEncoder(nn.Module):
    """Images (B, 3, H, W) to maps (B, z_channels, h, w)."""

    def __init__(self, config: ConvNetworkConfig) -> None:
        super().__init__()
        self.stem_patch = config.stem_patch
        widths = config.level_channels
        self.conv_in = nn.Conv2d(3 * config.stem_patch**2, config.channels, 3, padding=1)
        sources = [config.channels, *widths[:-1]]
        self.conv_blocks = nn.ModuleList(
            Level(
                source,
                width,
                config.num_res_blocks,
                config.norm_groups,
                attend=config.attention and level == len(widths) - 1,
                downsample=level < len(widths) - 1,
            )
            for level, (source, width) in enumerate(zip(sources, widths, strict=True))
        )
        self.mid = middle(widths[-1], config)
        self.norm_out = group_norm(widths[-1], config.norm_groups)
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, z_channels, h, w)."""
        x = self.conv_in(F.pixel_unshuffle(images, self.stem_patch).contiguous(memory_format=torch.channels_last))
        for level in self.conv_blocks:
            x = level(x)
        for block in self.mid:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class ConvDecoder(nn.Module):
    """Maps (B, z_channels, h, w) to images (B, 3, H, W): the encoder mirrored, coarsest level first."""

    def __init__(self, config: ConvNetworkConfig) -> None:
        super().__init__()
        self.stem_patch = config.stem_patch
        widths = config.level_channels[::-1]
        self.conv_in = nn.Conv2d(config.z_channels, widths[0], 3, padding=1)
        self.mid = middle(widths[0], config)
        sources = [widths[0], *widths[:-1]]
        self.conv_blocks = nn.ModuleList(
            Level(
                source,
                width,
                config.num_res_blocks + 1,
                config.norm_groups,
                attend=config.attention and level == 0,
                upsample=level < len(widths) - 1,
            )
            for level, (source, width) in enumerate(zip(sources, widths, strict=True))
        )
        self.norm_out = group_norm(widths[-1], config.norm_groups)
        self.conv_out = nn.Conv2d(widths[-1], 3 * config.stem_patch**2, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, z_channels, h, w) to (B, 3, H, W)."""
        x = self.conv_in(hidden)
        for block in self.mid:
            x = block(x)
        for level in self.conv_blocks:
            x = level(x)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), self.stem_patch)
