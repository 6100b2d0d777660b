"""Open-MAGVIT2 (Luo et al. 2024, arXiv 2409.04410): convolutional networks around lookup-free quantization.

| size | options | parameters |
|---|---|---|
| 16 pixels a token, 2^18 codes | the defaults | 115.1 M |
| 8 pixels a token, 2^18 codes | channel_multipliers = [1, 2, 2, 4] | 112.0 M |

There is no attention. The decoder is styled by its latents at every level, and doubles maps by depth-to-space.
Attribute names are those of the published checkpoints.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from attrs import field, frozen
from torch import Tensor, nn

from robustok_blocks.adaptive_norm import AdaptiveGroupNorm, DepthToSpace
from robustok_blocks.conv import ResidualBlock, group_norm
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.recipe.validators import depth_range
from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.spec import component
from robustok_tokenizers.conv_levels import ImageLevels
from robustok_tokenizers.grid_tokenizer import GridTokenizer


@frozen(kw_only=True)
class OpenMAGVIT2Config(ImageLevels):
    """Options of `open_magvit2`; the defaults are the published ones for 256 x 256 images."""

    num_res_blocks: int = field(
        default=4, validator=depth_range, metadata={"doc": "residual blocks a level, and next to the latents"}
    )
    quantizer: Any = component(
        "quantizer",
        doc="what turns vectors into codes; the networks have as many channels at the latents as it is wide",
        default={"use": "lfq", "width": 18, "lowest_bit_first": True},
    )


class OpenMAGVIT2(GridTokenizer):
    """Convolutional networks around a quantizer, with nothing between them."""

    Config = OpenMAGVIT2Config
    quantizer: Quantizer

    def __init__(self, config: OpenMAGVIT2Config) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.quantizer = config.quantizer.build()
        self.encoder = Encoder(config, self.quantizer.width)
        self.quant_conv, self.post_quant_conv = nn.Identity(), nn.Identity()
        self.pixel_decoder = Decoder(config, self.quantizer.width)
        self.space = LatentSpace(
            kind="discrete",
            num_tokens=config.side**2,
            width=self.quantizer.width,
            codebook_size=self.quantizer.codebook_size,
            grid=(config.side, config.side),
        )

    def encode(self, images: Tensor) -> Latents:
        """Latents of images (B, 3, H, W) in [-1, 1]; `features` is the encoder's output."""
        return self.quantizer.quantize(self.tokens(images))


class Level(nn.Module):
    """Residual blocks at one resolution, then `resample`: a module, by its published name, that changes it."""

    def __init__(self, config: OpenMAGVIT2Config, channels_in: int, channels: int, **resample: nn.Module) -> None:
        super().__init__()
        self.block = residual_blocks(config, channels_in, channels)
        for name, module in resample.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, h, w) to (B, channels, h', w')."""
        for module in self.children():
            x = module(x)
        return x


class Encoder(nn.Module):
    """Images (B, 3, H, W) to maps (B, z_channels, h, w); `down.0` is the finest level."""

    def __init__(self, config: OpenMAGVIT2Config, z_channels: int) -> None:
        super().__init__()
        widths, groups = config.level_channels, config.norm_groups
        self.conv_in = nn.Conv2d(3, config.channels, 3, padding=1, bias=False)
        self.down = nn.ModuleList()
        for source, width in zip([config.channels, *widths[:-1]], widths, strict=True):
            coarsest = len(self.down) == len(widths) - 1
            halve = {} if coarsest else {"downsample": nn.Conv2d(width, width, 3, stride=2, padding=1)}
            self.down.append(Level(config, source, width, **halve))
        self.mid_block = residual_blocks(config, widths[-1], widths[-1])
        self.norm_out = group_norm(widths[-1], groups)
        self.conv_out = nn.Conv2d(widths[-1], z_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, z_channels, h, w)."""
        x = self.conv_in(images)
        for level in self.down:
            x = level(x)
        x = self.mid_block(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    """Maps (B, z_channels, h, w) to images (B, 3, H, W); `up.0` and `adaptive.0` are the finest level."""

    def __init__(self, config: OpenMAGVIT2Config, z_channels: int) -> None:
        super().__init__()
        widths, groups = config.level_channels, config.norm_groups
        sources = [*widths[1:], widths[-1]]
        self.conv_in = nn.Conv2d(z_channels, widths[-1], 3, padding=1)
        self.mid_block = residual_blocks(config, widths[-1], widths[-1])
        self.adaptive = nn.ModuleList(AdaptiveGroupNorm(z_channels, source, groups) for source in sources)
        self.up = nn.ModuleList()
        for source, width in zip(sources, widths, strict=True):
            double = {"upsample": DepthToSpace(width)} if len(self.up) > 0 else {}
            self.up.append(Level(config, source, width, **double))
        self.norm_out = group_norm(widths[0], groups)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, z_channels, h, w) to (B, 3, H, W)."""
        x = self.mid_block(self.conv_in(latents))
        for adaptive, level in zip(reversed(self.adaptive), reversed(self.up), strict=True):
            x = level(adaptive(x, latents))
        return self.conv_out(F.silu(self.norm_out(x)))


def residual_blocks(config: OpenMAGVIT2Config, channels_in: int, channels_out: int) -> nn.Sequential:
    """The residual blocks of a level, whose convolutions have no bias."""
    sources = [channels_in, *[channels_out] * (config.num_res_blocks - 1)]
    return nn.Sequential(*(ResidualBlock(source, channels_out, config.norm_groups, bias=False) for source in sources))
