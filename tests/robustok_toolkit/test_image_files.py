"""Sample files, folders and reference statistics: numpy reads what is written, and invalid input is refused."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robustok_core import RobustokError, RunError
from robustok_core.values.images import to_uint8
from robustok_toolkit.image_files import (
    FolderImages,
    NpzImages,
    Outline,
    open_images,
    outline_of,
    reference_moments,
    write_samples,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0])


def pixels_of(images: Any, rows: list[int]) -> np.ndarray:
    return to_uint8(images.load(rows).images).permute(0, 2, 3, 1).numpy()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_samples(tmp_path / "samples.npz", iter(PIXELS), LABELS, image_size=8)
    return tmp_path / "samples.npz"


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Saves arrays with numpy and returns the file."""

    def save(**arrays: Any) -> Path:
        np.savez(tmp_path / "saved.npz", **arrays)
        return tmp_path / "saved.npz"

    return save


# --- writing --------------------------------------------------------------------------------------


def test_streamed_arrays_are_byte_for_byte_what_savez_writes(written: Path, saved: Callable[..., Path]) -> None:
    expected = saved(arr_0=PIXELS, arr_1=LABELS.numpy())
    with zipfile.ZipFile(written) as ours, zipfile.ZipFile(expected) as numpys:
        assert ours.namelist() == numpys.namelist() == ["arr_0.npy", "arr_1.npy"]
        for our_member, numpy_member in zip(ours.infolist(), numpys.infolist(), strict=True):
            assert our_member.compress_type == zipfile.ZIP_STORED
            assert ours.read(our_member) == numpys.read(numpy_member)


def test_same_samples_give_the_same_file(written: Path, tmp_path: Path) -> None:
    write_samples(tmp_path / "again.npz", iter(PIXELS), LABELS, image_size=8)
    assert (tmp_path / "again.npz").read_bytes() == written.read_bytes()


def test_images_are_streamed_to_the_file(tmp_path: Path) -> None:
    aside = tmp_path / f".writing-samples.npz.{os.getpid()}"
    sizes = []

    def images() -> Iterator[np.ndarray]:
        for image in np.zeros((400, 32, 32, 3), np.uint8):
            sizes.append(aside.stat().st_size)
            yield image

    write_samples(tmp_path / "samples.npz", images(), torch.zeros(400, dtype=torch.int64), image_size=32)
    assert sizes[200] > 150 * 32 * 32 * 3


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (PIXELS[:5], "7 labels, but 5 images"),
        (np.concatenate([PIXELS, PIXELS]), "7 labels, but more images"),
        (PIXELS[:, :4], "must be uint8"),
        (PIXELS.astype(np.float32), "must be uint8"),
    ],
)
def test_invalid_images_leave_no_file(tmp_path: Path, images: np.ndarray, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        write_samples(tmp_path / "samples.npz", iter(images), LABELS, image_size=8)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RunError, match="cannot write"):
        write_samples(tmp_path / "taken" / "samples.npz", iter(PIXELS), LABELS, image_size=8)


# --- reading sample files -------------------------------------------------------------------------


def test_images_are_read_back_by_index(written: Path) -> None:
    images = NpzImages(written)
    assert len(images) == 7
    batch = images.load([4, 1])
    assert torch.equal(batch.labels, torch.tensor([1, 1]))
    assert torch.equal(batch.indices, torch.tensor([4, 1]))
    np.testing.assert_array_equal(pixels_of(images, [4, 1]), PIXELS[[4, 1]])


def test_uncompressed_file_is_mapped_and_not_read(written: Path) -> None:
    images = NpzImages(written)
    assert isinstance(images._pixels, np.memmap)
    assert len(pickle.dumps(images)) < PIXELS.nbytes
    np.testing.assert_array_equal(pixels_of(pickle.loads(pickle.dumps(images)), [6]), PIXELS[[6]])


