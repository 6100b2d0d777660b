from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustok_core.errors import RobustokError
from robustok_core.values.draws import Draws
from robustok_data.npz import Npz, NpzConfig
from robustok_toolkit.crops import center_crop


def bytes_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def two_splits(**replaced: np.ndarray | None) -> dict[str, np.ndarray]:
    arrays = {
        "train_images": bytes_of(8, 16, 16, 3),
        "train_labels": np.arange(8) % 3,
        "val_images": bytes_of(4, 16, 16, 3),
        "val_labels": np.arange(4) % 3,
        **replaced,
    }
    return {name: array for name, array in arrays.items() if array is not None}


def saved(folder: Path, arrays: dict[str, np.ndarray]) -> str:
    np.savez(folder / "data.npz", **arrays)
    return str(folder / "data.npz")


def opened(folder: Path, arrays: dict[str, np.ndarray], **options: object) -> Npz:
    return Npz(NpzConfig(path=saved(folder, arrays), **{"image_size": 16, **options}))


def test_limits_take_images_of_every_class(tmp_path: Path) -> None:
    whole, part = (
        opened(tmp_path, two_splits(), **limits) for limits in ({}, {"train_limit": 6, "validation_limit": 3})
    )
    assert [torch.bincount(split.labels).tolist() for split in (part.train, part.validation)] == [[2, 2, 2], [1, 1, 1]]
    assert torch.equal(part.train.load(range(6)).images, whole.train.load(range(6)).images)
    assert part.train.fingerprint != whole.train.fingerprint


def levels(images: torch.Tensor) -> np.ndarray:
    """(B, H, W, 3) bytes of images in [-1, 1]."""
    return ((images + 1) * 127.5).round().byte().movedim(1, 3).numpy()


def test_images_of_the_right_size_are_the_files_bytes(tmp_path: Path) -> None:
    arrays = two_splits()
    dataset = opened(tmp_path, arrays)
    assert np.array_equal(levels(dataset.train.load(range(8)).images), arrays["train_images"])
    assert np.array_equal(levels(dataset.validation.load([2]).images), arrays["val_images"][[2]])
    assert dataset.class_names == ("0", "1", "2")


@pytest.mark.parametrize("shape", [(8, 16, 16), (8, 16, 16, 1)])
def test_grey_images_get_three_equal_channels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    arrays = two_splits(train_images=bytes_of(*shape))
    images = levels(opened(tmp_path, arrays).train.load(range(8)).images)
    assert np.array_equal(images, np.repeat(arrays["train_images"].reshape(8, 16, 16, 1), 3, axis=3))


@pytest.mark.parametrize("shape", [(8, 40, 33, 3), (8, 40, 33), (8, 12, 12, 1)])
def test_images_of_another_size_are_center_cropped(tmp_path: Path, shape: tuple[int, ...]) -> None:
    arrays = two_splits(train_images=bytes_of(*shape))
    images = levels(opened(tmp_path, arrays).train.load([3]).images)
    pixels = arrays["train_images"][3]
    expected = center_crop(Image.fromarray(pixels.squeeze(2) if pixels.shape[-1] == 1 else pixels).convert("RGB"), 16)
    assert np.array_equal(images[0], np.asarray(expected))


def test_random_crops_augment_images_of_the_right_size_too(tmp_path: Path) -> None:
    images = opened(tmp_path, two_splits(), crop="random").train
    draws = Draws.for_rows(5, 8)
    whole = images.load(range(8), draws).images
    assert not torch.equal(whole, images.load(range(8)).images)
    assert torch.equal(images.load([6], draws[torch.tensor([6])]).images, whole[[6]])


def test_an_adm_sample_file_is_split_by_share(tmp_path: Path) -> None:
    arrays = {"arr_0": bytes_of(40, 16, 16, 3), "arr_1": np.arange(40) % 4}
    dataset = opened(tmp_path, arrays, validation_share=0.2)
    assert torch.bincount(dataset.validation.labels).tolist() == [2] * 4
    assert torch.bincount(dataset.train.labels).tolist() == [8] * 4
    both = np.concatenate([levels(s.load(range(len(s))).images) for s in (dataset.train, dataset.validation)])
    assert {image.tobytes() for image in both} == {image.tobytes() for image in arrays["arr_0"]}


def test_a_share_is_said_to_do_nothing_where_the_file_has_validation_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(tmp_path, two_splits(), validation_share=0.2)
    assert "validation_share = 0.2 has no effect: there is a validation split" in caplog.text


