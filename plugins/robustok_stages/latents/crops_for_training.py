"""The views of an image that a generator is trained on: the image, its mirror image, or ten crops of a larger one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

#: Index of the centre crop, not mirrored, among the ten crops.
MIDDLE_OF_TEN = 4


def with_mirrored(images: Tensor) -> list[Tensor]:
    """The images (B, 3, H, W), and the images mirrored left to right."""
    return [images, images.flip(3)]


def five_crops(images: Tensor, size: int) -> list[Tensor]:
    """The upper left, upper right, lower left, lower right and centre squares of images (B, 3, H, W)."""
    bottom, right = images.shape[2] - size, images.shape[3] - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]
    return [images[:, :, top : top + size, left : left + size] for top, left in corners]


def ten_crops(images: Tensor, size: int) -> list[Tensor]:
    """Five crops (B, 3, size, size) of images (B, 3, H, W) and five of the mirrored images."""
    return [crop for view in with_mirrored(images) for crop in five_crops(view, size)]


def all_ten_crops(scales: Sequence[Tensor], size: int) -> list[Tensor]:
    """The ten crops of each of several sizes of the same images, size by size."""
    return [crop for images in scales for crop in ten_crops(images, size)]
