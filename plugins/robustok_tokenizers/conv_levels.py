"""The sizes of convolutional networks: levels, each at half the resolution of the one before."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen, validators

from robustok_core.recipe.validators import depth_range, side_range, width_range

#: Channels of levels, relative to each other.
multipliers_range: Any = [validators.min_len(1), validators.deep_iterable(depth_range)]


@frozen(kw_only=True)
class ConvLevels:
    """Options of a network's levels; the defaults are the VQGAN family's at 16 pixels a token."""

    channels: int = field(default=128, validator=width_range, metadata={"doc": "channels at multiplier 1"})
    channel_multipliers: tuple[int, ...] = field(
        default=(1, 1, 2, 2, 4),
        validator=multipliers_range,
        metadata={"doc": "channels of each level, finest first; each level but the last halves the map"},
    )
    num_res_blocks: int = field(default=2, validator=depth_range, metadata={"doc": "residual blocks a level"})
    norm_groups: int = field(
        default=32,
        validator=width_range,
        metadata={"doc": "GroupNorm groups; must divide every level's channels"},
    )

    def __attrs_post_init__(self) -> None:
        self.check_groups(self.channels, *self.level_channels)

    def check_groups(self, *widths: int) -> None:
        """Raises ValueError unless norm_groups divides these numbers of channels."""
        bad = [width for width in widths if width % self.norm_groups]
        if bad:
            raise ValueError(f"norm_groups {self.norm_groups} does not divide the {bad[0]} channels of a level")

    @property
    def level_channels(self) -> list[int]:
        """Channels of each level, finest first."""
        return [self.channels * multiplier for multiplier in self.channel_multipliers]

    @property
    def downsampling(self) -> int:
        """Side, in pixels, of a position of the coarsest level."""
        return int(2 ** (len(self.channel_multipliers) - 1))


@frozen(kw_only=True)
class ImageLevels(ConvLevels):
    """Options of the networks of a tokenizer whose tokens are the positions of the coarsest level."""

    image_size: int = field(
        default=256, validator=side_range, metadata={"doc": "height and width of the images, in pixels"}
    )

    def __attrs_post_init__(self) -> None:
        if self.image_size % self.downsampling:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of {self.downsampling}, the side of a token"
            )
        super().__attrs_post_init__()

    @property
    def side(self) -> int:
        """Tokens per row and per column."""
        return self.image_size // self.downsampling
