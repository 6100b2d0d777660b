"""Decodes images of any kind to 8-bit RGB, and says in one message why one cannot be decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from robustok_core.errors import RobustokError, RunError

#: How an image is turned upright, by the EXIF tag Orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_MOST_SCALED = 8  # libjpeg decodes at 1/2, 1/4 and 1/8


def as_rgb(picture: Image.Image, *, exif: bool = True) -> Image.Image:
    """Converts to 8-bit RGB: takes the upper 8 bits of 16-bit grey, and drops transparency, as ADM does.

    Args:
        picture: of an animation, the current frame.
        exif: turn it upright as its EXIF data say. ADM does not; TIFF files are always turned, by Pillow.

    Raises:
        ValueError: the pixels have no fixed range (32-bit).
    """
    if exif:
        picture.load()  # Pillow turns a TIFF file when it is loaded
        turn = _UPRIGHT.get(orientation(picture))
        picture = picture if turn is None else picture.transpose(turn)
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(f"32-bit pixels (mode {picture.mode}) have no known range")
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")  # resolves a transparent palette; Pillow warns otherwise
    return picture.convert("RGB")


def halve_while_decoding(picture: Image.Image, side: int) -> None:
    """Has libjpeg halve a JPEG file, up to three times, where ADM would halve the decoded image for a crop of `side`.

    Not the same pixels: libjpeg leaves out high frequencies, where ADM takes means of 2 x 2 pixels. Sides that are not
    even are not halved, because libjpeg rounds up what ADM rounds down, which moves the image.

    Args:
        picture: just opened, not decoded; one of another format is left alone.
    """
    (width, height), scale = picture.size, 1
    while scale < _MOST_SCALED and min(width, height) >= 2 * side and width % 2 == height % 2 == 0:
        width, height, scale = width // 2, height // 2, scale * 2
    if scale > 1 and picture.format == "JPEG":
        picture.draft(picture.mode, (width, height))


def orientation(picture: Image.Image) -> int:
    """The EXIF tag Orientation: 1 is upright, 2 to 4 are mirrored or turned, 5 to 8 have width and height exchanged."""
    try:
        tag = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except MemoryError:  # the picture may have to be turned
        raise
    except Exception:  # Pillow raises many types for damaged EXIF data, beside pixels that may be whole
        return 1
    return tag if isinstance(tag, int) and tag in _UPRIGHT else 1


def why_unreadable(error: Exception) -> str:
    """What an exception of Pillow says about an image."""
    if isinstance(error, UnidentifiedImageError):  # its text is the address of an object in memory
        return "UnidentifiedImageError: this is not an image, or of a format that Pillow does not decode"
    return f"{type(error).__name__}: {str(error) or 'no reason given'}"


@contextmanager
def naming_the_image(where: str) -> Iterator[None]:
    """Turns whatever goes wrong while an image is opened and decoded into one message.

    Raises:
        RobustokError: naming the image; a RunError if memory ran out, which is not the image's fault.
    """
    try:
        yield
    except RobustokError:
        raise
    except MemoryError as error:
        raise RunError("there is not enough memory to decode this image", where=where) from error
    except Exception as error:  # Pillow raises many types for damaged files
        raise RobustokError(f"this image cannot be read: {why_unreadable(error)}", where=where) from error
