"""A discriminator that scores overlapping patches (PatchGAN, Isola et al. 2017)."""

from __future__ import annotations

import math
from typing import Literal

from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.recipe.validators import depth_range, width_range

_WIDEST = 8  # the channels double at each level up to this multiple of `width`


@frozen(kw_only=True)
class PatchConfig:
    """Options of the patch discriminator."""

    layers: int = field(
        default=3,
        validator=depth_range,
        metadata={"doc": "levels that halve the image; each widens the patch"},
    )
    width: int = field(default=64, validator=width_range, metadata={"doc": "channels of the first level"})
    norm: Literal["group", "batch", "none"] = field(
        default="group",
        validator=validators.in_(("group", "batch", "none")),
        metadata={
            "doc": "normalisation of the inner levels; `group` is within an image, so independent of the batch; "
            "`batch` is that of published discriminators"
        },
    )

    @property
    def smallest_image(self) -> int:
        """The smallest image side, in pixels, that yields at least one patch."""
        return 3 * 2**self.layers


class PatchDiscriminator(nn.Module):
    """4 x 4 convolutions: `layers` of stride 2, one of stride 1, and one with a single output channel."""

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        widths = [config.width * min(2**level, _WIDEST) for level in range(config.layers + 1)]
        levels = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for level in range(1, config.layers + 1):
            stride = 2 if level < config.layers else 1
            levels += _level(widths[level - 1], widths[level], stride, config.norm)
        self.levels = nn.Sequential(*levels, nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.apply(_initialise)

    def forward(self, images: Tensor) -> list[Tensor]:
        """One (B, positions) tensor of logits for images (B, 3, H, W) in [-1, 1]."""
        return [self.levels(images).flatten(1)]


def _level(channels_in: int, channels_out: int, stride: int, norm: str) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, 4, stride=stride, padding=1, bias=norm == "none")
    norms = {"group": nn.GroupNorm(math.gcd(32, channels_out), channels_out), "batch": nn.BatchNorm2d(channels_out)}
    return [convolution, *([norms[norm]] if norm in norms else []), nn.LeakyReLU(0.2)]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
