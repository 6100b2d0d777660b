"""Pictures as RGB, and the crops of ADM (Dhariwal & Nichol 2021), with which ImageNet generation is trained and judged.

A picture is first brought to a shorter side: halved with a box filter while it is at least twice as
large, then resized (bicubic); and then cropped to a square.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image
from torch import Tensor

_SMALLEST_SHARE = 0.8  # of the shorter side, that a random crop keeps


def as_rgb(picture: Image.Image) -> Image.Image:
    """Decodes to 8-bit RGB: 16-bit grey keeps its upper 8 bits, transparency is dropped, as ADM drops it.

    Raises:
        ValueError: pixels without a fixed range (32-bit).
    """
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(f"32-bit pixels (mode {picture.mode}) have no known range")
    if picture.mode == "P":
        picture = picture.convert("RGBA")  # resolves a transparent palette, about which Pillow warns otherwise
    return picture.convert("RGB")


def center_crop(picture: Image.Image, size: int) -> Image.Image:
    """The square of `size` pixels in the middle, with the picture's shorter side brought to `size`."""
    resized = _with_shorter_side(picture, size)
    return _cropped(resized, (resized.width - size) // 2, (resized.height - size) // 2, size)


def random_crop(picture: Image.Image, size: int, numbers: Tensor) -> Image.Image:
    """A square of `size` pixels out of the picture with its shorter side in [size, ceil(size / 0.8)].

    Args:
        numbers: (3,) int64 not negative; they choose the shorter side, the left and the upper edge.
    """
    side, left, upper = numbers.tolist()
    most = math.ceil(size / _SMALLEST_SHARE)
    resized = _with_shorter_side(picture, size + side % (most - size + 1))
    return _cropped(resized, left % (resized.width - size + 1), upper % (resized.height - size + 1), size)


def _with_shorter_side(picture: Image.Image, side: int) -> Image.Image:
    while min(picture.size) >= 2 * side:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = side / min(picture.size)
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)


def _cropped(picture: Image.Image, left: int, upper: int, size: int) -> Image.Image:
    return picture.crop((left, upper, left + size, upper + size))
