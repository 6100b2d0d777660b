"""What is remembered about files does not outlive them, and the data's fingerprint follows them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustok_core.errors import RobustokError
from robustok_data.image_folder import ImageFolder, ImageFolderConfig

Picture = Callable[..., bytes]


def opened(path: Path, **options: object) -> ImageFolder:
    return ImageFolder(ImageFolderConfig(path=str(path), **{"image_size": 16, **options}))


@pytest.fixture
def root(class_folders: Callable[..., Path]) -> Path:
    return class_folders({"cat": 10, "dog": 10})


def count(path: Path) -> int:
    dataset = opened(path, on_bad_file="skip")
    return len(dataset.train) + len(dataset.validation)


def replace_keeping_size_and_time(file: Path, content: bytes) -> None:
    state = file.stat()
    file.write_bytes(content.ljust(state.st_size, b"\0")[: state.st_size])
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_mended_picture_is_used_and_a_broken_one_is_not(root: Path) -> None:
    good = (root / "cat/003.png").read_bytes()
    (root / "cat/003.png").write_bytes(good[: len(good) // 2].ljust(len(good), b"\0"))
    assert count(root) == 19
    (root / "cat/003.png").write_bytes(good)
    assert count(root) == 20
    (root / "dog/004.png").write_bytes(good[: len(good) // 2])
    assert count(root) == 19


def test_a_broken_picture_is_never_left_out_on_memory_alone(root: Path) -> None:
    good = (root / "cat/003.png").read_bytes()
    replace_keeping_size_and_time(root / "cat/003.png", b"broken")
    assert count(root) == 19
    replace_keeping_size_and_time(root / "cat/003.png", good)
    assert count(root) == 20


def test_another_data_set_of_the_same_names_and_sizes_is_looked_at_anew(root: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    replace_keeping_size_and_time(copy / "cat/003.png", b"broken")
    assert (count(root), count(copy), count(root)) == (20, 19, 20)


@pytest.mark.parametrize("damage", ["", "{", "null\n{}", "0" * 32 + '\n{"a": 1}'])
def test_a_damaged_cache_is_rebuilt(root: Path, cache: Path, damage: str) -> None:
    (root / "cat/003.png").write_bytes(b"broken")
    fingerprints = [opened(root, on_bad_file="skip", verify=True).train.fingerprint]
    files = list(cache.rglob("*.facts"))
    whole = [file.read_bytes() for file in files]
    for file in files:
        file.write_text(damage)
    fingerprints.append(opened(root, on_bad_file="skip", verify=True).train.fingerprint)
    assert fingerprints[0] == fingerprints[1]
    assert [file.read_bytes() for file in files] == whole


def test_one_turned_bit_in_a_cache_is_noticed(root: Path, cache: Path) -> None:
    before = opened(root, verify=True).train.fingerprint
    (file,) = cache.rglob("*.facts")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert opened(root, verify=True).train.fingerprint == before


def test_one_replaced_picture_among_thousands_changes_the_fingerprint(tmp_path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 256, (3000, 9, 9, 3), dtype=np.uint8)
    (tmp_path / "set/a").mkdir(parents=True)
    for number, pixels in enumerate(content):
        Image.fromarray(pixels).save(tmp_path / f"set/a/{number:04d}.png", compress_level=0)
    before = opened(tmp_path / "set").train.fingerprint
    moved = Path(shutil.move(tmp_path / "set", tmp_path / "moved"))
    assert opened(moved).train.fingerprint == before
    Image.fromarray(content[1501, :8]).save(moved / "a/1501.png", compress_level=0)
    assert opened(moved).train.fingerprint != before


def test_verify_covers_every_byte_and_reads_each_file_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from robustok_data import pictures

    monkeypatch.setattr(pictures, "_SAMPLED", 2)
    plain, verified = opened(root).train.fingerprint, opened(root, verify=True).train.fingerprint
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    assert opened(copy, verify=True).train.fingerprint == verified
    changed = bytearray((copy / "dog/005.png").read_bytes())
    changed[-20] ^= 1
    (copy / "dog/005.png").write_bytes(changed)
    assert opened(copy).train.fingerprint == plain, "another file is sampled"
    assert opened(copy, verify=True).train.fingerprint != verified
    monkeypatch.setattr(
        "robustok_data.file_ranges.FileRangePictures.read", lambda *_: pytest.fail("the content is read again")
    )
    opened(root, verify=True)


def test_a_file_that_cannot_be_hashed_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError("Input/output error")

    monkeypatch.setattr("robustok_data.file_ranges.FileRangePictures.read", fail)
    with pytest.raises(RobustokError, match="000.png: this image cannot be read: OSError: Input/output error"):
        opened(root, verify=True)


def test_turning_images_upright_is_an_option_that_changes_the_fingerprint(root: Path) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    image.save(opened(root).train._pictures.location(0), exif=tags)

    def loaded(exif: bool) -> tuple[np.ndarray, str]:
        train = opened(root, exif=exif).train
        return train.load([0]).images[0].numpy(), train.fingerprint

    (upright, one), (stored, other) = loaded(True), loaded(False)
    np.testing.assert_array_equal(upright, np.rot90(stored, 3, axes=(1, 2)))
    assert one != other


def test_a_decompression_bomb_is_named_or_skipped(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (1500, 1500)).save(root / "cat/003.png")
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1_000_000)  # twice as many are an error, and this is more
    split = opened(root).train
    assert any(split._pictures.location(row).endswith("cat/003.png") for row in range(len(split)))
    with pytest.raises(RobustokError, match="cat/003.png: this image cannot be read: DecompressionBombError"):
        split.load(range(len(split)))
    assert count(root) == 19
