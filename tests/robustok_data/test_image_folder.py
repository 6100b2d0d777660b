from __future__ import annotations

import io
import logging
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from project import line_of
from robustok_core.errors import RobustokError
from robustok_core.values.draws import Draws
from robustok_data.image_folder import ImageFolder, ImageFolderConfig
from robustok_data.pictures import limited_rows
from robustok_toolkit.crops import center_crop
from robustok_training.batches import training_batches

ClassFolders = Callable[..., Path]


def opened(path: Path, **options: object) -> ImageFolder:
    return ImageFolder(ImageFolderConfig(path=str(path), **{"image_size": 16, **options}))


@pytest.fixture
def root(class_folders: ClassFolders) -> Path:
    class_folders({"cat": 5, "dog": 4}, split="train")
    return class_folders({"cat": 2, "dog": 1}, split="val")


def test_train_and_val_folders_are_the_splits(root: Path) -> None:
    dataset = opened(root)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0] * 5 + [1] * 4
    assert dataset.validation.labels.tolist() == [0, 0, 1]


def test_an_image_is_the_center_crop_of_its_file(root: Path) -> None:
    batch = opened(root).train.load([6, 0])
    for image, name in zip(batch.images, ("dog/001.png", "cat/000.png"), strict=True):
        crop = np.asarray(center_crop(Image.open(root / "train" / name), 16))
        expected = torch.from_numpy(crop.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1
        torch.testing.assert_close(image, expected, atol=1e-6, rtol=0)
    assert batch.labels.tolist() == [1, 0]


def test_a_single_folder_is_split_by_a_share_of_each_class(class_folders: ClassFolders) -> None:
    root = class_folders({"a": 20, "b": 10, "c": 2})
    dataset = opened(root, validation_share=0.2)
    assert torch.bincount(dataset.validation.labels).tolist() == [4, 2, 1]
    assert torch.bincount(dataset.train.labels).tolist() == [16, 8, 1]
    pictures = {image.numpy().tobytes() for image in dataset.train.load(range(25)).images}
    assert not pictures & {image.numpy().tobytes() for image in dataset.validation.load(range(7)).images}


def test_a_share_is_said_to_do_nothing_where_there_is_a_validation_folder(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(root, validation_share=0.2)
    assert "validation_share = 0.2 has no effect: there is a validation split" in caplog.text


def test_another_class_does_not_change_which_files_are_for_validation(class_folders: ClassFolders) -> None:
    root = class_folders({"b": 12})
    before = opened(root, validation_share=0.25).validation.load(range(3)).images
    class_folders({"a": 4})
    after = opened(root, validation_share=0.25).validation
    assert torch.equal(after.load((after.labels == 1).nonzero().flatten().tolist()).images, before)


def test_the_validation_share_is_not_the_first_or_last_names(class_folders: ClassFolders) -> None:
    root = class_folders({"a": 12})
    pictures = opened(root, validation_share=0.25).validation._pictures
    assert [pictures.location(i)[-7:-4] for i in range(len(pictures))] not in (
        ["000", "001", "002"],
        ["009", "010", "011"],
    )


def test_a_large_share_leaves_every_class_an_image_to_train_on(class_folders: ClassFolders) -> None:
    dataset = opened(class_folders({"a": 2, "b": 30}), validation_share=0.9)
    assert torch.bincount(dataset.train.labels).tolist() == [1, 3]
    assert torch.bincount(dataset.validation.labels).tolist() == [1, 27]


def test_limits_take_images_of_every_class(class_folders: ClassFolders) -> None:
    folder = class_folders({"cat": 6, "dog": 14, "owl": 24})
    whole, part = opened(folder), opened(folder, train_limit=9, validation_limit=3)
    assert torch.bincount(part.train.labels).tolist() == [3, 3, 3]
    assert sorted(torch.bincount(part.validation.labels).tolist()) == [1, 1, 1]
    assert part.train.fingerprint != whole.train.fingerprint
    taken = limited_rows(whole.train.labels, 9).tolist()
    assert torch.equal(part.train.load(range(9)).images, whole.train.load(taken).images)
    assert opened(folder, train_limit=1000).train.fingerprint == whole.train.fingerprint


def test_a_class_can_be_called_train(class_folders: ClassFolders) -> None:
    assert opened(class_folders({"bus": 3, "train": 3})).class_names == ("bus", "train")


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_depends_on_the_image_and_not_on_the_batch(root: Path, workers: int) -> None:
    images = opened(root, crop="random", flip=True).train

    def by_index(global_batch: int) -> dict[int, bytes]:
        steps = training_batches(
            images,
            seed=1,
            global_batch=global_batch,
            accumulation=1,
            rank=0,
            world=1,
            start_step=0,
            total_steps=9 // global_batch,
            workers=workers,
        )
        return {
            int(index): image.numpy().tobytes()
            for (batch,) in steps
            for index, image in zip(batch.indices, batch.images, strict=True)
        }

    assert by_index(9) == by_index(3) == by_index(1)
    plain = {i: image.numpy().tobytes() for i, image in enumerate(images.load(range(9)).images)}
    assert by_index(9) != plain


def test_without_draws_nothing_is_augmented(root: Path) -> None:
    augmenting, plain = opened(root, crop="random", flip=True).train, opened(root).train
    assert torch.equal(augmenting.load([1, 2]).images, plain.load([1, 2]).images)
    assert not torch.equal(augmenting.load([1, 2], Draws.for_rows(0, 2)).images, plain.load([1, 2]).images)


def test_the_fingerprint_follows_names_content_and_size(root: Path, tmp_path: Path) -> None:
    def fingerprint(folder: Path = root, **options: object) -> str:
        return opened(folder, **options).train.fingerprint

    original = fingerprint()
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    assert fingerprint(copy) == original == fingerprint(crop="random", flip=True)
    assert fingerprint(image_size=20) != original
    (copy / "train/cat/000.png").rename(copy / "train/cat/renamed.png")
    assert fingerprint(copy) != original
    changed = bytearray((root / "train/dog/002.png").read_bytes())
    changed[-20] ^= 1
    (root / "train/dog/002.png").write_bytes(changed)
    assert fingerprint() != original


def test_a_split_survives_pickling(root: Path) -> None:
    images = opened(root).train
    copy = pickle.loads(pickle.dumps(images))
    assert torch.equal(copy.load([3]).images, images.load([3]).images)
    assert copy.fingerprint == images.fingerprint


def test_hidden_files_and_folders_are_ignored_and_nested_ones_read(root: Path, picture: Callable[..., bytes]) -> None:
    (root / "train/cat/.DS_Store").write_bytes(b"x")
    (root / "train/.cache").mkdir()
    (root / "train/cat/more").mkdir()
    (root / "train/cat/more/extra.JPEG").write_bytes(picture(1, kind="JPEG"))
    assert torch.bincount(opened(root).train.labels).tolist() == [6, 4]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1", "LA"])
def test_every_usual_pixel_format_becomes_rgb(root: Path, mode: str) -> None:
    grey = np.tile(np.arange(0, 256, 16, dtype=np.uint8), (16, 1))
    image = Image.fromarray(grey.astype(np.uint16) << 8) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    image.save(root / "train/cat/000.png" if mode != "CMYK" else root / "train/cat/000.tif")
    if mode == "CMYK":
        (root / "train/cat/000.png").unlink()
    loaded = (opened(root).train.load([0]).images[0, 0] + 1) * 127.5
    assert loaded.shape == (16, 16)
    if mode in ("L", "RGBA", "I;16", "LA"):
        assert loaded.round().int().tolist() == grey.tolist()


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def add_bad_files(root: Path, picture: Callable[..., bytes]) -> None:
    (root / "train/cat/900.jpg").write_bytes(truncated(picture(1, 64, 64, "JPEG")))
    (root / "train/cat/901.png").write_bytes(b"not an image")
    (root / "train/dog/902.png").write_bytes(truncated(picture(1)))


def test_a_broken_image_is_named_when_it_is_read(root: Path, picture: Callable[..., bytes]) -> None:
    add_bad_files(root, picture)
    images = opened(root).train
    for index, name in ((5, "900.jpg"), (6, "901.png"), (11, "902.png")):
        with pytest.raises(
            RobustokError, match=rf"train/\w+/{name}: this image cannot be read: .*on_bad_file"
        ) as caught:
            images.load([0, index])
        assert caught.value.exit_code == 2, "a damaged image is a mistake in the input"


def test_skip_leaves_broken_images_out_and_says_how_many(
    root: Path, picture: Callable[..., bytes], caplog: pytest.LogCaptureFixture
) -> None:
    clean = opened(root).train
    add_bad_files(root, picture)
    (root / "train/dog/notes.txt").write_text("x")
    with caplog.at_level(logging.WARNING):
        images = opened(root, on_bad_file="skip").train
    assert torch.equal(images.load(range(9)).images, clean.load(range(9)).images)
    assert len(images) == 9
    assert "left out 1 of 13 files that are not images (1 .txt): dog/notes.txt" in caplog.text
    assert "left out 3 of 12 files that are not readable images" in caplog.text
    assert "900.jpg" in caplog.text


def test_good_images_are_decoded_once_and_broken_ones_again(
    root: Path, picture: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from robustok_data import bad_files

    add_bad_files(root, picture)
    first = opened(root, on_bad_file="skip").train
    decoded: list[str] = []
    original = bad_files.try_decode
    monkeypatch.setattr(
        bad_files, "try_decode", lambda p, i: decoded.append(Path(p.location(i)).name) or original(p, i)
    )
    assert opened(root, on_bad_file="skip").train.fingerprint == first.fingerprint
    assert sorted(decoded) == ["900.jpg", "901.png", "902.png"]


def test_a_cache_folder_that_is_not_writable_only_costs_time(
    root: Path, picture: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add_bad_files(root, picture)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ROBUSTOK_CACHE", str(tmp_path / "file"))
    assert len(opened(root, on_bad_file="skip").train) == 9


def write(path: Path, content: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, r"pictures: no such folder .check the key `path`"),
        (lambda root: [shutil.rmtree(root / s) for s in ("train", "val")], "no class folders found .*PATH/CLASS"),
        (lambda root: shutil.rmtree(root / "val"), r"train/ has class folders, val/ has none .add val/CLASS.*path = "),
        (lambda root: shutil.rmtree(root / "train"), "val/ has class folders, train/ has none"),
        (lambda root: (root / "train/emu").mkdir(), r"train: a class needs at least 2 training images: 'emu' \(0\)"),
        (lambda root: [(root / f"train/cat/00{i}.png").unlink() for i in range(4)], r"'cat' \(1\)"),
        (lambda root: (root / "val/emu").mkdir(), "val: the training split has no class 'emu'"),
        (lambda root: [path.unlink() for path in root.glob("val/*/*")], "val: there are no images"),
        (
            lambda root: [write(root / f"train/cat/{name}", b"x") for name in ("a.txt", "b.heic", "c.mp4", "d.csv")],
            "4 of 13 files that are not images .1 .csv, 1 .heic, 1 .mp4, 1 .txt.: cat/a.txt, cat/b.heic, cat/c.mp4 and",
        ),
        (
            lambda root: write(root / "train/dog/000.png"),
            r"1 of 9 files that are not images .1 empty.: dog/000.png .*skip",
        ),
        (
            lambda root: (root / "train/dog/link.png").symlink_to("nowhere"),
            r"1 of 10 files that .*1 broken link.: dog/link.png",
        ),
    ],
)
def test_every_bad_folder_is_one_message(root: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(root)
    with pytest.raises(RobustokError, match=message) as caught:
        opened(root)
    assert caught.value.exit_code == 2


def test_a_file_that_disappears_during_a_run_is_one_message(root: Path) -> None:
    images = opened(root).train
    (root / "train/cat/000.png").unlink()
    with pytest.raises(RobustokError, match="cat/000.png: this image cannot be read: FileNotFoundError"):
        images.load([0])


def test_a_file_that_is_truncated_during_a_run_is_one_message(root: Path) -> None:
    images = opened(root).train
    (root / "train/cat/001.png").write_bytes(b"x")
    with pytest.raises(
        RobustokError, match=r"cat/001.png: this image cannot be read: OSError: the file ends after 1 of \d+"
    ):
        images.load([1])


def test_pixels_without_a_known_range_are_refused(root: Path) -> None:
    out = io.BytesIO()
    Image.fromarray(np.zeros((20, 20), np.float32)).save(out, "TIFF")
    write(root / "train/cat/000.tif", out.getvalue())
    with pytest.raises(RobustokError, match="32-bit pixels .mode F. have no known range"):
        opened(root).train.load([1])


def write_images(folder: Path, counts: dict[str, int], size: int = 32) -> Path:
    """Class folders of random images, under train/ and val/."""
    pixels = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, count in counts.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                picture = Image.fromarray(pixels.integers(0, 256, (size, size, 3), dtype=np.uint8))
                picture.save(folder / split / name / f"{number}.png")
    return folder


def of_images(path: Path) -> dict[str, Any]:
    return {"data": {"use": "image_folder", "path": str(path), "image_size": 32}}


def test_an_empty_image_folder_is_one_message(refused, recipe_file, tmp_path):
    (tmp_path / "images").mkdir()
    output = refused("check", recipe_file(of_images(tmp_path / "images")))
    assert f"{line_of(tmp_path / 'r.toml', 'path = ')}data.path: {tmp_path / 'images'}: no class folders" in output
    assert "\n  hint: " in output


def test_a_class_with_one_image_is_named(refused, recipe_file, tmp_path):
    output = refused("check", recipe_file(of_images(write_images(tmp_path / "images", {"cat": 4, "dog": 1}))))
    assert "a class needs at least 2 training images: 'dog' (1)\n  hint: " in output


def test_a_corrupt_image_stops_the_run_and_is_named(refused, recipe_file, tmp_path):
    images = write_images(tmp_path / "images", {"cat": 8, "dog": 8})
    broken = images / "train" / "cat" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    output = refused("run", recipe_file(of_images(images)), "--out", "out")
    assert "data: 1 of 16 images of train cannot be read: " in output
    assert "cat/3.png (this image cannot be read: " in output
    assert "hint: mend or remove them" in output
    assert not Path("out/tiny/artifacts").exists()


def test_fast_jpeg_is_another_data_set_of_nearly_the_same_images(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "a").mkdir(exist_ok=True)
        ramp = np.linspace(0, 255 - 20 * number, 64 * 80 * 3).reshape(64, 80, 3).astype(np.uint8)
        Image.fromarray(ramp).save(tmp_path / "a" / f"{number}.jpg", quality=95)
    exact, fast = opened(tmp_path).train, opened(tmp_path, fast_jpeg=True).train
    assert exact.fingerprint != fast.fingerprint
    difference = (exact.load([0, 1]).images - fast.load([0, 1]).images).abs()
    assert 0 < difference.mean() < 2 / 255
    random = opened(tmp_path, fast_jpeg=True, crop="random").train
    assert random.load([0, 1], Draws.for_rows(3, 2)).images.shape == (2, 3, 16, 16)


@pytest.mark.parametrize("crop", ["center", "random"])
def test_fast_resize_is_another_data_set_of_almost_the_same_images(tmp_path: Path, crop: str) -> None:
    (tmp_path / "a").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 90, 120, 3), dtype=np.uint8)
    for number in range(3):
        Image.fromarray(pixels[number]).save(tmp_path / "a" / f"{number}.png")
    exact, fast = (opened(tmp_path, fast_resize=fast, crop=crop) for fast in (False, True))
    assert exact.train.fingerprint != fast.train.fingerprint
    for split in ("train", "validation"):
        one, two = (getattr(data, split) for data in (exact, fast))
        rows = range(len(one))
        draws = Draws.for_rows(3, len(one)) if split == "train" else None
        difference = (one.load(rows, draws).images - two.load(rows, draws).images).abs() * 127.5
        assert difference.max() < 2.5
        assert 0 < difference.mean() < 0.1


def test_an_image_that_a_pipe_replaced_is_named_instead_of_waited_for(root: Path) -> None:
    images = opened(root)
    for file in sorted(root.rglob("*.*")):
        if file.is_file():
            file.unlink()
            os.mkfifo(file)
    with pytest.raises(RobustokError, match="this image cannot be read"):
        images.train.load([0], None)
