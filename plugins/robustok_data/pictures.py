"""Images of any size, decoded and cropped on demand."""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from attrs import field, frozen, validators
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from robustok_core.errors import RobustokError, RunError
from robustok_core.kinds.dataset import Expected, Images
from robustok_core.recipe.validators import LARGEST_SIDE, in_range
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_data.arrays import mirror_some, to_unit_range
from robustok_toolkit.crops import by_pillow, by_torch, center_crop, largest_side, random_crop
from robustok_toolkit.image_decoding import as_rgb, halve_while_decoding, why_unreadable
from robustok_training.batches import class_balanced_order

_SAMPLED = 1024  # images whose bytes enter a fingerprint


def limit_field(split: str) -> Any:
    """The option train_limit or validation_limit."""
    return field(
        default=None,
        validator=validators.optional(validators.ge(1)),
        metadata={"doc": f"use only this many {split} images, class-balanced", "result": False},  # as fast_jpeg
    )


def limited_rows(labels: Tensor, limit: int | None) -> Tensor:
    """(m,) int64, ascending: the rows of labels (n,) that a limit takes, all classes as often as each other."""
    if limit is None or limit >= len(labels):
        return torch.arange(len(labels))
    return class_balanced_order(labels)[:limit].sort().values


@frozen(kw_only=True)
class PictureConfig:
    """How images are resized and cropped. Evaluation always uses ADM's centre crop without mirroring."""

    image_size: int = field(
        default=256, validator=in_range(8, LARGEST_SIDE), metadata={"doc": "height and width in pixels, after the crop"}
    )
    crop: Literal["center", "random"] = field(
        default="center",
        metadata={"doc": "in training: ADM's centre crop, or its random crop (shorter side up to 1.25 image_size)"},
    )
    flip: bool = field(default=False, metadata={"doc": "mirror half of the training images"})
    train_limit: int | None = limit_field("training")
    validation_limit: int | None = limit_field("validation")
    expect: Expected | None = field(
        default=None,
        metadata={
            "doc": "table: numbers of images and classes, for `plan` and `check --without-data` without the data",
            "result": False,
        },
    )


Policy = Literal["refuse", "skip"]


@frozen(kw_only=True)
class FilesConfig(PictureConfig):
    """Options of data sets that read image files, some of which may be broken."""

    exif: bool = field(
        default=True, metadata={"doc": "turn images upright as their EXIF data say; ADM did not (false)"}
    )
    on_bad_file: Policy = field(
        default="refuse",
        metadata={
            "doc": "refuse: foreign and empty files are an error on opening, a broken image when it is read; "
            "skip: decode all images once beforehand (cached) and leave bad files out"
        },
    )
    fast_jpeg: bool = field(
        default=False,
        # Not in the fingerprints of stages, so that those of earlier versions stay; that of the data has it.
        metadata={
            "doc": "have libjpeg halve JPEG files of at least twice image_size, with even sides, while decoding; "
            "about half the time, but not exactly ADM's crops: up to about one grey level off in the mean",
            "result": False,
        },
    )
    fast_resize: bool = field(
        default=False,
        metadata={
            "doc": "resize by torch instead of Pillow: half the time on processors with AVX2, more on others; not "
            "exactly ADM's crops: of photographs, one pixel value in 300 is one grey level off, or rarely two",
            "result": False,
        },
    )
    verify: bool = field(
        default=False,
        metadata={
            "doc": "the data's fingerprint covers every byte (read once, cached by path, size and time of each file) "
            "instead of names, sizes and the content of 1,024 images"
        },
    )


