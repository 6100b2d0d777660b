"""Metric `ssim`: structural similarity (Wang et al. 2004), the mean over images."""

from __future__ import annotations

from typing import ClassVar

import torch
from attrs import frozen
from torch import Tensor

from robustok_blocks.full_precision import sums_device
from robustok_core.errors import RobustokError
from robustok_core.kinds.metric import Evaluation, EvaluationContext
from robustok_core.values.images import to_uint8
from robustok_toolkit.mean_of_images import MeanOfImages

_WINDOW = 11


@frozen(kw_only=True)
class SSIMConfig:
    """SSIM has no options."""


class SSIM(MeanOfImages):
    """Of 8-bit pictures: Gaussian window of 11 pixels and deviation 1.5, each channel for itself."""

    Config = SSIMConfig
    name: ClassVar[str] = "ssim"
    higher_is_better = True

    def start(self, context: EvaluationContext) -> None:
        if context.tokenizer.image_size < _WINDOW:
            raise RobustokError(
                f"SSIM looks through windows of {_WINDOW} pixels, and the images have {context.tokenizer.image_size}",
                where="metric ssim",
                hint="leave the metric out",
            )
        super().start(context)

    def per_image(self, step: Evaluation) -> Tensor:
        return ssim(to_uint8(step.images), to_uint8(step.batch.images))


def ssim(images: Tensor, real: Tensor) -> Tensor:
    """(B,) float64 similarities in [-1, 1] of uint8 images (B, C, H, W) to real ones.

    In float64: a variance is a difference of two squares, and float32's rounding exceeds the variance of a flat region.
    An image compared with itself then scored as low as 0.9999.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    ours, theirs = (pixels.to(sums_device(pixels.device), torch.float64) for pixels in (images, real))
    found = structural_similarity_index_measure(
        ours, theirs, kernel_size=_WINDOW, sigma=1.5, data_range=255.0, reduction="none"
    )
    assert isinstance(found, Tensor)
    return found
