"""DINOv2 ViT-B/14 (Oquab et al. 2023), the teacher of the paper's semantic regularisation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from attrs import field, frozen
from torch import Tensor

from robustok_core.values.download import Download, named_path
from robustok_metrics.frozen_transformer import FrozenTransformer
from robustok_toolkit.timm_networks import WEIGHTS_DOC, timm_downloads

_ARCHITECTURE = "vit_base_patch14_dinov2.lvd142m"
PATCH_SIZE = 14
STANDARD_IMAGE_SIZE = 224
_MAP_BLOCKS = (2, 5, 8, 11)


def _whole_patches(_: object, __: object, value: int) -> None:
    if value % PATCH_SIZE or value < PATCH_SIZE:
        raise ValueError(f"must be a multiple of {PATCH_SIZE}, the side of a patch")


@frozen(kw_only=True)
class DINOv2Config:
    """The weights and the input size."""

    weights: str = field(default="pretrained", metadata={"doc": WEIGHTS_DOC})
    image_size: int = field(
        default=STANDARD_IMAGE_SIZE,
        validator=_whole_patches,
        metadata={"doc": "side, in pixels, that images are resized to"},
    )


class DINOv2(FrozenTransformer):
    """Class token of width 768; maps are the patch tokens after blocks 2, 5, 8 and 11 (counted from 0).

    Another `image_size` than 224 is part of the name: "dinov2_at_448".
    """

    Config = DINOv2Config

    def __init__(self, config: DINOv2Config) -> None:
        size = "" if config.image_size == STANDARD_IMAGE_SIZE else f"_at_{config.image_size}"
        super().__init__(f"dinov2{size}", _ARCHITECTURE, config.weights, config.image_size)

    @classmethod
    def downloads(cls, config: DINOv2Config) -> Iterable[Download]:
        return timm_downloads(_ARCHITECTURE, config.weights)

    @classmethod
    def files(cls, config: DINOv2Config) -> Iterable[Path]:
        return named_path(config.weights, "pretrained", "random")

    def maps(self, images: Tensor) -> list[Tensor]:
        """Four maps (B, 768, h, w), 16 x 16 at 224 pixels."""
        tokens = self._tokens(images)
        return [self._maps(tokens[block + 1][:, 1:]) for block in _MAP_BLOCKS]