@pytest.mark.parametrize("image_size", [16, 12])
def test_the_fingerprint_follows_every_pixel_label_and_the_size(tmp_path: Path, image_size: int) -> None:
    def fingerprint(size: int = image_size, **replaced: np.ndarray) -> str:
        return opened(tmp_path, two_splits(**replaced), image_size=size).train.fingerprint

    changed = bytes_of(8, 16, 16, 3)
    changed[5, 3, 3, 1] ^= 1
    hashes = [
        fingerprint(),
        fingerprint(train_images=changed),
        fingerprint(train_labels=np.arange(8)[::-1] % 3),
        fingerprint(size=20),
    ]
    assert len(set(hashes)) == 4
    assert fingerprint() == hashes[0] == fingerprint(val_labels=np.zeros(4, int))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": bytes_of(8, 16, 16, 3)}, "arrays of images and labels are missing .*train_images.*arr_0 and arr_1"),
        (two_splits(train_images=bytes_of(8, 16, 16, 4)), r"data.npz, train_images: images must be uint8 .*16, 4\)"),
        (two_splits(train_labels=np.arange(8) / 2), r"train_labels: labels must be integers \(n,\), found float64"),
        (two_splits(train_labels=np.arange(7)), "7 labels for 8 images"),
        (two_splits(train_labels=np.arange(8) * 2 % 6), r"at least 2 training images: '1' \(0\), '3' \(0\)"),
        (two_splits(train_labels=np.arange(8) * 10**9), "the label 7000000000 is too high for 8 training images"),
        (two_splits(train_labels=np.arange(8, dtype=np.uint64) + 2**63), r"train_labels: the label \d+ is too high"),
        (two_splits(val_labels=np.arange(4)), "the label 3 is not a class: there are 3"),
        (two_splits(val_labels=np.zeros(0, int), val_images=bytes_of(0, 16, 16)), "val_labels: there are no images"),
        (two_splits(train_images=np.array([{}] * 8, dtype=object)), "not a readable .npz file"),
    ],
)
def test_a_bad_file_is_one_message(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(RobustokError, match=message):
        opened(tmp_path, arrays)


def test_a_single_array_is_one_message(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", bytes_of(3))
    with pytest.raises(RobustokError, match="data.npy: this file holds a single array"):
        Npz(NpzConfig(path=str(tmp_path / "data.npy"), image_size=16))


def test_a_missing_data_file_is_one_message(refused, recipe_file):
    output = refused("check", recipe_file({"data": {"use": "npz", "path": "images.npz", "image_size": 32}}))
    assert "images.npz" in output
    assert "hint: " in output


def damaged(content: bytes, place: float) -> bytes:
    at = int(place * len(content))
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_values_are_one_message(tmp_path: Path, save: Callable[..., None], place: float) -> None:
    save(tmp_path / "data.npz", **two_splits())
    file = tmp_path / "data.npz"
    file.write_bytes(damaged(file.read_bytes(), place))
    with pytest.raises(RobustokError) as caught:
        Npz(NpzConfig(path=str(file), image_size=16))
    assert str(caught.value.where).startswith(str(file))


def test_an_array_that_claims_more_than_its_file_holds_is_not_made(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        for name in ("arr_0", "arr_1"):
            header = io.BytesIO()
            shape = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 64, 64, 3)}
            np.lib.format.write_array_header_1_0(header, shape)
            archive.writestr(f"{name}.npy", header.getvalue())
    with pytest.raises(RobustokError, match="the length of arr_0 does not match its header"):
        Npz(NpzConfig(path=str(tmp_path / "data.npz"), image_size=16))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_read_or_named(tmp_path: Path, method: int) -> None:
    plain = saved(tmp_path, two_splits())
    with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(tmp_path / "packed.npz", "w", method) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    fingerprints = [
        Npz(NpzConfig(path=str(path), image_size=16)).train.fingerprint for path in (plain, tmp_path / "packed.npz")
    ]
    assert fingerprints[0] == fingerprints[1]
    content = damaged((tmp_path / "packed.npz").read_bytes(), 0.5)
    (tmp_path / "packed.npz").write_bytes(content)
    with pytest.raises(RobustokError, match="not a readable .npz file"):
        Npz(NpzConfig(path=str(tmp_path / "packed.npz"), image_size=16))