def test_compressed_and_column_ordered_files_give_the_same_images_and_fingerprint(
    written: Path, tmp_path: Path, saved: Callable[..., Path]
) -> None:
    np.savez_compressed(tmp_path / "small.npz", arr_0=PIXELS, arr_1=LABELS.numpy())
    columns = saved(arr_0=np.asfortranarray(PIXELS), arr_1=LABELS.numpy())
    for file in (tmp_path / "small.npz", columns):
        np.testing.assert_array_equal(pixels_of(NpzImages(file), [0, 6]), PIXELS[[0, 6]])
        assert NpzImages(file).fingerprint == NpzImages(written).fingerprint


def test_one_changed_pixel_or_label_changes_the_fingerprint(written: Path, saved: Callable[..., Path]) -> None:
    known = NpzImages(written).fingerprint
    pixels = PIXELS.copy()
    pixels[3, 2, 1, 0] ^= 1
    assert NpzImages(saved(arr_0=pixels, arr_1=LABELS.numpy())).fingerprint != known
    assert NpzImages(saved(arr_0=PIXELS, arr_1=LABELS.numpy()[::-1])).fingerprint != known


def test_images_without_labels_have_class_0_and_other_arrays_are_ignored(saved: Callable[..., Path]) -> None:
    assert NpzImages(saved(arr_0=PIXELS, notes=np.ones(2))).labels.tolist() == [0] * 7


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"arr_1": np.zeros(3)}, "holds no images"),
        ({"mu": np.zeros(3), "sigma": np.eye(3)}, r"holds no images; it holds statistics of images \(mu, sigma\)"),
        ({"arr_0": PIXELS.astype(np.float32)}, r"must be uint8 \(n, H, W, 3\), found float32 \(7, 8, 8, 3\)"),
        ({"arr_0": PIXELS.transpose(0, 3, 1, 2).copy()}, r"must be uint8 \(n, H, W, 3\), found uint8 \(7, 3, 8, 8\)"),
        ({"arr_0": PIXELS[0]}, "must be uint8"),
        ({"arr_0": PIXELS[:0]}, "there are no images"),
        ({"arr_0": PIXELS, "arr_1": np.zeros(6, np.int64)}, "arr_1 must hold 7 integer labels"),
        ({"arr_0": PIXELS, "arr_1": np.zeros(7)}, "arr_1 must hold 7 integer labels"),
        ({"arr_0": PIXELS, "arr_1": np.full(7, -1)}, "labels must not be negative, found -1"),
    ],
)
def test_files_without_valid_images_are_refused(
    saved: Callable[..., Path], arrays: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RobustokError, match=reason):
        NpzImages(saved(**arrays))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_file_is_named(written: Path, share: float) -> None:
    written.write_bytes(written.read_bytes()[: int(share * written.stat().st_size)])
    with pytest.raises(RobustokError, match=r"not a readable \.npz file") as caught:
        NpzImages(written)
    assert caught.value.where == str(written)
    assert caught.value.hint is not None
    assert "is it complete" in caught.value.hint


def test_array_shorter_than_its_header_says_is_refused(tmp_path: Path, written: Path) -> None:
    with zipfile.ZipFile(written) as whole, zipfile.ZipFile(tmp_path / "short.npz", "w") as short:
        short.writestr("arr_0.npy", whole.read("arr_0.npy")[:-10])
    with pytest.raises(RobustokError, match="the length of arr_0 does not match its header"):
        NpzImages(tmp_path / "short.npz")


def test_damaged_compressed_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "small.npz"
    np.savez_compressed(file, arr_0=PIXELS)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    with pytest.raises(RobustokError, match=r"not a readable \.npz file"):
        NpzImages(file).load([0])


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RobustokError, match="no such file"):
        open_images(tmp_path / "nothing.npz")


# --- folders --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images in two folders; sorted by path, they are in the order of PIXELS."""
    for number, pixels in enumerate(PIXELS):
        file = tmp_path / "images" / ("a" if number < 4 else "b") / f"{number:06d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return tmp_path / "images"


