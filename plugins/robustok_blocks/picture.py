"""A picture of several rows of images, each with its caption."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from robustok_core.files import writing

_CAPTION_HEIGHT = 16
_SMALL = 64  # pixels: smaller images are enlarged by a whole factor, so that one can see them


def save_rows(file: Path, rows: Mapping[str, Tensor]) -> None:
    """Writes a PNG with one row for each caption.

    Args:
        file: the PNG to write.
        rows: by caption, images (B, 3, H, W) uint8; all of one size.
    """
    strips = {caption: _strip(images) for caption, images in rows.items()}
    width = max(strip.width for strip in strips.values())
    height = sum(strip.height + _CAPTION_HEIGHT for strip in strips.values())
    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    top = 0
    for caption, strip in strips.items():
        pen.text((4, top + 2), caption, fill="black")
        picture.paste(strip, (0, top + _CAPTION_HEIGHT))
        top += strip.height + _CAPTION_HEIGHT
    with writing(file):
        picture.save(file, format="PNG")


def _strip(images: Tensor) -> Image.Image:
    strip = Image.fromarray(rearrange(images.cpu(), "b c h w -> h (b w) c").contiguous().numpy())
    factor = max(1, _SMALL // images.shape[-1])
    return strip.resize((strip.width * factor, strip.height * factor), Image.Resampling.NEAREST)
