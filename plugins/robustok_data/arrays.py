"""Images held in memory as bytes and converted a batch at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Images
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_toolkit.npz_files import array_names, whole_array


def to_unit_range(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) float32 in [-1, 1] from bytes (B, 1 or 3, H, W) in 0..255."""
    images = pixels.to(torch.float32).div_(127.5).sub_(1.0)
    return images if images.shape[1] == 3 else images.repeat(1, 3, 1, 1)


def mirror_some(pixels: Tensor, draws: Draws) -> Tensor:
    """Mirrors each image (B, C, H, W) left to right with probability 1/2."""
    mirrored = draws.child("flip").uniform() < 0.5
    return torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)


class ArrayImages(Images):
    """A split in memory.

    Args:
        pixels: (n, 1 or 3, h, w) uint8.
        labels: (n,) int64.
        image_size: H = W of what `load` returns; pixels of another size are resized (bilinear with
            antialiasing, back to 8 bits).
        flip: mirror half of the images in training.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, *, image_size: int, flip: bool) -> None:
        self._pixels = pixels.contiguous()
        self._labels = labels
        self._image_size = image_size
        self._flip = flip

    @property
    def labels(self) -> Tensor:
        return self._labels

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.blake2b(repr((tuple(self._pixels.shape), self._image_size)).encode(), digest_size=16)
        digest.update(self._pixels.numpy().data)
        digest.update(self._labels.numpy().data)
        return digest.hexdigest()

    def load(self, indices: Sequence[int], draws: Draws | None = None) -> ImageBatch:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        pixels = self._pixels[rows]
        if draws is not None and self._flip:
            pixels = mirror_some(pixels, draws)
        return ImageBatch(images=to_unit_range(self._resized(pixels)), labels=self._labels[rows], indices=rows)

    def _resized(self, pixels: Tensor) -> Tensor:
        size = (self._image_size, self._image_size)
        if tuple(pixels.shape[2:]) == size:
            return pixels
        resized = F.interpolate(pixels.to(torch.float32), size, mode="bilinear", antialias=True, align_corners=False)
        return resized.round_().clamp_(0, 255)


def read_names(path: Path) -> list[str]:
    """The names of the arrays in an .npz file.

    Raises:
        RobustokError: the file does not exist or is not an .npz file.
    """
    if not path.is_file():
        raise RobustokError("there is no such file", where=str(path), hint="check the key `path`")
    with path.open("rb") as file:
        if file.read(6) == b"\x93NUMPY":
            hint = "save with numpy.savez_compressed"
            raise RobustokError("this file holds a single array", where=str(path), hint=hint)
    return array_names(path)


def read_npz(path: Path, names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """Reads the named arrays of a file.

    Raises:
        RobustokError: the file does not exist or is not an .npz file, or an array is missing or unreadable.
    """
    found = read_names(path)
    missing = sorted(set(names) - set(found))
    if missing:
        hint = f"arrays found: {', '.join(found) or 'none'}"
        raise RobustokError(f"no array {', '.join(missing)}", where=str(path), hint=hint)
    return {name: whole_array(path, name) for name in names}


def as_pixels(images: NDArray[np.generic], where: str) -> Tensor:
    """(n, 1 or 3, h, w) uint8 from an array (n, h, w), (n, h, w, 1) or (n, h, w, 3) of bytes.

    Raises:
        RobustokError: the array has another shape or type.
    """
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        actual = f"{images.dtype} {tuple(images.shape)}"
        raise RobustokError(f"images must be uint8 (n, h, w) or (n, h, w, 1 or 3), found {actual}", where=where)
    tensor = torch.from_numpy(images if images.ndim == 4 else images[..., None])
    return tensor.movedim(3, 1)


def as_labels(labels: NDArray[np.generic], count: int, where: str) -> Tensor:
    """(count,) int64 from an array of integers that count from 0.

    Raises:
        RobustokError: another shape, type or length, or a negative label.
    """
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise RobustokError(f"labels must be integers (n,), found {labels.dtype} {tuple(labels.shape)}", where=where)
    if len(labels) != count:
        raise RobustokError(f"{len(labels)} labels for {count} images", where=where)
    if count and int(labels.min()) < 0:
        raise RobustokError(f"labels must count from 0, found {labels.min()}", where=where)
    if count and int(labels.max()) >= 2**63:
        raise RobustokError(f"the label {labels.max()} is too high", where=where)
    return torch.from_numpy(labels.astype(np.int64))
