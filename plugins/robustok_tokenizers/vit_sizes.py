"""Options that patch-based tokenizers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from attrs import field, frozen, validators

from robustok_core.recipe.validators import depth_range, ratio_range, require_multiple, side_range, width_range

#: width, depth, num_heads
SIZES: Mapping[str, tuple[int, int, int]] = {
    "S": (512, 8, 8),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "XL": (1152, 28, 16),
}


def size_field(doc: str) -> int | None:
    """A size that overrides that of a preset."""
    return field(
        default=None,
        validator=validators.optional(validators.ge(1)),
        metadata={"doc": f"{doc}; left out: the preset's"},
    )


class PresetSize:
    """What options of a size have: those of a preset, unless they are given.

    Attributes:
        sizes: (width, depth, num_heads) of each preset.
    """

    sizes: ClassVar[Mapping[str, tuple[int, int, int]]]
    preset: str
    width: int | None
    depth: int | None
    num_heads: int | None

    def __attrs_post_init__(self) -> None:
        width, _, heads = self.size
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of num_heads {heads}")

    @property
    def size(self) -> tuple[int, int, int]:
        """Width, depth and heads."""
        width, depth, heads = self.sizes[self.preset]
        return self.width or width, self.depth or depth, self.num_heads or heads


@frozen(kw_only=True)
class StackConfig(PresetSize):
    """Size of a ViT that need not equal that of its counterpart."""

    sizes = SIZES

    preset: Literal["S", "B", "L", "XL"] = field(
        default="B", validator=validators.in_(tuple(SIZES)), metadata={"doc": "a published size"}
    )
    width: int | None = size_field("numbers per token")
    depth: int | None = size_field("blocks")
    num_heads: int | None = size_field("attention heads")


@frozen(kw_only=True)
class PatchConfig:
    """How images are cut into patches."""

    image_size: int = field(
        default=256, validator=side_range, metadata={"doc": "height and width of the images, in pixels"}
    )
    patch_size: int = field(default=16, validator=side_range, metadata={"doc": "side of a patch, in pixels"})

    def __attrs_post_init__(self) -> None:
        require_multiple(self, "image_size", "patch_size")

    @property
    def side(self) -> int:
        """Patches per row and per column."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches per image."""
        return self.side**2


@frozen(kw_only=True)
class ViTPairConfig(PatchConfig):
    """The size of an encoder and a decoder of equal size; the defaults are ViT-B's."""

    width: int = field(default=768, validator=width_range, metadata={"doc": "numbers per token in the ViTs"})
    depth: int = field(default=12, validator=depth_range, metadata={"doc": "blocks of each ViT"})
    num_heads: int = field(default=12, validator=width_range, metadata={"doc": "attention heads"})
    mlp_ratio: float = field(
        default=4.0,
        validator=ratio_range,
        metadata={"doc": "hidden width of the MLPs over width"},
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        require_multiple(self, "width", "num_heads")
