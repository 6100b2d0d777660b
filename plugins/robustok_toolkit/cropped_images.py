"""Images for a tokenizer: files and PIL images are cropped (ADM's centre crop), tensors are only checked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from PIL import Image
from torch import Tensor

from robustok_core.errors import RobustokError, RunError
from robustok_core.values.images import from_uint8
from robustok_core.values.wording import described, some_names
from robustok_toolkit.arguments import whole_number
from robustok_toolkit.crops import center_crop
from robustok_toolkit.image_decoding import as_rgb, naming_the_image
from robustok_toolkit.image_search import images_of_folder

#: One image: a file, or one in memory.
Picture = str | os.PathLike[str] | Image.Image | Tensor

_ACCEPTED = "give paths, PIL images (Image.fromarray makes one of an 8-bit array) and float tensors, in a list"


@frozen
class FoundImages:
    """Image files for a command.

    Attributes:
        files: by name: a given file by its name, a file in a given folder by its path within the folder.
        notes: for each folder of which something was passed over, what and why.
    """

    files: dict[str, Path]
    notes: tuple[str, ...]


def images_in(inputs: Sequence[Path]) -> FoundImages:
    """The given files, and the image files in the given folders and all folders in them.

    Raises:
        RobustokError: if a file or folder does not exist, a folder has no images, or two images have the same name.
    """
    files: dict[str, Path] = {}
    notes = []
    for given in inputs:
        found, note = _images_of(given)
        for name, file in found:
            if name in files:
                hint = "encode them one after another, or give the folder that holds both"
                raise RobustokError(f"two images are called {name!r}: {files[name]} and {file}", hint=hint)
            files[name] = file
        if note:
            notes.append(f"{given}: {note}")
    return FoundImages(files=files, notes=tuple(notes))


def _images_of(given: Path) -> tuple[list[tuple[str, Path]], str | None]:
    if given.is_file():
        return [(given.name, given)], None
    if not given.is_dir():
        raise RobustokError("there is no such file or folder", where=str(given))
    found = images_of_folder(given)
    return [(image.name, Path(image.path)) for image in found.images], found.note


def without_damaged(files: Mapping[str, Path]) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The image files that can be decoded, all of which are tried, and a note that counts and names the others.

    Raises:
        RobustokError: if none can be decoded.
    """
    good, damaged = {}, []
    for name, file in files.items():
        try:
            with naming_the_image(str(file)), Image.open(file) as opened:
                as_rgb(opened)
        except RunError:
            raise
        except RobustokError as error:
            damaged.append(f"{error.where} ({error.what})")
        else:
            good[name] = file
    if not damaged:
        return good, ()
    note = f"{len(damaged)} of {len(files)} images cannot be read and are left out: {some_names(damaged)}"
    if not good:
        raise RobustokError(note.replace(" and are left out", ""))
    return good, (note,)


def batches_of(
    pictures: Picture | Sequence[Picture], size: int, batch_size: int, *, exif: bool = True
) -> Iterator[Tensor]:
    """Yields (b, 3, size, size) float32 in [-1, 1], in order; files are opened when their batch is needed.

    Args:
        pictures: files and PIL images of any size, which are cropped, and tensors (3, size, size) in [-1, 1], which
            are not; or one tensor (n, 3, size, size). One image needs no list.
        size: height and width. batch_size: images per batch.
        exif: turn files and PIL images upright as their EXIF data say.

    Raises:
        RobustokError: if there are none, one is not an image, or a tensor has the wrong shape, type or range.
    """
    given, batch_size = _listed(pictures, size), whole_number(batch_size, "batch_size", least=1)
    for start in range(0, len(given), batch_size):
        batch = given[start : start + batch_size]
        yield torch.stack([_as_tensor(image, size, f"image {start + n}", exif) for n, image in enumerate(batch)])


def _listed(pictures: Any, size: int) -> Any:
    """The given images as a sequence or tensor, all of a type that is accepted; their contents are checked later."""
    if isinstance(pictures, Tensor):
        if pictures.ndim not in (3, 4):
            what = f"expected a tensor (n, 3, {size}, {size}) of floats, found {described(pictures)}"
            raise RobustokError(what, where="images", hint=_ACCEPTED)
        given: Any = pictures[None] if pictures.ndim == 3 else pictures
    elif isinstance(pictures, (str, os.PathLike, Image.Image)):
        given = [pictures]
    elif isinstance(pictures, Sequence) and not isinstance(pictures, (bytes, bytearray)):
        given = pictures
    else:
        what = f"expected images, found {described(pictures)}"
        raise RobustokError(what, where="images", hint=_ACCEPTED)
    if len(given) == 0:
        raise RobustokError("there are no images to encode")
    for number, image in enumerate(given):
        if not isinstance(image, (str, os.PathLike, Image.Image, Tensor)):
            what = f"expected an image, found {described(image)}"
            raise RobustokError(what, where=f"image {number}", hint=_ACCEPTED)
    return given


def _as_tensor(image: Picture, size: int, where: str, exif: bool) -> Tensor:
    if isinstance(image, Tensor):
        return _checked(image, size, where)
    if isinstance(image, Image.Image):
        with naming_the_image(where):
            return _cropped(image, size, exif)
    with naming_the_image(os.fspath(image)):
        if Path(image).is_dir():
            hint = "give the image files in it, for example sorted(Path(FOLDER).glob('*.png'))"
            raise RobustokError("this is a folder, not an image", where=os.fspath(image), hint=hint)
        with Image.open(image) as opened:
            return _cropped(opened, size, exif)


def _checked(image: Tensor, size: int, where: str) -> Tensor:
    if image.shape != (3, size, size) or not image.is_floating_point():
        what = f"expected a tensor (3, {size}, {size}) of floats, found {tuple(image.shape)} of {image.dtype}"
        hint = "only PIL images and files are cropped to this size"
        if image.dtype == torch.uint8:
            hint = "x / 127.5 - 1 makes floats in [-1, 1] of 8-bit pixels"
        raise RobustokError(what, where=where, hint=hint)
    if not bool((image.abs() <= 1.0).all()):
        raise RobustokError("an image tensor must lie in [-1, 1]", where=where, hint="0 is mid-grey")
    return image.detach().float().cpu()


def _cropped(image: Image.Image, size: int, exif: bool) -> Tensor:
    """(3, size, size) float32 in [-1, 1]: ADM's centre crop, which is computed in 8 bits."""
    rgb = as_rgb(image, exif=exif)  # decodes a file that was opened lazily
    return from_uint8(torch.from_numpy(np.array(center_crop(rgb, size))).permute(2, 0, 1))


def as_pil(pixels: Tensor) -> list[Image.Image]:
    """Converts uint8 (B, 3, H, W) to PIL images."""
    return [Image.fromarray(image) for image in pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()]
