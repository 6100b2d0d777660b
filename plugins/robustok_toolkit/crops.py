"""ADM's crops (Dhariwal & Nichol 2021), the standard for training and evaluating on ImageNet.

An image is first resized to a given shorter side (halved with a box filter while at least twice as large, then
bicubic), then cropped to a square.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

#: Resizes an RGB image to a width and a height, with a bicubic filter that is as wide as the image shrinks.
Resize = Callable[[Image.Image, tuple[int, int]], Image.Image]

_SMALLEST_SHARE = 0.8  # smallest side of a random crop, as a share of the image's shorter side
#: A resized image with more pixels is never made: a file of 177 bytes may hold 100000 x 1 pixels, 20 GB at 256 x 256.
_MOST_PIXELS = 2**25
_MARGIN = 8  # pixels; the bicubic filter reads fewer on each side


def by_pillow(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """As ADM and all who follow it."""
    return picture.resize(size, Image.Resampling.BICUBIC)


def by_torch(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The same filter with shorter integers: a few pixel values differ from Pillow's by one grey level, rarely by two
    (by more only if one side is more than 100 times the other).

    It takes half of Pillow's time where the processor has AVX2, and more than Pillow's where it has not.
    """
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]  # channels last, which is the fast layout
    resized = F.interpolate(pixels, (size[1], size[0]), mode="bicubic", antialias=True)
    return Image.fromarray(resized[0].permute(1, 2, 0).contiguous().numpy())


def center_crop(picture: Image.Image, size: int, resize: Resize = by_pillow) -> Image.Image:
    """Resizes the shorter side to `size` pixels and takes the central square."""
    picture = _halved(picture, size)
    width, height = _resized_size(picture, size)
    return _square(picture, (width, height), (width - size) // 2, (height - size) // 2, size, resize)


def random_crop(picture: Image.Image, size: int, numbers: Tensor, resize: Resize = by_pillow) -> Image.Image:
    """Resizes the shorter side to a size in [size, ceil(size / 0.8)] and takes a square of `size` pixels.

    Args:
        numbers: (3,) non-negative int64; they select the shorter side, the left edge and the upper edge.
    """
    shorter, left, upper = numbers.tolist()
    largest = largest_side(size)
    side = size + shorter % (largest - size + 1)
    picture = _halved(picture, side)
    width, height = _resized_size(picture, side)
    return _square(picture, (width, height), left % (width - size + 1), upper % (height - size + 1), size, resize)


def largest_side(size: int) -> int:
    """The largest shorter side to which `random_crop` resizes an image."""
    return math.ceil(size / _SMALLEST_SHARE)


def _halved(picture: Image.Image, side: int) -> Image.Image:
    while min(picture.size) >= 2 * side:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    return picture


def _resized_size(picture: Image.Image, side: int) -> tuple[int, int]:
    scale = side / min(picture.size)
    return round(picture.width * scale), round(picture.height * scale)


def _square(
    picture: Image.Image, resized: tuple[int, int], left: int, upper: int, size: int, resize: Resize
) -> Image.Image:
    """A square of the picture as if it were resized first; it is, unless that takes too much memory: then by Pillow."""
    width, height = resized
    if width * height <= _MOST_PIXELS:
        return resize(picture, resized).crop((left, upper, left + size, upper + size))
    columns, across = _span(picture.width, width, left, size)
    rows, down = _span(picture.height, height, upper, size)
    picture = picture.crop((columns[0], rows[0], columns[1], rows[1]))
    picture = picture.resize(
        (size, picture.height), Image.Resampling.BICUBIC, box=(across[0], 0, across[1], picture.height)
    )
    return picture.resize((size, size), Image.Resampling.BICUBIC, box=(0, down[0], size, down[1]))


def _span(length: int, resized: int, start: int, size: int) -> tuple[tuple[int, int], tuple[float, float]]:
    """What `size` resized pixels from `start` on need along one axis.

    Returns:
        The first and the last pixel to keep, with a margin for the filter; the edges of what they show, among these.
    """
    scale = length / resized
    first, last = start * scale, (start + size) * scale
    kept = max(0, math.floor(first) - _MARGIN), min(length, math.ceil(last) + _MARGIN)
    return kept, (first - kept[0], min(last, length) - kept[0])
