"""Options that patch-based tokenizers share."""

from __future__ import annotations

from attrs import field, frozen

from robustok_core.recipe.validators import depth_range, ratio_range, require_multiple, side_range, width_range


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
