"""The encoder and decoder of the VQGAN family (Esser et al. 2021, arXiv 2012.09841), also for small images.

The defaults are those published by LlamaGen (arXiv 2406.06525). Latent diffusion, VA-VAE, IBQ and VQGAN-LC use the
same networks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_blocks.conv import Downsample, ResidualBlock, SpatialAttention, Upsample, group_norm
from robustok_core.recipe.validators import depth_range, side_range, width_range
from robustok_tokenizers.conv_levels import ImageLevels, multipliers_range

_levels: Any = validators.deep_iterable(validators.ge(0))


@frozen(kw_only=True)
class ConvNetworkConfig(ImageLevels):
    """Options of a pair of convolutional networks; the defaults are LlamaGen's at 16 pixels a token."""

    decoder_channel_multipliers: tuple[int, ...] | None = field(
        default=None,
        validator=validators.optional(multipliers_range),
        metadata={"doc": "the decoder's channel_multipliers, finest level first; left out: the encoder's"},
    )
    num_res_blocks: int = field(
        default=2,
        validator=depth_range,
        metadata={"doc": "residual blocks a level (the decoder has one more)"},
    )
    attention: bool = field(
        default=True, metadata={"doc": "self-attention over all positions, at attention_levels and in the middle"}
    )
    attention_levels: tuple[int, ...] | None = field(
        default=None,
        validator=validators.optional(_levels),
        metadata={"doc": "levels with attention after each residual block; 0 is the finest; left out: the coarsest"},
    )
    middle: bool = field(
        default=True, metadata={"doc": "two more residual blocks at the coarsest level, on each side of the latents"}
    )
    stem_patch: int = field(
        default=1,
        validator=side_range,
        metadata={"doc": "side of the pixel patches that the first level reads and outputs; 2 quarters its cost"},
    )
    z_channels: int = field(
        default=256,
        validator=width_range,
        metadata={"doc": "channels between the networks and the latents"},
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.check_groups(*self.decoder_level_channels)
        levels = len(self.channel_multipliers)
        if len(self.decoder_level_channels) != levels:
            raise ValueError(
                f"the encoder has {levels} levels and the decoder {len(self.decoder_level_channels)}: "
                "images would change their size"
            )
        if not self.attention and self.attention_levels:
            raise ValueError(f"attention_levels {list(self.attention_levels)} have no effect without attention")
        if max(self.attention_levels or (0,)) >= levels:
            raise ValueError(f"attention_levels {list(self.attention_levels or ())}: there are only {levels} levels")

    @property
    def downsampling(self) -> int:
        """Side of a token in pixels."""
        return self.stem_patch * super().downsampling

    @property
    def decoder_level_channels(self) -> list[int]:
        """Channels of each level of the decoder, finest first."""
        multipliers = self.decoder_channel_multipliers
        return self.level_channels if multipliers is None else [self.channels * factor for factor in multipliers]

    def attends(self, level: int) -> bool:
        """Whether a level, of which 0 is the finest, has attention after its residual blocks."""
        levels = (len(self.channel_multipliers) - 1,) if self.attention_levels is None else self.attention_levels
        return self.attention and level in levels


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
    """Images (B, 3, H, W) to maps (B, z_channels, h, w), or of another number of output channels."""

    def __init__(self, config: ConvNetworkConfig, channels_out: int | None = None) -> None:
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
                attend=config.attends(level),
                downsample=level < len(widths) - 1,
            )
            for level, (source, width) in enumerate(zip(sources, widths, strict=True))
        )
        self.mid = middle(widths[-1], config)
        self.norm_out = group_norm(widths[-1], config.norm_groups)
        self.conv_out = nn.Conv2d(widths[-1], channels_out or config.z_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, output channels, h, w)."""
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
        widths = config.decoder_level_channels[::-1]
        self.conv_in = nn.Conv2d(config.z_channels, widths[0], 3, padding=1)
        self.mid = middle(widths[0], config)
        sources = [widths[0], *widths[:-1]]
        self.conv_blocks = nn.ModuleList(
            Level(
                source,
                width,
                config.num_res_blocks + 1,
                config.norm_groups,
                attend=config.attends(len(widths) - 1 - level),
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
