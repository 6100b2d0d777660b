"""Features: the image at 4 x 4 pixels. Real features come from a frozen network."""

import torch.nn.functional as F
from attrs import frozen
from robustok_core import Features


@frozen(kw_only=True)
class AveragePoolConfig:
    """No options."""


class AveragePool(Features):
    """Mean colours of the 4 x 4 regions of the image."""

    Config = AveragePoolConfig
    name, width, fingerprint = "average_pool", 48, "average_pool of 4 x 4"

    def __init__(self, config):
        super().__init__()

    def forward(self, images):
        return F.adaptive_avg_pool2d(images, 4).flatten(1)  # (B, 48)

    def maps(self, images):
        return [F.adaptive_avg_pool2d(images, 8), F.adaptive_avg_pool2d(images, 4)]
