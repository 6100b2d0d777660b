"""Distance between images in the feature maps of a frozen network (paper section 3, LPIPS)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.kinds.loss import Loss, Reconstruction
from robustok_core.values.download import Download, named_path
from robustok_core.values.ignored import refuse_ignored
from robustok_core.values.spec import Spec, component, specs_in
from robustok_losses.frozen import FrozenMaps
from robustok_losses.lpips_vgg import OTHERWISE, LpipsVgg
from robustok_toolkit.lpips_network import lpips_downloads


@frozen(kw_only=True)
class PerceptualConfig:
    """Options of the perceptual loss."""

    weight: float = field(default=1.0, validator=validators.ge(0), metadata={"doc": "factor of the term"})
    network: Literal["lpips_vgg", "features"] = field(
        default="lpips_vgg",
        validator=validators.in_(("lpips_vgg", "features")),
        metadata={"doc": "`lpips_vgg`: LPIPS with VGG-16; `features`: distance between the maps of `features`"},
    )
    weights: str | None = field(
        default=None,
        metadata={"doc": "file with torchvision's VGG-16 weights for lpips_vgg; downloaded once if not given"},
    )
    features: Spec = component(
        "features",
        doc='network for `network = "features"`; do not measure the tokenizer with the same one',
        default={"use": "efficientnet_lite0"},
    )
    layers: tuple[int, ...] | None = field(
        default=None, metadata={"doc": "which maps of `features` to compare, 0 the shallowest; all if not given"}
    )

    def __attrs_post_init__(self) -> None:
        maps = self.network == "features"
        refuse_ignored(self, "weights", unless=not maps, needs='network = "lpips_vgg"')
        refuse_ignored(self, "features", "layers", unless=maps, needs='network = "features"')


class Perceptual(Loss):
    """LPIPS or the distance between feature maps, averaged over the images."""

    Config = PerceptualConfig
    also_called = ("lpips", "vgg")
    compares_images = True

    def __init__(self, config: PerceptualConfig) -> None:
        super().__init__()
        self.config = config
        self.distance = LpipsVgg(config.weights) if config.network == "lpips_vgg" else _feature_distance(config)

    @classmethod
    def downloads(cls, config: PerceptualConfig) -> Iterable[Download]:
        return lpips_downloads("vgg", config.weights, otherwise=OTHERWISE) if config.network == "lpips_vgg" else ()

    @classmethod
    def files(cls, config: PerceptualConfig) -> Iterable[Path]:
        return named_path(config.weights) if config.network == "lpips_vgg" else ()

    @classmethod
    def parts(cls, config: PerceptualConfig) -> Iterable[tuple[tuple[str, ...], Spec]]:
        return specs_in(config) if config.network == "features" else ()

    def forward(self, step: Reconstruction) -> Tensor:
        """The unweighted term, a scalar."""
        return self.distance(step.images, step.batch.images).mean()


def _feature_distance(config: PerceptualConfig) -> FeatureDistance:
    return FeatureDistance(FrozenMaps(config.features.build(), config.layers))


class FeatureDistance(nn.Module):
    """LPIPS without its learned channel weights.

    At each position of a map, the channels are scaled to a unit vector. The distance between two
    images is the squared distance between these vectors, averaged over positions, then over maps. It
    lies in [0, 4] (2: unrelated), and every map has the same weight, whatever its size and width.
    """

    def __init__(self, maps: FrozenMaps) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, images: Tensor, real: Tensor) -> Tensor:
        """(B,) distances between images and real images, both (B, 3, H, W) in [-1, 1]; gradients flow to the former."""
        with torch.no_grad():
            targets = [_directions(features) for features in self.maps(real)]
        pairs = zip(self.maps(images), targets, strict=True)
        return torch.stack([_squared_distance(_directions(features), target) for features, target in pairs]).mean(dim=0)


def _directions(features: Tensor) -> Tensor:
    # in float32; eps bounds the gradient where all channels are almost zero
    return F.normalize(features.float(), dim=1, eps=1e-6)  # (B, C, h, w)


def _squared_distance(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().sum(dim=1).mean(dim=(1, 2))  # (B,)
