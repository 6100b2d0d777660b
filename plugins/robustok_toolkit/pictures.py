"""Saves images as PNG files: one file each, a grid, or rows with captions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.runs.files import new_file
from robustok_core.runs.records import record_of
from robustok_core.values.printable import printable

_CAPTION_HEIGHT = 16
#: The key of a PNG file under which `save_rows` records captions, and the sizes and numbers of their pictures.
_ROWS = "robustok rows"
_SMALL = 64  # pixels; smaller images are enlarged by a whole factor to be visible


def save_rows(file: Path, rows: Mapping[str, Tensor]) -> None:
    """Writes a PNG with one row for each caption.

    Args:
        file: the PNG to write.
        rows: images (B, 3, H, W) uint8 by caption, all of the same size.
    """
    strips = {caption: _strip(images) for caption, images in rows.items()}
    about = [[caption, strip.height, strip.width // strip.height] for caption, strip in strips.items()]
    width = max(strip.width for strip in strips.values())
    height = sum(strip.height + _CAPTION_HEIGHT for strip in strips.values())
    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    top = 0
    for caption, strip in strips.items():
        pen.text((4, top + 2), printable(caption), fill="black")
        picture.paste(strip, (0, top + _CAPTION_HEIGHT))
        top += strip.height + _CAPTION_HEIGHT
    save_png(file, np.asarray(picture), about={_ROWS: json.dumps(about)})


def read_rows(file: Path) -> dict[str, list[NDArray[np.uint8]]]:
    """The pictures (H, W, 3) uint8 that `save_rows` wrote, by caption; small ones are enlarged.

    Raises:
        RobustokError: if the file is damaged, or an earlier version wrote it, which did not record the captions.
    """
    try:
        with Image.open(file) as opened:
            opened.load()
            pixels = np.asarray(opened.convert("RGB"))
            about = json.loads(getattr(opened, "text", {}).get(_ROWS, "null"))
    except (OSError, ValueError, SyntaxError) as error:
        raise RobustokError(f"this picture cannot be read: {error}", where=str(file)) from error
    if about is None:
        raise RobustokError("an earlier version wrote this picture, without the captions of its rows", where=str(file))
    rows, top = {}, 0
    for caption, size, count in record_of(list[tuple[str, int, int]], about, file):
        top += _CAPTION_HEIGHT
        rows[caption] = [pixels[top : top + size, size * column : size * (column + 1)] for column in range(count)]
        top += size
    return rows


def rows_by_class(
    pictures: Sequence[NDArray[np.uint8]],
    labels: Tensor,
    class_names: Sequence[str],
    columns: int,
    *,
    most_classes: int = 20,
) -> dict[str, Tensor]:
    """Rows for `save_rows`: the first images of each class, captioned with class number and name.

    Args:
        pictures: uint8 (H, W, 3), by index. labels: (n,) int64.
        class_names: by label.
        columns: largest number of images per class. most_classes: of more classes, so many are shown, evenly spread.
    """
    rows, found = {}, list(dict.fromkeys(labels.tolist()))
    spread = np.linspace(0, len(found) - 1, min(most_classes, len(found))).round().astype(int)
    for label in (found[number] for number in spread):
        indices = (labels == label).nonzero().flatten()[:columns].tolist()
        stack = torch.from_numpy(np.stack([pictures[index] for index in indices]))
        name = class_names[label]
        rows[name if name == str(label) else f"{label} {name}"] = rearrange(stack, "b h w c -> b c h w")
    return rows


def save_grid(file: Path, pictures: Sequence[NDArray[np.uint8]], columns: int) -> None:
    """Writes a PNG with images (H, W, 3) uint8 side by side, `columns` per row, on white."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    grid = Image.new("RGB", (width * min(columns, len(pictures)), height * rows), "white")
    for number, picture in enumerate(pictures):
        grid.paste(Image.fromarray(picture), (number % columns * width, number // columns * height))
    save_png(file, np.asarray(_enlarged(grid, width)))


def save_png(file: Path, pixels: NDArray[np.uint8], *, about: Mapping[str, str] | None = None) -> None:
    """Writes one image (H, W, 3) uint8, creating missing parent folders; `about` are texts to keep in the file."""
    texts = PngInfo()
    for key, text in (about or {}).items():
        texts.add_text(key, text)
    with new_file(file) as unfinished:
        Image.fromarray(pixels).save(unfinished, format="PNG", pnginfo=texts)


def _strip(images: Tensor) -> Image.Image:
    strip = Image.fromarray(rearrange(images.cpu(), "b c h w -> h (b w) c").contiguous().numpy())
    return _enlarged(strip, images.shape[-1])


def _enlarged(picture: Image.Image, size: int) -> Image.Image:
    """Enlarges a picture whose images have sides of `size` pixels."""
    factor = max(1, _SMALL // size)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
