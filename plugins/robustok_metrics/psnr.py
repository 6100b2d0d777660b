"""Metric `psnr`: peak signal-to-noise ratio in decibels, averaged over images."""

from __future__ import annotations

import math
from typing import ClassVar

from attrs import frozen
from torch import Tensor

from robustok_core.kinds.metric import Evaluation
from robustok_core.values.images import to_uint8
from robustok_toolkit.mean_of_images import MeanOfImages


@frozen(kw_only=True)
class PSNRConfig:
    """PSNR has no options."""


class PSNR(MeanOfImages):
    """PSNR of 8-bit images, with peak 255, over all pixels and channels of an image."""

    Config = PSNRConfig
    name: ClassVar[str] = "psnr"
    higher_is_better = True

    def per_image(self, step: Evaluation) -> Tensor:
        return psnr(to_uint8(step.images), to_uint8(step.batch.images))


def psnr(images: Tensor, real: Tensor) -> Tensor:
    """(B,) decibels of uint8 images (B, C, H, W) against real ones.

    An image without error gets the PSNR of a single value off by one, 10 log10(255^2 C H W), because
    infinity would dominate the mean.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    ratio = peak_signal_noise_ratio(images.float(), real.float(), data_range=255.0, dim=(1, 2, 3), reduction="none")
    return ratio.clamp(max=10 * math.log10(255**2 * images[0].numel()))
