"""Images of every kind become 8-bit RGB, upright, or are named."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from robustok_core.errors import RobustokError, RunError
from robustok_toolkit.crops import center_crop
from robustok_toolkit.image_decoding import as_rgb, halve_while_decoding, naming_the_image

GRADIENT = Image.fromarray((np.arange(20 * 30).reshape(20, 30) // 3).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def turned(kind: str, orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return encoded(GRADIENT.convert("RGB"), kind, exif=tags)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright_as_pillow_does(kind: str, orientation: int) -> None:
    content = turned(kind, orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(np.asarray(as_rgb(Image.open(io.BytesIO(content)))), np.asarray(upright))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_data_can_be_ignored_as_adm_does(kind: str) -> None:
    assert as_rgb(Image.open(io.BytesIO(turned(kind, 6))), exif=False).size == (30, 20)
    assert as_rgb(Image.open(io.BytesIO(turned(kind, 6)))).size == (20, 30)


@pytest.mark.parametrize("orientation", [0, 9, 60000])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    assert as_rgb(Image.open(io.BytesIO(turned("JPEG", orientation)))).size == (30, 20)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_leave_the_pixels_as_they_are() -> None:
    content = encoded(GRADIENT, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert as_rgb(Image.open(io.BytesIO(content))).size == (30, 20)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("1", "PNG"), ("L", "GIF"), ("LA", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("I;16", "PNG"), ("L", "PPM")],
)
def test_grey_in_any_format_has_equal_channels(mode: str, kind: str) -> None:
    wide = np.asarray(GRADIENT).astype(np.uint16) << 8
    content = encoded(Image.fromarray(wide) if mode == "I;16" else GRADIENT.convert(mode), kind)
    pixels = np.asarray(as_rgb(Image.open(io.BytesIO(content))))
    assert pixels.shape == (20, 30, 3)
    assert (pixels == pixels[..., :1]).all()
    if mode not in ("1", "P"):
        np.testing.assert_array_equal(pixels[..., 0], np.asarray(GRADIENT))


def test_of_an_animation_the_first_frame_is_read() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **_exact(kind))
        assert as_rgb(Image.open(io.BytesIO(content))).getpixel((0, 0)) == (255, 0, 0)


def _exact(kind: str) -> dict[str, object]:
    return {"lossless": True} if kind == "WEBP" else {}


def test_a_transparent_palette_and_cmyk_keep_their_colours() -> None:
    red = Image.new("RGB", (8, 8), (200, 30, 40))
    palette = red.quantize(4)
    palette.info["transparency"] = b"\x00\x80\xff\xff"
    for content in (encoded(palette, "PNG"), encoded(red.convert("CMYK"), "TIFF")):
        assert as_rgb(Image.open(io.BytesIO(content))).getpixel((3, 3)) == (200, 30, 40)


def bomb() -> bytes:
    """A PNG of a few bytes that claims 40000 x 40000 pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + name + content + checksum

    size = (40000).to_bytes(4, "big")
    header = chunk(b"IHDR", size + size + b"\x08\x00\x00\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bomb(), "DecompressionBombError: Image size .1600000000 pixels. exceeds limit"),
        (b"not an image", "UnidentifiedImageError: this is not an image, or of a format that Pillow does not decode"),
        (b"", "UnidentifiedImageError"),
        (encoded(GRADIENT, "PNG")[:-40], "OSError: .*truncated"),
        (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "32-bit pixels .mode F. have no known range"),
    ],
)
def test_what_cannot_be_read_is_one_message_that_names_the_file(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(content)
    with (
        pytest.raises(RobustokError, match=f"this image cannot be read: .*{message}") as caught,
        naming_the_image(str(file)),
        Image.open(file) as image,
    ):
        as_rgb(image)
    assert caught.value.where == str(file)


def test_memory_that_runs_out_while_exif_data_are_read_does_not_leave_an_image_as_it_lies(monkeypatch) -> None:
    def without_memory(_: object) -> None:
        raise MemoryError

    image = Image.open(io.BytesIO(turned("JPEG", 6)))
    monkeypatch.setattr(type(image), "getexif", without_memory)
    with pytest.raises(RunError, match="there is not enough memory to decode this image"), naming_the_image("a.jpg"):
        as_rgb(image)


def photograph(size: tuple[int, int], kind: str = "JPEG") -> Image.Image:
    """A photograph, as it is in a file that was just opened."""
    from skimage import data

    return Image.open(io.BytesIO(encoded(Image.fromarray(data.coffee()).resize(size), kind)))


@pytest.mark.parametrize(("size", "side", "decoded"), [((1000, 750), 256, (500, 375)), ((512, 384), 64, (128, 96))])
def test_a_jpeg_file_halved_while_it_is_decoded_is_adms_crop_within_about_a_grey_level(size, side, decoded):
    halved = photograph(size)
    halve_while_decoding(halved, side)
    assert as_rgb(halved).size == decoded
    crops = [np.asarray(center_crop(as_rgb(one), side)).astype(int) for one in (halved, photograph(size))]
    assert 0 < np.abs(crops[0] - crops[1]).mean() < 1.2


@pytest.mark.parametrize(
    ("size", "kind"),
    [((500, 375), "JPEG"), ((1000, 751), "JPEG"), ((1001, 750), "JPEG"), ((1000, 750), "PNG"), ((511, 511), "JPEG")],
)
def test_what_cannot_be_halved_so_is_decoded_whole(size, kind):
    picture, whole = photograph(size, kind), photograph(size, kind)
    halve_while_decoding(picture, 256)
    assert np.array_equal(np.asarray(as_rgb(picture)), np.asarray(as_rgb(whole)))
