"""Images and labels in an .npz file: the four arrays of two splits, or the two of an ADM sample file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Dataset, Images
from robustok_core.recipe.validators import LARGEST_SIDE, in_range
from robustok_data.arrays import ArrayImages, as_labels, as_pixels, read_names, read_npz
from robustok_data.pictures import PictureConfig, PictureImages, Pictures, limited_rows
from robustok_data.places import local, place_field
from robustok_data.splits import (
    check_classes,
    check_labels,
    keys_of_places,
    validation_rows,
    validation_share_field,
    warn_of_share,
)

_TWO_SPLITS = ("train_images", "train_labels", "val_images", "val_labels")
_ONE_SPLIT = ("arr_0", "arr_1")


@frozen(kw_only=True)
class NpzConfig(PictureConfig):
    """Options of `npz`."""

    path: str = place_field("file with train_images, train_labels, val_images, val_labels; or arr_0 and arr_1 (labels)")
    image_size: int = field(
        validator=in_range(8, LARGEST_SIDE),
        metadata={"doc": "height and width in pixels; arrays of another size get ADM's crop"},
    )
    validation_share: float = validation_share_field("if the file holds arr_0 and arr_1")


class Npz(Dataset):
    """uint8 images (n, h, w) or (n, h, w, 1 or 3) with labels from 0, held in memory."""

    Config = NpzConfig

    def __init__(self, config: NpzConfig) -> None:
        path = local(config.path)
        arrays = read_npz(path, _wanted(path))
        self.image_size = config.image_size
        if set(_TWO_SPLITS) <= arrays.keys():
            warn_of_share(config, str(path))
            train = _checked(arrays, "train_images", "train_labels", path)
            validation = _checked(arrays, "val_images", "val_labels", path)
            self.class_names = _class_names(train[1], path)
        else:
            whole = _checked(arrays, *_ONE_SPLIT, path)
            self.class_names = _class_names(whole[1], path)
            train, validation = _shares(*whole, config.validation_share)
        self.num_classes = len(self.class_names)
        check_labels(validation[1], self.num_classes, str(path))
        self.train = _images(*_limited(*train, config.train_limit), config)
        self.validation = _images(*_limited(*validation, config.validation_limit), config)


def _limited(pixels: Tensor, labels: Tensor, limit: int | None) -> tuple[Tensor, Tensor]:
    rows = limited_rows(labels, limit)
    return pixels[rows], labels[rows]


def _wanted(path: Path) -> tuple[str, ...]:
    """The arrays to read: of two splits if there are such, or of one."""
    names = read_names(path)
    for wanted in (_TWO_SPLITS, _ONE_SPLIT):
        if set(wanted) <= set(names):
            return wanted
    expected = f"expected {', '.join(_TWO_SPLITS)}; or {' and '.join(_ONE_SPLIT)}"
    raise RobustokError("the arrays of images and labels are missing", where=str(path), hint=expected)


class _ArrayPictures(Pictures):
    """Pixels in memory (n, 1 or 3, h, w), to be cropped like image files."""

    def __init__(self, pixels: Tensor, where: str) -> None:
        self._pixels = pixels.movedim(1, 3).contiguous()  # (n, h, w, 1 or 3)
        self._where = where

    def __len__(self) -> int:
        return len(self._pixels)

    def read(self, index: int) -> bytes:
        return self._pixels[index].numpy().tobytes()

    def decode(self, index: int) -> Image.Image:
        return Image.fromarray(self._pixels[index].squeeze(2).numpy())

    def location(self, index: int) -> str:
        return f"{self._where}, image {index}"

    @property
    def listing(self) -> bytes:
        return hashlib.blake2b(self._pixels.numpy().data, digest_size=16).digest()


def _checked(arrays: Mapping[str, NDArray[np.generic]], images: str, labels: str, path: Path) -> tuple[Tensor, Tensor]:
    pixels = as_pixels(arrays[images], f"{path}, {images}")
    where = f"{path}, {labels}"
    checked_labels = as_labels(arrays[labels], len(pixels), where)
    if len(checked_labels) == 0:
        raise RobustokError("there are no images", where=where)
    return pixels, checked_labels


def _class_names(labels: Tensor, path: Path) -> tuple[str, ...]:
    """One name per class; training labels (n,) must count from 0 without gaps."""
    top = int(labels.max())
    if top >= len(labels):
        raise RobustokError(f"the label {top} is too high for {len(labels)} training images", where=str(path))
    names = tuple(str(label) for label in range(top + 1))
    check_classes(labels, names, str(path))
    return names


def _shares(pixels: Tensor, labels: Tensor, share: float) -> Iterator[tuple[Tensor, Tensor]]:
    """The training and the validation split of one array; an image's index decides its split."""
    held_out = validation_rows(labels, share, keys_of_places(len(labels)))
    for mask in (~held_out, held_out):
        yield pixels[mask], labels[mask]


def _images(pixels: Tensor, labels: Tensor, config: NpzConfig) -> Images:
    size = config.image_size
    if config.crop == "center" and tuple(pixels.shape[2:]) == (size, size):
        return ArrayImages(pixels, labels, image_size=size, flip=config.flip)
    return PictureImages(_ArrayPictures(pixels, config.path), labels, config)
