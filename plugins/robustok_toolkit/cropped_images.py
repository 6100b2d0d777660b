"""Images for a tokenizer: files and PIL images are cropped (ADM's centre crop), tensors are only checked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.values.images import from_uint8
from robustok_toolkit.crops import as_rgb, center_crop
from robustok_toolkit.image_files import EXTENSIONS

#: One image: a file, or one in memory.
Picture = str | os.PathLike[str] | Image.Image | Tensor


def images_in(inputs: Sequence[Path]) -> dict[str, Path]:
    """Image files by name: a given file by its name, a file in a given folder by its path within the folder.

    Raises:
        RobustokError: if a file or folder does not exist, a folder has no images, or two images have the same name.
    """
    files: dict[str, Path] = {}
    for given in inputs:
        for name, file in _images_of(given):
            if name in files:
                hint = "encode them one after another, or give the folder that holds both"
                raise RobustokError(f"two images are called {name!r}: {files[name]} and {file}", hint=hint)
            files[name] = file
    return files


def _images_of(given: Path) -> Iterator[tuple[str, Path]]:
    if given.is_file():
        yield given.name, given
        return
    if not given.is_dir():
        raise RobustokError("there is no such file or folder", where=str(given))
    inside = (file.relative_to(given) for file in given.rglob("*") if file.suffix.lower() in EXTENSIONS)
    names = sorted(name for name in inside if not any(part.startswith(".") for part in name.parts))
    if not names:
        hint = f"images end in {', '.join(sorted(EXTENSIONS))}"
        raise RobustokError("there are no images in this folder", where=str(given), hint=hint)
    yield from ((name.as_posix(), given / name) for name in names)


def batches_of(pictures: Sequence[Picture] | Tensor, size: int, batch_size: int) -> Iterator[Tensor]:
    """Yields (b, 3, size, size) float32 in [-1, 1], in order; files are opened when their batch is needed.

    Args:
        pictures: files and PIL images of any size, which are cropped, and tensors (3, size, size) in [-1, 1], which
            are not; or one tensor (n, 3, size, size).
        size: height and width. batch_size: images per batch.

    Raises:
        RobustokError: if there are none, a file is not an image, or a tensor has the wrong shape, type or range.
    """
    if isinstance(pictures, (str, os.PathLike, Image.Image)):
        pictures = [pictures]
    if len(pictures) == 0:
        raise RobustokError("there are no images to encode")
    for start in range(0, len(pictures), batch_size):
        batch = pictures[start : start + batch_size]
        yield torch.stack([_as_tensor(image, size, f"image {start + n}") for n, image in enumerate(batch)])


def _as_tensor(image: Picture, size: int, where: str) -> Tensor:
    if isinstance(image, Tensor):
        return _checked(image, size, where)
    if not isinstance(image, Image.Image):
        return _read(Path(image), size)
    return _cropped(image, size, where)


def _checked(image: Tensor, size: int, where: str) -> Tensor:
    if image.shape != (3, size, size) or not image.is_floating_point():
        what = f"expected a tensor (3, {size}, {size}) of floats, found {tuple(image.shape)} of {image.dtype}"
        raise RobustokError(what, where=where, hint="only PIL images and files are cropped to this size")
    if not bool((image.abs() <= 1.0).all()):
        raise RobustokError("an image tensor must lie in [-1, 1]", where=where, hint="0 is mid-grey")
    return image.detach().float().cpu()


def _read(file: Path, size: int) -> Tensor:
    try:
        opened = Image.open(file)
    except Exception as error:  # Pillow raises many types for a broken file
        raise RobustokError(f"this image cannot be read: {error}", where=str(file)) from error
    with opened:
        return _cropped(opened, size, str(file))


def _cropped(image: Image.Image, size: int, where: str) -> Tensor:
    """(3, size, size) float32 in [-1, 1]: ADM's centre crop, which is computed in 8 bits."""
    try:
        rgb = as_rgb(image)  # decodes a file that was opened lazily
    except Exception as error:
        raise RobustokError(f"this image cannot be read: {error}", where=where) from error
    return from_uint8(torch.from_numpy(np.array(center_crop(rgb, size))).permute(2, 0, 1))


def as_pil(pixels: Tensor) -> list[Image.Image]:
    """Converts uint8 (B, 3, H, W) to PIL images."""
    return [Image.fromarray(image) for image in pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()]