class Pictures(ABC):
    """Encoded images, read by index. Must be picklable."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The bytes of an encoded image."""

    @abstractmethod
    def location(self, index: int) -> str:
        """Where an image is stored, for messages."""

    @property
    @abstractmethod
    def listing(self) -> bytes:
        """A hash of all images' names and sizes, as far as they are cheap to get."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    def decode(self, index: int) -> Image.Image:
        """The decoded image at its stored size."""
        return Image.open(io.BytesIO(self.read(index)))


class StoredPictures(Pictures):
    """Images in files.

    Attributes:
        place: the folder, pattern or table that they are from, under which facts about them are cached.
    """

    place: str

    @abstractmethod
    def versions(self) -> list[str]:
        """For each image, a hash of where it is stored and of the size and time of its file: it has not changed."""


class SomePictures(Pictures):
    """The subset of other `Pictures` at `rows` (m,) int64."""

    def __init__(self, pictures: Pictures, rows: Tensor) -> None:
        self._pictures = pictures
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> bytes:
        return self._pictures.read(int(self._rows[index]))

    def decode(self, index: int) -> Image.Image:
        return self._pictures.decode(int(self._rows[index]))

    def location(self, index: int) -> str:
        return self._pictures.location(int(self._rows[index]))

    @property
    def listing(self) -> bytes:
        digest = hashlib.blake2b(self._pictures.listing, digest_size=16)
        digest.update(self._rows.numpy().data)
        return digest.digest()


class PictureImages(Images):
    """A split of encoded images.

    Its fingerprint covers all names, sizes and labels, the bytes of up to 1,024 images spread evenly over the split,
    the image size and whether images are turned upright: ImageNet takes seconds.

    Args:
        pictures: n images. labels: (n,) int64.
        config: how they are cropped.
        exif: turn them upright as their EXIF data say.
        fast_jpeg: see `halve_while_decoding`. fast_resize: see `by_torch`.
    """

    def __init__(
        self,
        pictures: Pictures,
        labels: Tensor,
        config: PictureConfig,
        *,
        exif: bool = False,
        fast_jpeg: bool = False,
        fast_resize: bool = False,
    ) -> None:
        self._pictures = pictures
        self._exif = exif
        size = config.image_size
        self._reduce_to = (largest_side(size) if config.crop == "random" else size) if fast_jpeg else None
        self._resize = by_torch if fast_resize else by_pillow
        self._labels = labels
        self._config = config

    @property
    def labels(self) -> Tensor:
        return self._labels

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.blake2b(content_hash(self._pictures), digest_size=16)
        prepared = (len(self), self._config.image_size, *(["upright"] if self._exif else []))
        if self._reduce_to is not None:
            prepared = (*prepared, "fast_jpeg", self._reduce_to)
        if self._resize is not by_pillow:
            prepared = (*prepared, "fast_resize")
        digest.update(repr(prepared).encode())
        digest.update(self._labels.numpy().data)
        return digest.hexdigest()

    def load(self, indices: Sequence[int], draws: Draws | None = None) -> ImageBatch:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        pixels = torch.from_numpy(np.stack(self._crops(rows.tolist(), draws))).permute(0, 3, 1, 2)  # (B, 3, H, W)
        if draws is not None and self._config.flip:
            pixels = mirror_some(pixels, draws)
        return ImageBatch(images=to_unit_range(pixels.contiguous()), labels=self._labels[rows], indices=rows)

    def _crops(self, indices: Sequence[int], draws: Draws | None) -> list[NDArray[np.uint8]]:
        size = self._config.image_size
        if draws is None or self._config.crop == "center":
            return [np.asarray(center_crop(self._picture(index), size, self._resize)) for index in indices]
        numbers = draws.child("crop").bits(3)
        return [
            np.asarray(random_crop(self._picture(index), size, row, self._resize))
            for index, row in zip(indices, numbers, strict=True)
        ]

    def _picture(self, index: int) -> Image.Image:
        decoded = try_decode(self._pictures, index, exif=self._exif, reduce_to=self._reduce_to)
        if isinstance(decoded, str):
            hint = 'repair or remove it; `on_bad_file = "skip"` finds all such files beforehand and leaves them out'
            raise RobustokError(
                f"this image cannot be read: {decoded}", where=self._pictures.location(index), hint=hint
            )
        return decoded


def try_decode(pictures: Pictures, index: int, *, exif: bool = True, reduce_to: int | None = None) -> Image.Image | str:
    """The image as RGB, or the reason why it cannot be read.

    Args:
        reduce_to: for crops of this side, have libjpeg halve it as far as it can.

    Raises:
        RunError: there is not enough memory, so that nothing can be said about the image.
    """
    try:
        picture = pictures.decode(index)
        if reduce_to is not None:
            halve_while_decoding(picture, reduce_to)
        return as_rgb(picture, exif=exif)
    except MemoryError as error:
        raise RunError("there is not enough memory to decode this image", where=pictures.location(index)) from error
    except Exception as error:  # Pillow raises many types for broken files
        return why_unreadable(error)


def content_hash(pictures: Pictures) -> bytes:
    """A hash of names and sizes, and of the bytes of up to 1,024 evenly spread images."""
    digest = hashlib.blake2b(pictures.listing, digest_size=16)
    count = len(pictures)
    for number in range(min(count, _SAMPLED)):
        index = number * count // min(count, _SAMPLED)
        try:
            digest.update(pictures.read(index))
        except (OSError, ValueError) as error:  # reported when the image is loaded or scanned
            digest.update(repr(error).encode())
    return digest.digest()
