"""Metric `colour_error`: how far colours are off as people see them, CIEDE2000, averaged over images."""

from __future__ import annotations

from typing import ClassVar

import torch
from attrs import frozen
from einops import rearrange
from torch import Tensor

from robustok_core.kinds.metric import Evaluation
from robustok_core.values.images import to_uint8
from robustok_toolkit.mean_of_images import MeanOfImages


@frozen(kw_only=True)
class ColourErrorConfig:
    """The colour error has no options."""


class ColourError(MeanOfImages):
    """The mean colour difference (ΔE) of all pixels, in CIELAB by CIEDE2000; black on white has 100.

    Up to 1 nobody sees a difference, from 2 on everybody does (Mokrzycki and Tatol, 2011).
    CIEDE2000 (Sharma et al. 2005) and not the older CIE76, the plain distance in CIELAB: CIE76 counts errors of
    saturated colours up to several times too high, so that they would outweigh all others. 8-bit images, read as sRGB.
    """

    Config = ColourErrorConfig
    also_called = ("ciede2000", "color_error", "delta_e")
    name: ClassVar[str] = "colour_error"
    higher_is_better = False

    def per_image(self, step: Evaluation) -> Tensor:
        return colour_error(to_uint8(step.images), to_uint8(step.batch.images))


def colour_error(images: Tensor, real: Tensor) -> Tensor:
    """(B,) float64 mean ΔE of uint8 sRGB images (B, 3, H, W) and real ones, on the CPU."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    ours, theirs = (rgb2lab(rearrange(pixels, "b c h w -> b h w c").cpu().numpy()) for pixels in (images, real))
    return torch.from_numpy(deltaE_ciede2000(theirs, ours)).mean(dim=(1, 2))
