from __future__ import annotations

import io
import os
import pickle
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("webdataset")

from robustok_core.errors import RobustokError, RunError
from robustok_data.webdataset import WebDataset, WebDatasetConfig
from robustok_toolkit.crops import center_crop
from robustok_training.batches import training_batches

Picture = Callable[..., bytes]


def write_shard(path: Path, samples: Mapping[str, Mapping[str, bytes]]) -> None:
    import webdataset

    with webdataset.TarWriter(str(path), encoder=False) as sink:
        for key, files in samples.items():
            sink.write({"__key__": key, **files})


@pytest.fixture
def shards(tmp_path: Path, picture: Picture) -> Path:
    """train-000.tar to train-002.tar of 4 samples, and val-0.tar of 3; classes alternate 0, 1, 2."""
    kinds = [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("JPEG", "JPEG")]
    for name, start, count in (("train-000", 0, 4), ("train-001", 4, 4), ("train-002", 8, 4), ("val-0", 12, 3)):
        samples = {}
        for i in range(start, start + count):
            extension, kind = kinds[i % 4]
            samples[f"folder/{i:04d}"] = {extension: picture(i, 20, 18, kind), "cls": b"%d\n" % (i % 3), "json": b"{}"}
        write_shard(tmp_path / f"{name}.tar", samples)
    return tmp_path


def opened(folder: Path, train: str = "train-{000..002}.tar", **options: object) -> WebDataset:
    return WebDataset(WebDatasetConfig(train=str(folder / train), **{"image_size": 16, **options}))


def test_samples_are_those_of_webdataset_in_its_order(shards: Path) -> None:
    loaded = opened(shards, validation=str(shards / "val-0.tar")).train.load(range(12))
    for i, (picture, label) in enumerate(streamed(shards, ("train-000.tar", "train-001.tar", "train-002.tar"))):
        crop = torch.from_numpy(np.asarray(center_crop(picture, 16)).astype(np.float32)).permute(2, 0, 1)
        torch.testing.assert_close(loaded.images[i], crop / 127.5 - 1, atol=1e-6, rtol=0)
        assert loaded.labels[i] == label
    assert i == 11


def streamed(folder: Path, names: Sequence[str]) -> Iterator[tuple[Image.Image, int]]:
    """The samples as webdataset's own reader groups and decodes them."""
    import webdataset

    decoder = webdataset.autodecode.Decoder([webdataset.autodecode.imagehandler("pilrgb")])
    for name in names:
        with (folder / name).open("rb") as stream:
            files = ({**file, "__url__": name} for file in webdataset.tariterators.tar_file_iterator(stream))
            for sample in webdataset.tariterators.group_by_keys(files):
                decoded = decoder(sample)
                yield next(decoded[key] for key in ("jpg", "png", "webp", "jpeg") if key in decoded), decoded["cls"]


@pytest.mark.parametrize(
    "pattern", ["train-{000..002}.tar", "train-*.tar", "train-00[0-2].tar", "train-{000,001,002}.tar"]
)
def test_patterns_name_the_same_shards(shards: Path, pattern: str) -> None:
    assert opened(shards, pattern).train.fingerprint == opened(shards).train.fingerprint


def test_without_validation_shards_a_share_is_used(shards: Path) -> None:
    dataset = opened(shards, validation_share=0.25)
    assert torch.bincount(dataset.train.labels).tolist() == [3, 3, 3]
    assert torch.bincount(dataset.validation.labels).tolist() == [1, 1, 1]


def test_a_shard_cannot_be_in_both_splits(shards: Path) -> None:
    for train, validation in (("*.tar", "val-0.tar"), ("train-000.tar", "./train-000.tar")):
        with pytest.raises(RobustokError, match="shards are in both splits: .*(val-0|train-000).tar"):
            opened(shards, train, validation=str(shards / validation))


