"""Which folders are splits and which are classes; nothing is left out, and no split becomes a class, without a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from robustok_core.errors import RobustokError
from robustok_data.image_folder import ImageFolder, ImageFolderConfig

ClassFolders = Callable[..., Path]
Write = Callable[..., Path]


def opened(path: Path, **options: object) -> ImageFolder:
    return ImageFolder(ImageFolderConfig(path=str(path), **{"image_size": 16, **options}))


@pytest.fixture
def write(tmp_path: Path, picture: Callable[..., bytes]) -> Write:
    """Writes folders of so many images each, under one root."""

    def write(folders: dict[str, int]) -> Path:
        for name, count in folders.items():
            (tmp_path / "root" / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                (tmp_path / "root" / name / f"{number}.png").write_bytes(picture(number))
        return tmp_path / "root"

    return write


@pytest.mark.parametrize(
    "names", [("Train", "Val"), ("training", "validation"), ("TRAIN", "test"), ("train", "valid"), ("train", "dev")]
)
@pytest.mark.parametrize("inside", ["", "/cat"])
def test_folders_that_are_called_like_splits_are_not_taken_for_classes(
    write: Write, names: tuple[str, str], inside: str
) -> None:
    root = write({f"{name}{inside}": 3 for name in names})
    with pytest.raises(RobustokError, match="look like splits: |has class folders, val/ has none .rename") as caught:
        opened(root)
    assert caught.value.where == str(root)
    assert opened(root, splits="none").class_names == tuple(sorted(names))


def test_a_path_one_level_too_high_is_refused_with_the_right_one(write: Write) -> None:
    root = write({"photos/train/cat": 3, "photos/val/cat": 2, "other": 3})
    with pytest.raises(RobustokError, match="class 'photos' holds folders that look like splits: train, val") as caught:
        opened(root)
    assert f'set path = "{root / "photos"}"' in str(caught.value.hint)
    assert opened(root, splits="none").class_names == ("other", "photos")


def test_a_single_class_that_only_holds_folders_is_read_with_a_note(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    assert opened(write({"PetImages/cat": 3, "PetImages/dog": 3})).class_names == ("PetImages",)
    assert "'PetImages', holds no images but folders (cat, dog)" in caplog.text


def test_a_folder_without_classes_is_one_class_with_a_note(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    dataset = opened(write({".": 10}), validation_share=0.2)
    assert (dataset.class_names, len(dataset.train), len(dataset.validation)) == (("images",), 8, 2)
    assert "all images are one class, 'images'" in caplog.text


def test_train_and_val_without_classes_are_the_splits_of_one_class(write: Write) -> None:
    dataset = opened(write({"train": 5, "val": 3}))
    assert (dataset.class_names, len(dataset.train), len(dataset.validation)) == (("images",), 5, 3)


def test_what_lies_beside_the_folders_that_are_read_is_named(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    opened(write({"train/cat": 3, "val/cat": 2, "test/cat": 2, "train": 1}))
    assert "beside train/ and val/, these are not read: test/" in caplog.text
    assert "1 images beside the class folders are not read: 0.png" in caplog.text


def test_nothing_is_said_of_a_usual_folder(class_folders: ClassFolders, caplog: pytest.LogCaptureFixture) -> None:
    opened(class_folders({"cat": 3, "dog": 3}))
    assert caplog.text == ""


def test_links_to_folders_of_images_are_followed(write: Write, tmp_path: Path, picture: Callable[..., bytes]) -> None:
    root = write({"cat": 4, "dog": 2})
    (tmp_path / "elsewhere").mkdir()
    for number in range(6):
        (tmp_path / "elsewhere" / f"{number}.png").write_bytes(picture(50 + number))
    (root / "cat/more").symlink_to(tmp_path / "elsewhere")
    (root / "dog/back").symlink_to(root)
    (root / "emu").symlink_to(tmp_path / "elsewhere")
    dataset = opened(root)
    assert dataset.class_names == ("cat", "dog", "emu")
    assert len(dataset.train) + len(dataset.validation) == 4 + 2 + 6 + 6


def test_a_class_called_like_a_picture_is_a_class(write: Write) -> None:
    assert opened(write({"IMG_1.jpg": 3, "IMG_2.jpg": 3})).class_names == ("IMG_1.jpg", "IMG_2.jpg")


@pytest.mark.parametrize(
    ("path", "message"),
    [("a\0b", "path: a path cannot hold a NUL character"), ("", "a path cannot be empty"), ("~no-such-user/a", "~ is")],
)
def test_what_cannot_be_a_path_is_one_message(path: str, message: str) -> None:
    with pytest.raises(RobustokError, match=message):
        ImageFolder(ImageFolderConfig(path=path))
