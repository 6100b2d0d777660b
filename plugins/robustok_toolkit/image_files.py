"""Sets of generated or real images as files hold them: ADM's sample file, a folder of pictures, reference statistics.

ADM's sample file (Dhariwal & Nichol 2021, guided-diffusion) is what published evaluators read: an uncompressed
.npz with arr_0, uint8 (n, H, W, 3). Its reference files may also hold mu and sigma, which then stand for more
images than arr_0 has.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from robustok_core.errors import RobustokError, RunError
from robustok_core.kinds.dataset import Images
from robustok_core.runs.files import new_file
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_core.values.images import from_uint8

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"})
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
_HASHED_AT_ONCE = 2**26  # bytes

#: What zipfile and numpy raise for a damaged file.
_DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError)


# --- writing --------------------------------------------------------------------------------------


def write_samples(file: Path, pictures: Iterable[NDArray[np.uint8]], labels: Tensor, *, image_size: int) -> None:
    """Writes ADM's sample file, picture by picture: never more than one is held in memory.

    The arrays are what `numpy.savez(file, arr_0=..., arr_1=labels)` would write, and the file's bytes depend on
    nothing but them. The file appears when it is whole.

    Args:
        file: its name ends in .npz.
        pictures: uint8 (image_size, image_size, 3), as many as there are labels.
        labels: (n,) int64.

    Raises:
        RunError: the disk refuses.
        ValueError: a picture has another shape or type, or there are more or fewer than labels.
    """
    shape = (image_size, image_size, 3)
    with new_file(file, writer=str(os.getpid())) as aside, zipfile.ZipFile(aside, "w") as archive:
        with _member(archive, "arr_0", (len(labels), *shape), np.dtype(np.uint8)) as opened:
            for picture in _counted(pictures, len(labels)):
                if picture.shape != shape or picture.dtype != np.uint8:
                    raise ValueError(f"a picture must be uint8 {shape}, found {picture.dtype} {picture.shape}")
                opened.write(picture.tobytes())
        numbers = labels.cpu().numpy().astype("<i8")
        with _member(archive, "arr_1", numbers.shape, numbers.dtype) as opened:
            opened.write(numbers.tobytes())


def _counted(pictures: Iterable[NDArray[np.uint8]], count: int) -> Iterator[NDArray[np.uint8]]:
    found = 0
    for picture in pictures:
        found += 1
        if found > count:
            break
        yield picture
    if found != count:
        raise ValueError(f"{count} labels, and {'more' if found > count else found} pictures")


@contextmanager
def _member(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[IO[bytes]]:
    """An array of a .npz file with its header written: the numbers are to follow in C order."""
    about = zipfile.ZipInfo(f"{name}.npy")  # with a fixed date
    with archive.open(about, "w", force_zip64=True) as opened:
        descr = np.lib.format.dtype_to_descr(dtype)
        np.lib.format.write_array_header_1_0(opened, {"descr": descr, "fortran_order": False, "shape": shape})
        yield opened


# --- reading --------------------------------------------------------------------------------------


def open_images(path: Path) -> Images:
    """The images of a .npz file or of a folder.

    Raises:
        RobustokError: there is no such thing, or it holds no images.
    """
    if path.is_dir():
        return FolderImages(path)
    return NpzImages(path)


def array_names(path: Path) -> list[str]:
    """The names of the arrays in a .npz file.

    Raises:
        RobustokError: there is no such file, or it is damaged.
    """
    with _opened(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def reference_moments(path: Path) -> tuple[Tensor, Tensor] | None:
    """What a reference file holds as mu (F,) and sigma (F, F), float64; None where it has no mu.

    Raises:
        RobustokError: there is no such file, it is damaged, or the two do not fit.
    """
    if "mu" not in array_names(path):
        return None
    mu, sigma = (_whole_array(path, name).astype(np.float64) for name in ("mu", "sigma"))
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        what = f"mu and sigma must be (F,) and (F, F), found {mu.shape} and {sigma.shape}"
        raise RobustokError(what, where=str(path))
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise RobustokError("mu or sigma holds NaN or infinity", where=str(path))
    return torch.from_numpy(mu), torch.from_numpy(sigma)


class NpzImages(Images):
    """The images of ADM's sample file: arr_0, uint8 (n, H, W, 3); labels from arr_1, zeros without it.

    An uncompressed file is not read before its images are asked for, and then by index; a compressed
    one is decompressed into memory at the first of them.

    Raises:
        RobustokError: at once, where the file is missing or damaged or holds no such array.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        names = array_names(path)
        if "arr_0" not in names:
            statistics = "; it holds statistics of images (mu, sigma)" if "mu" in names else ""
            hint = f"a sample file has arr_0, uint8 (n, H, W, 3); arrays found: {', '.join(names) or 'none'}"
            raise RobustokError(f"this file holds no images{statistics}", where=str(path), hint=hint)
        self._place = _find_array(path, "arr_0")
        shape, dtype = self._place.shape, self._place.dtype
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
            raise RobustokError(f"images must be uint8 (n, H, W, 3), found {dtype} {shape}", where=f"{path}, arr_0")
        if 0 in shape:
            raise RobustokError("there are no images", where=f"{path}, arr_0")
        self._labels = _labels(path, shape[0]) if "arr_1" in names else torch.zeros(shape[0], dtype=torch.int64)

    @property
    def labels(self) -> Tensor:
        return self._labels

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.blake2b(repr(self._place.shape).encode(), digest_size=16)
        step = max(1, _HASHED_AT_ONCE // int(np.prod(self._place.shape[1:])))
        for start in range(0, len(self), step):
            digest.update(np.ascontiguousarray(self._pixels[start : start + step]).data)
        digest.update(self._labels.numpy().data)
        return digest.hexdigest()

    @cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        """(n, H, W, 3), on the disk where that is possible."""
        place = self._place
        if place.offset is None:
            return _whole_array(self.path, "arr_0")
        try:
            return np.memmap(self.path, np.uint8, "r", place.offset, place.shape)
        except _DAMAGED as error:
            raise RunError(f"cannot be read: {error}", where=str(self.path)) from error

    def load(self, indices: Sequence[int], draws: Draws | None = None) -> ImageBatch:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        pixels = torch.from_numpy(np.asarray(self._pixels[rows.numpy()])).permute(0, 3, 1, 2)  # (B, 3, H, W)
        return ImageBatch(images=from_uint8(pixels).contiguous(), labels=self._labels[rows], indices=rows)

    def __getstate__(self) -> dict[str, Any]:
        # a data loader worker opens the file itself: a pickled memory map would carry its content
        return {name: value for name, value in vars(self).items() if name != "_pixels"}


class FolderImages(Images):
    """All pictures in a folder and the folders in it, in the order of their paths; labels are zeros.

    Pictures are 8 bits a channel and of one size; grey ones are repeated to 3 channels, transparency is
    dropped. Hidden files and files of other kinds are passed over.

    Raises:
        RobustokError: at once, where there is no picture, or sizes or kinds of pixels differ.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise RobustokError("there is no such folder", where=str(path))
        inside = (file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS and file.is_file())
        self._files = sorted(
            file for file in inside if not any(p.startswith(".") for p in file.relative_to(path).parts)
        )
        if not self._files:
            hint = f"pictures end in {', '.join(sorted(EXTENSIONS))}"
            raise RobustokError("there are no pictures in this folder", where=str(path), hint=hint)
        self._check_sizes()

    def _check_sizes(self) -> None:
        first = None
        for file in self._files:
            with _opened_picture(file) as picture:
                first = first or picture.size
                if picture.size != first:
                    other = f"where {self._files[0].name} has {first[0]}x{first[1]}"
                    what = f"this picture has {picture.width}x{picture.height} pixels, {other}"
                    hint = "judged pictures must be of one size: how they were resized is part of the result"
                    raise RobustokError(what, where=str(file), hint=hint)

    @property
    def labels(self) -> Tensor:
        return torch.zeros(len(self._files), dtype=torch.int64)

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for file in self._files:
            content = file.read_bytes()
            digest.update(f"{len(content)} ".encode())
            digest.update(content)
        return digest.hexdigest()

    def load(self, indices: Sequence[int], draws: Draws | None = None) -> ImageBatch:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        pixels = torch.from_numpy(np.stack([_pixels_of(self._files[row]) for row in rows.tolist()]))
        images = from_uint8(pixels.permute(0, 3, 1, 2)).contiguous()  # (B, 3, H, W)
        return ImageBatch(images=images, labels=torch.zeros_like(rows), indices=rows)


@contextmanager
def _opened_picture(file: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as picture:
            if picture.mode not in _EIGHT_BIT_MODES:
                raise RobustokError(f"pictures must have 8 bits a channel, found mode {picture.mode}", where=str(file))
            yield picture
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises SyntaxError for some broken files
        raise RobustokError(f"this picture cannot be read: {error}", where=str(file)) from error


def _pixels_of(file: Path) -> NDArray[np.uint8]:
    with _opened_picture(file) as picture:
        # a transparent palette is resolved first: Pillow warns otherwise
        resolved = picture.convert("RGBA") if picture.mode in ("P", "PA") else picture
        return np.asarray(resolved.convert("RGB"))


# --- arrays in a .npz file ------------------------------------------------------------------------


class _Place:
    """An array in a .npz file: its header, and at which byte its numbers begin, None where they are compressed."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int | None) -> None:
        self.shape, self.dtype, self.offset = shape, dtype, offset


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    if not path.is_file():
        raise RobustokError("there is no such file", where=str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _DAMAGED as error:
        hint = "is it whole? The table of a .npz file's arrays stands at its end"
        raise RobustokError(f"this is no readable .npz file ({error})", where=str(path), hint=hint) from error


def _find_array(path: Path, name: str) -> _Place:
    with _opened(path) as archive:
        member = archive.getinfo(f"{name}.npy")
        with archive.open(member) as opened:
            shape, by_columns, dtype = _read_header(opened)
            header = opened.tell()
        if member.compress_type != zipfile.ZIP_STORED or by_columns:
            return _Place(shape, dtype, None)
        if header + int(np.prod(shape)) * dtype.itemsize != member.file_size:
            raise ValueError(f"{name} has another length than its header says")
        with path.open("rb") as raw:
            raw.seek(member.header_offset)
            name_length, extra_length = struct.unpack("<26x2H", raw.read(30))
        return _Place(shape, dtype, member.header_offset + 30 + name_length + extra_length + header)


def _read_header(opened: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(opened)
    if version not in readers:
        raise ValueError(f"unknown version {version} of an array's header")
    return readers[version](opened)


def _whole_array(path: Path, name: str) -> NDArray[Any]:
    with _opened(path) as archive:
        if f"{name}.npy" not in archive.namelist():
            raise RobustokError(f"no array {name}", where=str(path))
        with archive.open(f"{name}.npy") as opened:
            return np.lib.format.read_array(opened, allow_pickle=False)


def _labels(path: Path, count: int) -> Tensor:
    found = _whole_array(path, "arr_1")
    if found.shape != (count,) or not np.issubdtype(found.dtype, np.integer):
        what = f"arr_1 must be {count} whole numbers, the images' labels; found {found.dtype} {found.shape}"
        raise RobustokError(what, where=str(path))
    if found.min() < 0:
        raise RobustokError(f"labels must count from 0, found {found.min()}", where=str(path))
    return torch.from_numpy(found.astype(np.int64))
