from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from robustok_commands.prepare import prepare
from robustok_core.errors import RobustokError, RunError
from robustok_core.values.draws import Draws
from robustok_data.image_folder import ImageFolder, ImageFolderConfig
from robustok_data.prepared import PreparedConfig, PreparedDataset

SIZE = 16


@pytest.fixture
def root(class_folders: Callable[..., Path]) -> Path:
    class_folders({"cat": 5, "dog": 4}, split="train")
    return class_folders({"cat": 2, "dog": 1}, split="val")


@pytest.fixture(params=["npy", "webp"])
def folder(root: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    out = tmp_path / request.param
    options = [f"--set=data.image_size={SIZE}", f"--format={request.param}", "--quiet"]
    prepare.main([str(root), str(out), *options], standalone_mode=False)
    return out


def opened(folder: Path, **options: object) -> PreparedDataset:
    return PreparedDataset(PreparedConfig(path=str(folder), **options))


def without_memory(*_: object) -> None:
    raise MemoryError


def shard(folder: Path) -> Path:
    return next(file for file in folder.glob("train-*.*") if file.name.count(".") == 1)


def test_classes_labels_and_images_are_those_of_the_folder(root: Path, folder: Path) -> None:
    source, stored = ImageFolder(ImageFolderConfig(path=str(root), image_size=SIZE)), opened(folder)
    assert (stored.class_names, stored.image_size) == (source.class_names, SIZE)
    for ours, theirs in ((stored.train, source.train), (stored.validation, source.validation)):
        rows = list(range(len(theirs)))[::-1]
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(ours.load(rows).images, theirs.load(rows).images)


def test_images_are_mirrored_as_from_the_folder(root: Path, folder: Path) -> None:
    source = ImageFolder(ImageFolderConfig(path=str(root), image_size=SIZE, flip=True)).train
    rows, draws = range(9), Draws.for_rows(7, 9)
    loaded = opened(folder, flip=True).train.load(rows, draws).images
    assert torch.equal(loaded, source.load(rows, draws).images)
    assert not torch.equal(loaded, opened(folder).train.load(rows, draws).images)


def test_limits_take_the_same_images_as_from_the_folder(root: Path, folder: Path) -> None:
    limits = {"train_limit": 4, "validation_limit": 2}
    source, stored = ImageFolder(ImageFolderConfig(path=str(root), image_size=SIZE, **limits)), opened(folder, **limits)
    for ours, theirs in ((stored.train, source.train), (stored.validation, source.validation)):
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(ours.load(range(len(ours))).images, theirs.load(range(len(theirs))).images)
    assert torch.bincount(stored.train.labels).tolist() == [2, 2]
    assert stored.train.fingerprint != opened(folder).train.fingerprint


def test_both_formats_have_one_fingerprint_and_other_images_another(root: Path, tmp_path: Path) -> None:
    found = []
    for name, image_format in (("first", "npy"), ("second", "webp"), ("third", "npy")):
        if name == "third":
            shutil.copy(root / "train" / "cat" / "001.png", root / "train" / "cat" / "000.png")
        arguments = [str(root), str(tmp_path / name), f"--set=data.image_size={SIZE}", f"--format={image_format}"]
        prepare.main([*arguments, "--quiet"], standalone_mode=False)
        found.append(opened(tmp_path / name).train.fingerprint)
    assert found[0] == found[1] != found[2]


def test_a_loader_process_gets_a_copy(folder: Path) -> None:
    images = opened(folder).train
    assert torch.equal(pickle.loads(pickle.dumps(images)).load([3]).images, images.load([3]).images)


def test_the_folder_can_be_moved(folder: Path, tmp_path: Path) -> None:
    before = opened(folder).train.fingerprint
    shutil.move(folder, tmp_path / "moved")
    moved = opened(tmp_path / "moved").train
    assert moved.fingerprint == before
    moved.load(range(len(moved)))


def remove(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def turn_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [remove, cut])
@pytest.mark.parametrize("suffix", ["", ".index.npy"])
def test_a_missing_or_cut_file_is_one_message_on_opening(folder: Path, damage: Callable, suffix: str) -> None:
    file = shard(folder)
    file = file.with_name(file.stem + suffix) if suffix else file
    damage(file)
    with pytest.raises(RobustokError, match=rf"{file.name}: damaged: (?s:.*)`robustok prepare` again"):
        opened(folder)


def test_a_turned_bit_in_an_index_or_the_manifest_is_one_message_on_opening(folder: Path) -> None:
    for file in (folder / f"{shard(folder).stem}.index.npy", folder / "manifest.json"):
        before = file.read_bytes()
        turn_a_bit(file)
        with pytest.raises(RobustokError, match=file.name):
            opened(folder)
        file.write_bytes(before)


def test_turned_bits_in_an_image_are_one_message_when_it_is_read(folder: Path) -> None:
    images, file = opened(folder).train, shard(folder)
    file.write_bytes(bytes(byte ^ 0x5A for byte in file.read_bytes()))
    with pytest.raises(RobustokError, match=rf"{file.name}, image 2: this image is not as it was prepared"):
        images.load([2])


def test_memory_that_runs_out_says_nothing_against_the_image(folder, monkeypatch):
    monkeypatch.setattr("robustok_data.prepared.decoded", without_memory)
    with pytest.raises(RunError, match="image 2: there is not enough memory to decode this image"):
        opened(folder).train.load([2])


def test_a_folder_that_is_something_else_is_one_message(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RobustokError, match="no prepared images"):
        opened(root)
    with pytest.raises(RobustokError, match="no such folder"):
        opened(tmp_path / "nothing")
