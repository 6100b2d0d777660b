"""The encoder of a masked autoencoder (He et al. 2022), which has never seen a class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from attrs import field, frozen, validators

from robustok_core.values.download import Download
from robustok_metrics.timm_features import FrozenTimm
from robustok_toolkit.timm_networks import WEIGHTS_DOC, timm_downloads

_NETWORKS = {
    "vit_b16": "vit_base_patch16_224.mae",
    "vit_l16": "vit_large_patch16_224.mae",
    "vit_h14": "vit_huge_patch14_224.mae",
}


@frozen(kw_only=True)
class MAEConfig:
    """The network and its weights."""

    network: Literal["vit_b16", "vit_l16", "vit_h14"] = field(
        default="vit_l16", validator=validators.in_(_NETWORKS), metadata={"doc": "size of the encoder"}
    )
    weights: str = field(default="pretrained", metadata={"doc": WEIGHTS_DOC})


class MAE(FrozenTimm):
    """The class token after the last norm, without masking; width 1,024 for ViT-L. Other sizes have it in the name."""

    Config = MAEConfig

    def __init__(self, config: MAEConfig) -> None:
        name = "mae" if config.network == "vit_l16" else f"mae_{config.network}"
        super().__init__(name, _NETWORKS[config.network], config.weights, None)

    @classmethod
    def downloads(cls, config: MAEConfig) -> Iterable[Download]:
        return timm_downloads(_NETWORKS[config.network], config.weights)
