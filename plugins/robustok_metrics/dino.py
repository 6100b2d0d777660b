"""DINO ViT-S/16 (Caron et al. 2021), the frozen network of the paper's discriminator."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from attrs import field, frozen
from torch import Tensor

from robustok_core.values.download import Download, named_path
from robustok_metrics.frozen_transformer import FrozenTransformer
from robustok_toolkit.timm_networks import WEIGHTS_DOC, timm_downloads

_ARCHITECTURE = "vit_small_patch16_224.dino"
IMAGE_SIZE = 224
_MAP_BLOCKS = (2, 5, 8, 11)


@frozen(kw_only=True)
class DINOConfig:
    """The weights."""

    weights: str = field(default="pretrained", metadata={"doc": WEIGHTS_DOC})


class DINO(FrozenTransformer):
    """Class token of width 384; maps of the first block's input and of the outputs of blocks 2, 5, 8, 11 (from 0).

    The class token is added to every patch token, as in StyleGAN-T's discriminator and its successors, so
    that a head that sees one position also has global information.
    """

    Config = DINOConfig

    def __init__(self, config: DINOConfig) -> None:
        super().__init__("dino", _ARCHITECTURE, config.weights, IMAGE_SIZE)

    @classmethod
    def downloads(cls, config: DINOConfig) -> Iterable[Download]:
        return timm_downloads(_ARCHITECTURE, config.weights)

    @classmethod
    def files(cls, config: DINOConfig) -> Iterable[Path]:
        return named_path(config.weights, "pretrained", "random")

    def maps(self, images: Tensor) -> list[Tensor]:
        """Five maps (B, 384, 14, 14)."""
        tokens = self._tokens(images)
        selected = [tokens[0], *(tokens[block + 1] for block in _MAP_BLOCKS)]
        return [self._maps(layer[:, 1:] + layer[:, :1]) for layer in selected]