def test_folder_is_read_in_the_order_of_its_paths(folder: Path) -> None:
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_text("not an image")
    images = open_images(folder)
    assert isinstance(images, FolderImages)
    assert images.labels.tolist() == [0] * 7
    np.testing.assert_array_equal(pixels_of(images, list(range(7))), PIXELS)


def test_grey_and_palette_images_have_three_channels(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[0]).convert("L").save(tmp_path / "grey.png")
    palette = Image.fromarray(PIXELS[1]).quantize(4)
    palette.info["transparency"] = b"\x00\x80\xff\xff"
    palette.save(tmp_path / "palette.png")
    pixels = pixels_of(FolderImages(tmp_path), [0, 1])
    assert pixels.shape == (2, 8, 8, 3)
    assert (pixels[0] == pixels[0][..., :1]).all()


def test_fingerprint_of_a_folder_depends_on_its_content(folder: Path) -> None:
    known = FolderImages(folder).fingerprint
    assert FolderImages(folder).fingerprint == known
    Image.fromarray(PIXELS[0]).save(folder / "b" / "000006.png")
    assert FolderImages(folder).fingerprint != known


def test_images_of_two_sizes_are_refused(folder: Path) -> None:
    Image.new("RGB", (8, 9)).save(folder / "b" / "tall.png")
    with pytest.raises(RobustokError, match="has 8x9 pixels, but 000000.png has 8x8"):
        FolderImages(folder)


def test_the_outline_of_a_large_folder_opens_few_of_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(600):
        (tmp_path / f"{number:03}.png").write_bytes(b"not looked at")
    opened = list[Path]()

    def image(file: Path) -> Image.Image:
        opened.append(file)
        return Image.new("RGB", (5, 7))

    monkeypatch.setattr(Image, "open", image)
    assert outline_of(tmp_path) == Outline(num_images=600, size=(7, 5))
    assert len(opened) == 256


def test_the_outline_of_a_file_is_that_of_its_array(written: Path) -> None:
    images = NpzImages(written)
    assert outline_of(written) == Outline(num_images=len(images), size=images.load([0]).images.shape[-2:])


def test_images_of_16_bits_are_refused(folder: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(folder / "b" / "deep.png")
    with pytest.raises(RobustokError, match="must have 8 bits per channel"):
        FolderImages(folder)


def test_broken_image_is_named(folder: Path) -> None:
    file = folder / "b" / "000005.png"
    file.write_bytes(b"not an image")
    with pytest.raises(RobustokError, match="this image cannot be read") as caught:
        FolderImages(folder)
    assert caught.value.where == str(file)


def test_folder_without_an_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(RobustokError, match="no images in this folder"):
        open_images(tmp_path)


# --- reference statistics -------------------------------------------------------------------------


def test_reference_statistics_are_read_in_float64(saved: Callable[..., Path]) -> None:
    mu, sigma = np.arange(3, dtype=np.float32), np.eye(3)
    moments = reference_moments(saved(mu=mu, sigma=sigma, mu_s=np.zeros(2), arr_0=PIXELS))
    assert moments is not None
    assert [moment.dtype for moment in moments] == [torch.float64] * 2
    np.testing.assert_array_equal(moments[0].numpy(), mu)
    np.testing.assert_array_equal(moments[1].numpy(), sigma)


def test_file_without_mu_has_no_statistics(saved: Callable[..., Path]) -> None:
    assert reference_moments(saved(arr_0=PIXELS)) is None


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"mu": np.zeros(3)}, "no array sigma"),
        ({"mu": np.zeros(3), "sigma": np.eye(4)}, "must be (F,) and (F, F), found (3,) and (4, 4)"),
        ({"mu": np.zeros(3), "sigma": np.full((3, 3), np.nan)}, "holds NaN or infinity"),
    ],
)
def test_invalid_statistics_are_refused(saved: Callable[..., Path], arrays: dict[str, Any], reason: str) -> None:
    with pytest.raises(RobustokError, match=re.escape(reason)):
        reference_moments(saved(**arrays))
