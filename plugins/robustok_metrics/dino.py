"""DINO ViT-S/16 (Caron et al. 2021), the frozen body of the paper's discriminator."""

from __future__ import annotations

from attrs import field, frozen
from torch import Tensor

from robustok_metrics.frozen_transformer import FrozenTransformer
from robustok_toolkit.timm_networks import WEIGHTS_DOC

IMAGE_SIZE = 224
_MAP_BLOCKS = (2, 5, 8, 11)


@frozen(kw_only=True)
class DINOConfig:
    """Where the weights are."""

    weights: str = field(default="pretrained", metadata={"doc": WEIGHTS_DOC})


class DINO(FrozenTransformer):
    """Class token of 384 numbers; maps of what the blocks read first and of what blocks 2, 5, 8, 11 (from 0) write.

    The class token is added to every patch's, as in the discriminators of StyleGAN-T and its descendants:
    a head that looks at one place still knows what the image is of.
    """

    Config = DINOConfig

    def __init__(self, config: DINOConfig) -> None:
        super().__init__("dino", "vit_small_patch16_224.dino", config.weights, IMAGE_SIZE)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Five maps (B, 384, 14, 14)."""
        tokens = self._tokens(images)
        chosen = [tokens[0], *(tokens[block + 1] for block in _MAP_BLOCKS)]
        return [self._maps(held[:, 1:] + held[:, :1]) for held in chosen]
