"""Pictures as text within a page."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robustok_toolkit.report_parts import Pixels

#: Sides in pixels: larger pictures are shrunk, smaller ones are left to the browser to enlarge.
LARGEST = 256
#: From this size on, WebP at a quality that the eye does not tell from the original; below, PNG without any loss.
_PHOTOGRAPH = 96
_QUALITY = 90
#: Colours from none to largest error: black, violet, red, orange, pale yellow; their lightness rises evenly.
_STOPS = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], np.float64)


def data_uri(pixels: Pixels, largest: int = LARGEST) -> str:
    """A picture (H, W, 3) uint8 as a data URI, at most `largest` pixels wide and high."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if max(picture.size) > largest:
        picture.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    stored = io.BytesIO()
    if max(picture.size) >= _PHOTOGRAPH:
        picture.save(stored, format="WEBP", quality=_QUALITY)
        kind = "webp"
    else:
        picture.save(stored, format="PNG", optimize=True)
        kind = "png"
    return f"data:image/{kind};base64,{base64.b64encode(stored.getvalue()).decode('ascii')}"


def error_map(original: Pixels, other: Pixels, largest: float) -> Pixels:
    """The mean absolute error of each pixel's channels as a colour; `largest`, in levels of 255, is the brightest."""
    error: NDArray[Any] = np.abs(original.astype(np.float64) - other.astype(np.float64)).mean(axis=-1)
    place = np.clip(error / largest, 0, 1) * (len(_STOPS) - 1)
    channels = [np.interp(place, range(len(_STOPS)), _STOPS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
