"""A small Fashion-MNIST classifier as a feature network; a 32 x 32 image takes about a millisecond.

The package includes its weights, which `python -m robustok_metrics.train_fashion_classifier` trains.
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from attrs import frozen
from torch import Tensor, nn

from robustok_core.runs.files import read_tensors
from robustok_core.runs.weights import load_module
from robustok_core.values.draws import seeded
from robustok_metrics.frozen import FrozenFeatures, is_meta

WEIGHTS = "fashion_classifier.safetensors"
IMAGE_SIZE = 32
NUM_CLASSES = 10
WIDTHS = (24, 48, 96)


class FashionNet(nn.Module):
    """Three stages of convolutions at 32, 16 and 8 pixels with average pooling between them, and a linear head.

    SiLU and average pooling make the maps smooth functions of the image, which a feature loss needs.
    """

    def __init__(self) -> None:
        super().__init__()
        shallow, middle, deep = WIDTHS
        self.stages = nn.ModuleList(
            [
                nn.Sequential(*_convolution(1, shallow, kernel=5)),
                nn.Sequential(nn.AvgPool2d(2), *_convolution(shallow, middle), Residual(middle)),
                nn.Sequential(nn.AvgPool2d(2), *_convolution(middle, deep), Residual(deep)),
            ]
        )
        self.head = nn.Linear(deep, NUM_CLASSES)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Maps (B, 24, 32, 32), (B, 48, 16, 16), (B, 96, 8, 8) of images (B, 3, H, W) in [-1, 1]."""
        x = images.mean(dim=1, keepdim=True)
        if x.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
            x = F.interpolate(x, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False, antialias=True)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def pooled(self, images: Tensor) -> Tensor:
        """(B, 96) average of the deepest map."""
        return self.maps(images)[-1].mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 10) class scores."""
        return self.head(self.pooled(images))


class Residual(nn.Module):
    """x + convolution(x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Sequential(*_convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as x (B, C, h, w)."""
        return x + self.convolution(x)


def _convolution(channels_in: int, channels_out: int, kernel: int = 3) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(channels_out), nn.SiLU()


@frozen(kw_only=True)
class FashionClassifierConfig:
    """The network has no options; its weights are part of the package."""


class FashionClassifier(FrozenFeatures):
    """The classifier's average-pooled last map; colour images are averaged to grey first."""

    Config = FashionClassifierConfig
    name = "fashion_classifier"
    width = WIDTHS[-1]
    num_logits = NUM_CLASSES
    preparation = "mean of the channels in [-1, 1]; bilinear, antialiased, to 32x32"

    def __init__(self, config: FashionClassifierConfig) -> None:
        super().__init__()
        with seeded("fashion_classifier"):
            self.net = FashionNet()
        if not is_meta(self):
            load_module(self.net, read_tensors(Path(__file__).with_name(WEIGHTS)), "features fashion_classifier")
        self.freeze()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 96) pooled features of images (B, 3, H, W) in [-1, 1]."""
        return self.net.pooled(images)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Maps (B, 24, 32, 32), (B, 48, 16, 16), (B, 96, 8, 8)."""
        return self.net.maps(images)

    def logits(self, pooled: Tensor) -> Tensor:
        """(B, 10) class scores of pooled features (B, 96)."""
        return self.net.head(pooled)
