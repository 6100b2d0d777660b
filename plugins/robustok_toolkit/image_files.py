"""Files with sets of images: ADM's sample file, a folder of image files, reference statistics.

ADM's sample file (Dhariwal & Nichol 2021, guided-diffusion) is what published evaluators read: an uncompressed
.npz with arr_0, uint8 (n, H, W, 3). ADM's reference files may also hold mu and sigma, computed over more images
than arr_0 has.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from robustok_core.errors import RobustokError, RunError
from robustok_core.kinds.dataset import Images
from robustok_core.runs.files import new_file
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_core.values.images import from_uint8
from robustok_toolkit.array_files import array_names, find_array, whole_array
from robustok_toolkit.image_decoding import as_rgb, naming_the_image, orientation
from robustok_toolkit.image_search import images_of_folder

_log = logging.getLogger(__name__)
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
_HASHED_AT_ONCE = 2**26  # bytes
_LOOKED_AT = 256  # images of a folder, evenly spread, before a run begins; the search for all takes longer

# --- writing --------------------------------------------------------------------------------------


def write_samples(file: Path, pictures: Iterable[NDArray[np.uint8]], labels: Tensor, *, image_size: int) -> None:
    """Writes ADM's sample file image by image; only one image is in memory at a time.

    The arrays are those of `numpy.savez(file, arr_0=..., arr_1=labels)`, and the file's bytes depend only on them.
    The file appears once it is complete.

    Args:
        file: its name ends in .npz.
        pictures: one uint8 (image_size, image_size, 3) image for each label.
        labels: (n,) int64.

    Raises:
        RunError: the file cannot be written.
        ValueError: an image has another shape or type, or the numbers of images and labels differ.
    """
    shape = (image_size, image_size, 3)
    with new_file(file, writer=str(os.getpid())) as aside, zipfile.ZipFile(aside, "w") as archive:
        with _member(archive, "arr_0", (len(labels), *shape), np.dtype(np.uint8)) as opened:
            for image in _counted(pictures, len(labels)):
                if image.shape != shape or image.dtype != np.uint8:
                    raise ValueError(f"an image must be uint8 {shape}, found {image.dtype} {image.shape}")
                opened.write(image.tobytes())
        numbers = labels.cpu().numpy().astype("<i8")
        with _member(archive, "arr_1", numbers.shape, numbers.dtype) as opened:
            opened.write(numbers.tobytes())


def _counted(images: Iterable[NDArray[np.uint8]], count: int) -> Iterator[NDArray[np.uint8]]:
    found = 0
    for image in images:
        found += 1
        if found > count:
            break
        yield image
    if found != count:
        raise ValueError(f"{count} labels, but {'more' if found > count else found} images")


@contextmanager
def _member(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[IO[bytes]]:
    """Opens an array of a .npz file and writes its header; the caller writes the values in C order."""
    info = zipfile.ZipInfo(f"{name}.npy")  # with a fixed date
    with archive.open(info, "w", force_zip64=True) as opened:
        descr = np.lib.format.dtype_to_descr(dtype)
        np.lib.format.write_array_header_1_0(opened, {"descr": descr, "fortran_order": False, "shape": shape})
        yield opened


# --- reading --------------------------------------------------------------------------------------


def open_images(path: Path) -> Images:
    """The images of a .npz file or of a folder.

    Raises:
        RobustokError: the path does not exist or holds no images.
    """
    if path.is_dir():
        return FolderImages(path)
    return NpzImages(path)


@frozen(kw_only=True)
class Outline:
    """The number and size of the images of a set, found without reading all of them.

    Attributes:
        num_images: how many it has. size: height and width of its images, in pixels.
    """

    num_images: int
    size: tuple[int, int]


def shown_size(size: tuple[int, int]) -> str:
    """ "64 x 32" for a height of 32 and a width of 64."""
    height, width = size
    return f"{width} x {height}"


def outline_of(path: Path) -> Outline:
    """The outline of the images of a .npz file or of a folder; of a large folder, only some images are opened.

    Raises:
        RobustokError: as `open_images`, as far as it shows.
    """
    if not path.is_dir():
        count, height, width, _ = NpzImages(path).shape
        return Outline(num_images=count, size=(height, width))
    files = [Path(image.path) for image in images_of_folder(path).images]
    some = min(len(files), _LOOKED_AT)
    (width, height), _ = _common_size([files[number * len(files) // some] for number in range(some)])
    return Outline(num_images=len(files), size=(height, width))


def reference_moments(path: Path, suffix: str = "") -> tuple[Tensor, Tensor] | None:
    """Mu (F,) and sigma (F, F) of a reference file, float64; None if it has no mu.

    Args:
        path: the file. suffix: "_s" for the statistics of spatial features that ADM's references have.

    Raises:
        RobustokError: the file is missing or damaged, or the shapes do not match.
    """
    if f"mu{suffix}" not in array_names(path):
        return None
    mu, sigma = (whole_array(path, name + suffix).astype(np.float64) for name in ("mu", "sigma"))
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        message = f"mu{suffix} and sigma{suffix} must be (F,) and (F, F), found {mu.shape} and {sigma.shape}"
        raise RobustokError(message, where=str(path))
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise RobustokError(f"mu{suffix} or sigma{suffix} holds NaN or infinity", where=str(path))
    return torch.from_numpy(mu), torch.from_numpy(sigma)


class NpzImages(Images):
    """The images of ADM's sample file: arr_0, uint8 (n, H, W, 3); labels from arr_1, or zeros without it.

    An uncompressed file is memory-mapped; a compressed one is decompressed into memory at the first access.

    Raises:
        RobustokError: on construction, if the file is missing or damaged or holds no such array.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        names = array_names(path)
        if "arr_0" not in names:
            statistics = "; it holds statistics of images (mu, sigma)" if "mu" in names else ""
            hint = f"a sample file has arr_0, uint8 (n, H, W, 3); arrays found: {', '.join(names) or 'none'}"
            raise RobustokError(f"this file holds no images{statistics}", where=str(path), hint=hint)
        self._array = find_array(path, "arr_0")
        shape, dtype = self._array.shape, self._array.dtype
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
            raise RobustokError(f"images must be uint8 (n, H, W, 3), found {dtype} {shape}", where=f"{path}, arr_0")
        if 0 in shape:
            raise RobustokError("there are no images", where=f"{path}, arr_0")
        self._labels = _labels(path, shape[0]) if "arr_1" in names else torch.zeros(shape[0], dtype=torch.int64)

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's: (n, H, W, 3)."""
        return self._array.shape

    @property
    def labels(self) -> Tensor:
        return self._labels

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.blake2b(repr(self._array.shape).encode(), digest_size=16)
        step = max(1, _HASHED_AT_ONCE // int(np.prod(self._array.shape[1:])))
        for start in range(0, len(self), step):
            digest.update(np.ascontiguousarray(self._pixels[start : start + step]).data)
        digest.update(self._labels.numpy().data)
        return digest.hexdigest()

    @cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        """(n, H, W, 3), memory-mapped if possible."""
        array = self._array
        if array.offset is None:
            return whole_array(self.path, "arr_0")
        try:
            return np.memmap(self.path, np.uint8, "r", array.offset, array.shape)
        except (OSError, ValueError) as error:
            raise RunError(f"cannot be read: {error}", where=str(self.path)) from error

    def load(self, indices: Sequence[int], draws: Draws | None = None) -> ImageBatch:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        pixels = torch.from_numpy(np.asarray(self._pixels[rows.numpy()])).permute(0, 3, 1, 2)  # (B, 3, H, W)
        return ImageBatch(images=from_uint8(pixels).contiguous(), labels=self._labels[rows], indices=rows)

    def __getstate__(self) -> dict[str, Any]:
        # a data loader worker opens the file itself: pickling a memory map would copy its content
        return {name: value for name, value in vars(self).items() if name != "_pixels"}


class FolderImages(Images):
    """All images in a folder and all folders in it, sorted by path; labels are zeros.

    Images must have 8 bits per channel and the same size; grey ones are repeated to 3 channels, transparency is
    dropped, and they are turned upright as their EXIF data say. Other files are passed over, with a note in the log.

    Raises:
        RobustokError: on construction, if there are no images, their sizes differ, or one does not have 8 bits.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise RobustokError("there is no such folder", where=str(path))
        found = images_of_folder(path)
        if found.note:
            _log.warning("%s: %s", path, found.note)
        self._files = [Path(image.path) for image in found.images]
        self._size, self._any_turned = _common_size(self._files)

    @property
    def labels(self) -> Tensor:
        return torch.zeros(len(self._files), dtype=torch.int64)

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.blake2b(b"upright" if self._any_turned else b"", digest_size=16)
        for file in self._files:
            with naming_the_image(str(file)):
                content = file.read_bytes()
            digest.update(f"{len(content)} ".encode())
            digest.update(content)
        return digest.hexdigest()

    def load(self, indices: Sequence[int], draws: Draws | None = None) -> ImageBatch:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        pixels = torch.from_numpy(np.stack([self._pixels_of(self._files[row]) for row in rows.tolist()]))
        images = from_uint8(pixels.permute(0, 3, 1, 2)).contiguous()  # (B, 3, H, W)
        return ImageBatch(images=images, labels=torch.zeros_like(rows), indices=rows)

    def _pixels_of(self, file: Path) -> NDArray[np.uint8]:
        with _opened_image(file) as image:
            rgb = as_rgb(image)
        if rgb.size != self._size:
            raise RunError("this image changed while it was used", where=str(file))
        return np.asarray(rgb)


def _common_size(files: Sequence[Path]) -> tuple[tuple[int, int], bool]:
    """The width and height of all images, and whether any is turned.

    Raises:
        RobustokError: their sizes differ, or one cannot be read or does not have 8 bits.
    """
    first, any_turned = None, False
    for file in files:
        with _opened_image(file) as image:
            turned = orientation(image) != 1
            size = as_rgb(image).size if turned else image.size
        any_turned |= turned
        first = first or size
        if size != first:
            raise RobustokError(
                f"this image has {size[0]}x{size[1]} pixels, but {files[0].name} has {first[0]}x{first[1]}",
                where=str(file),
                hint="resize the images to one size first: the resizing method affects the metrics",
            )
    assert first is not None
    return first, any_turned


@contextmanager
def _opened_image(file: Path) -> Iterator[Image.Image]:
    with naming_the_image(str(file)), Image.open(file) as image:
        if image.mode not in _EIGHT_BIT_MODES:
            raise RobustokError(f"images must have 8 bits per channel, found mode {image.mode}", where=str(file))
        yield image


def _labels(path: Path, count: int) -> Tensor:
    labels = whole_array(path, "arr_1")
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        message = f"arr_1 must hold {count} integer labels, one per image; found {labels.dtype} {labels.shape}"
        raise RobustokError(message, where=str(path))
    if labels.min() < 0:
        raise RobustokError(f"labels must not be negative, found {labels.min()}", where=str(path))
    if labels.max() >= 2**63:
        raise RobustokError(f"the label {labels.max()} is too high", where=str(path))
    return torch.from_numpy(labels.astype(np.int64))