def test_memory_that_runs_out_is_no_damage_of_a_shard(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_memory(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("robustok_data.webdataset._label", without_memory)
        with pytest.raises(RunError, match="not enough memory"):
            opened(shards, on_bad_file="skip")
    assert len(opened(shards, validation=str(shards / "val-0.tar")).train) == 12, "nothing is remembered of it"


def test_the_order_is_a_function_of_seed_and_epoch_for_any_number_of_workers(shards: Path) -> None:
    images = opened(shards, validation=str(shards / "val-0.tar"), crop="random").train
    options = {"seed": 2, "global_batch": 4, "accumulation": 1, "rank": 0, "world": 1, "total_steps": 5}
    plain, worked = (
        torch.cat([batch.images for (batch,) in training_batches(images, start_step=0, workers=workers, **options)])
        for workers in (0, 2)
    )
    assert torch.equal(plain, worked)
    resumed = torch.cat([b.images for (b,) in training_batches(images, start_step=3, workers=0, **options)])
    assert torch.equal(resumed, plain[12:])


def test_a_shard_is_indexed_once_and_again_when_it_changes(
    shards: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from robustok_data import webdataset as ours

    listed: list[str] = []
    original = ours._list
    monkeypatch.setattr(ours, "_list", lambda shard: listed.append(Path(shard).name) or original(shard))
    first = opened(shards).train.fingerprint
    assert opened(shards).train.fingerprint == first
    assert listed == ["train-000.tar", "train-001.tar", "train-002.tar"]
    write_shard(shards / "train-001.tar", {f"new{i}": {"png": picture(50 + i), "cls": b"1"} for i in range(4)})
    assert opened(shards).train.fingerprint != first
    assert listed[3:] == ["train-001.tar"]


def test_a_damaged_index_is_rebuilt(shards: Path, cache: Path) -> None:
    first = opened(shards).train.fingerprint
    for path in cache.rglob("*.facts"):
        path.write_text("{")
    assert opened(shards).train.fingerprint == first


def test_a_split_survives_pickling(shards: Path) -> None:
    images = opened(shards).train
    assert torch.equal(pickle.loads(pickle.dumps(images)).load([5]).images, images.load([5]).images)


def test_a_broken_image_is_named_or_skipped(shards: Path, picture: Picture) -> None:
    samples = {f"s{i}": {"png": picture(i), "cls": b"0"} for i in range(4)}
    samples["s1"]["png"] = samples["s1"]["png"][:200]
    write_shard(shards / "bad.tar", samples)
    write_shard(shards / "good.tar", {"a": {"png": picture(9), "cls": b"0"}})
    images = opened(shards, "bad.tar", validation=str(shards / "good.tar")).train
    with pytest.raises(RobustokError, match="bad.tar, s1: this image cannot be read"):
        images.load([0, 1])
    assert len(opened(shards, "bad.tar", validation=str(shards / "good.tar"), on_bad_file="skip").train) == 3


@pytest.mark.parametrize(
    "spoilt",
    [
        {"cls": b"0"},
        {"png": b"x"},
        {"png": b"x", "cls": b"cat"},
        {"png": b"x", "cls": b"-1"},
        {"png": b"x", "cls": b"%d" % 2**70},
        {"png": b"x", "cls": b"9" * 5000},
        {"png": b"x", "jpg": b"x", "cls": b"0"},
    ],
)
def test_an_incomplete_sample_is_refused_or_skipped(shards: Path, picture: Picture, spoilt: dict[str, bytes]) -> None:
    samples = {f"s{i}": {"png": picture(i), "cls": b"0"} for i in range(4)}
    write_shard(shards / "bad.tar", {**samples, "odd": spoilt})
    with pytest.raises(
        RobustokError, match="1 of 5 samples without exactly one image and one class number from 0: .*bad.tar, odd"
    ):
        opened(shards, "bad.tar")
    dataset = opened(shards, "bad.tar", on_bad_file="skip")
    assert len(dataset.train) + len(dataset.validation) == 4


def test_a_sample_that_two_shards_cut_short_is_one_message_each(shards: Path) -> None:
    whole = (shards / "train-001.tar").read_bytes()
    (shards / "train-001.tar").write_bytes(whole[: len(whole) // 3 + 100])
    with pytest.raises(RobustokError, match=r"train-001.tar: this shard cannot be read .*whole, uncompressed"):
        opened(shards)


def test_a_compressed_shard_is_refused(shards: Path) -> None:
    with tarfile.open(shards / "packed.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.cls"), io.BytesIO(b""))
    with pytest.raises(RobustokError, match="packed.tar: this shard cannot be read"):
        opened(shards, "packed.tar")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("train-{000..003}.tar", r"train-003.tar: no such shard .*train-\{000..003\}"),
        ("none-*.tar", "no such shard"),
    ],
)
def test_missing_shards_are_one_message(shards: Path, pattern: str, message: str) -> None:
    with pytest.raises(RobustokError, match=message):
        opened(shards, pattern)


def test_remote_shards_are_refused() -> None:
    with pytest.raises(RobustokError, match="shards must be local files .download them first"):
        WebDataset(WebDatasetConfig(train="https://example.com/train-{000..009}.tar"))


def test_a_class_that_is_too_small_is_one_message(shards: Path, picture: Picture) -> None:
    write_shard(shards / "few.tar", {f"s{i}": {"png": picture(i), "cls": b"%d" % (i // 3)} for i in range(4)})
    with pytest.raises(RobustokError, match=r"few.tar: a class needs at least 2 training images: '1' \(1\)"):
        opened(shards, "few.tar")


def test_without_the_package_the_message_says_what_to_install(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(RobustokError, match=r"pip install 'robustok\[webdataset\]'"):
        opened(shards)


def test_a_shard_that_ends_between_two_samples_is_refused_or_read_to_there(
    shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tarfile.open(shards / "train-001.tar") as tar:
        start = tar.getmembers()[6].offset  # of the third sample
    whole = (shards / "train-001.tar").read_bytes()
    for content, reason in ((whole[:start], "it is cut after"), (damaged(whole, start), "a damaged header at byte")):
        (shards / "train-001.tar").write_bytes(content)
        with pytest.raises(RobustokError, match=rf"train-001.tar: this shard cannot be read .{reason} {start}"):
            opened(shards)
        dataset = opened(shards, on_bad_file="skip")
        assert len(dataset.train) + len(dataset.validation) == 4 + 2 + 4
        assert "its first 2 samples are read, the rest is left out" in caplog.text


def damaged(content: bytes, at: int) -> bytes:
    return content[: at + 5] + b"?" + content[at + 6 :]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("train-{000..99999999999}.tar", "cannot name more than 1000000 shards"),
        ("train-{000.tar", "this pattern cannot be read .*[Uu]nbalanced"),
        ("train\0.tar", "train: a path cannot hold a NUL character"),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_one_message(shards: Path, pattern: str, message: str) -> None:
    with pytest.raises(RobustokError, match=message):
        opened(shards, pattern)


def test_a_pipe_in_the_place_of_a_shard_is_refused_instead_of_waited_for(shards: Path) -> None:
    (shards / "train-001.tar").unlink()
    os.mkfifo(shards / "train-001.tar")
    with pytest.raises(RobustokError, match="this shard is not a file"):
        opened(shards)
    (shards / "train-001.tar").unlink()
    (shards / "train-001.tar").symlink_to("train-001.tar")
    with pytest.raises(RobustokError, match="no such shard|not a file"):
        opened(shards, "train-*.tar")


def test_files_that_belong_to_no_sample_are_named(shards: Path, picture: Picture, caplog) -> None:
    with tarfile.open(shards / "train-000.tar", "a") as tar:
        for name in ("0010", ".png", "\x1b[2J"):
            about = tarfile.TarInfo(name)
            about.size = len(picture(0))
            tar.addfile(about, io.BytesIO(picture(0)))
    count = len(opened(shards).train)
    assert "3 files have no name or no ending and are passed over: '0010', '.png', '\\x1b[2J'" in caplog.text
    caplog.clear()
    assert len(opened(shards).train) == count
    assert "3 files have no name" in caplog.text  # from the index that is remembered, too
