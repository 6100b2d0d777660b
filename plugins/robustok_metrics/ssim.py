"""Metric `ssim`: structural similarity (Wang et al. 2004), averaged over images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import attrs
import torch
from attrs import frozen
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.metric import Evaluation, EvaluationContext
from robustok_core.values.full_precision import sums_device
from robustok_core.values.images import to_uint8
from robustok_core.values.result import Result
from robustok_toolkit.mean_of_images import MeanOfImages

_WINDOW = 11


@frozen(kw_only=True)
class SSIMConfig:
    """SSIM has no options."""


class SSIM(MeanOfImages):
    """SSIM of 8-bit images: Gaussian window of 11 pixels with deviation 1.5, computed per channel."""

    Config = SSIMConfig
    name: ClassVar[str] = "ssim"
    higher_is_better = True

    def check_image_size(self, size: int) -> None:
        """Raises RobustokError if the images are smaller than a window."""
        if size < _WINDOW:
            what = f"SSIM uses windows of {_WINDOW} pixels, but the images have {size}"
            raise RobustokError(what, where="metric ssim", hint="remove the metric")

    def start(self, context: EvaluationContext) -> None:
        """Raises RobustokError as `check_image_size` does."""
        self.check_image_size(context.tokenizer.image_size)
        super().start(context)

    def per_image(self, step: Evaluation) -> Tensor:
        return ssim(to_uint8(step.images), to_uint8(step.batch.images))

    def compute(self) -> Mapping[str, Result]:
        """The mean; its details say which windows count, because earlier versions counted others, too."""
        about = {"SSIM windows": "inside the image"}
        return {
            name: attrs.evolve(result, details={**result.details, **about})
            for name, result in super().compute().items()
        }


def ssim(images: Tensor, real: Tensor) -> Tensor:
    """(B,) float64 similarities in [-1, 1] of uint8 images (B, C, H, W) to real ones.

    The mean over the windows that lie in the image, as in the paper. Versions of torchmetrics differ in whether they
    count windows beyond the border too, which mirror the image.

    Computed in float64: a variance is a difference of two squares, and float32's rounding error exceeds the variance of
    a flat region. In float32, an image compared with itself scored as low as 0.9999.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    ours, theirs = (pixels.to(sums_device(pixels.device), torch.float64) for pixels in (images, real))
    _, similarities = structural_similarity_index_measure(
        ours, theirs, kernel_size=_WINDOW, sigma=1.5, data_range=255.0, reduction="none", return_full_image=True
    )
    border = _WINDOW // 2
    return similarities[..., border:-border, border:-border].mean(dim=(1, 2, 3))
