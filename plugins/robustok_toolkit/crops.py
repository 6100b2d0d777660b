"""Conversion to RGB, and ADM's crops (Dhariwal & Nichol 2021), the standard for training and evaluating on ImageNet.

An image is first resized to a given shorter side (halved with a box filter while at least twice as large, then
bicubic), then cropped to a square.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image
from torch import Tensor

_SMALLEST_SHARE = 0.8  # smallest side of a random crop, as a share of the image's shorter side


def as_rgb(picture: Image.Image) -> Image.Image:
    """Converts to 8-bit RGB: takes the upper 8 bits of 16-bit grey, and drops transparency, as ADM does.

    Raises:
        ValueError: the pixels have no fixed range (32-bit).
    """
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(f"32-bit pixels (mode {picture.mode}) have no known range")
    if picture.mode == "P":
        picture = picture.convert("RGBA")  # resolves a transparent palette; Pillow warns otherwise
    return picture.convert("RGB")


def center_crop(picture: Image.Image, size: int) -> Image.Image:
    """Resizes the shorter side to `size` pixels and takes the central square."""
    resized = _with_shorter_side(picture, size)
    return _cropped(resized, (resized.width - size) // 2, (resized.height - size) // 2, size)


def random_crop(picture: Image.Image, size: int, numbers: Tensor) -> Image.Image:
    """Resizes the shorter side to a size in [size, ceil(size / 0.8)] and takes a square of `size` pixels.

    Args:
        numbers: (3,) non-negative int64; they select the shorter side, the left edge and the upper edge.
    """
    side, left, upper = numbers.tolist()
    largest = math.ceil(size / _SMALLEST_SHARE)
    resized = _with_shorter_side(picture, size + side % (largest - size + 1))
    return _cropped(resized, left % (resized.width - size + 1), upper % (resized.height - size + 1), size)


def _with_shorter_side(picture: Image.Image, side: int) -> Image.Image:
    while min(picture.size) >= 2 * side:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = side / min(picture.size)
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)


def _cropped(picture: Image.Image, left: int, upper: int, size: int) -> Image.Image:
    return picture.crop((left, upper, left + size, upper + size))
