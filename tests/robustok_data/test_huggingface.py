from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robustok_core.errors import RobustokError
from robustok_core.values.ignored import as_it_was_made
from robustok_data.huggingface import HuggingFace, HuggingFaceConfig
from robustok_toolkit.crops import center_crop
from robustok_training.batches import training_batches


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The datasets library, offline and with a cache of its own."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hub")
    datasets.disable_progress_bars()
    return datasets


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 26, 3), dtype=np.uint8))


@pytest.fixture
def table(library: Any) -> Callable[..., Any]:
    """Makes a datasets.Dataset of n images with alternating classes."""

    def make(count: int, labels: Any = None, names: list[str] | None = None, start: int = 0) -> Any:
        values = [i % 2 for i in range(count)] if labels is None else labels
        rows = {"image": [noise(start + i) for i in range(count)], "label": values}
        made = library.Dataset.from_dict(rows).cast_column("image", library.Image())
        return made.cast_column("label", library.ClassLabel(names=names)) if names else made

    return make


def opened(path: Path, **options: object) -> HuggingFace:
    return HuggingFace(HuggingFaceConfig(path=str(path), **{"image_size": 16, **options}))


@pytest.fixture
def on_disk(library: Any, table: Callable[..., Any], tmp_path: Path) -> Path:
    splits = {"train": table(10, names=["cat", "dog"]), "test": table(4, names=["cat", "dog"], start=100)}
    library.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_images_and_labels_are_those_of_the_table(on_disk: Path) -> None:
    dataset = opened(on_disk, validation_split="test")
    assert dataset.class_names == ("cat", "dog")
    assert (len(dataset.train), len(dataset.validation)) == (10, 4)
    batch = dataset.validation.load([3, 0])
    for image, seed in zip(batch.images, (103, 100), strict=True):
        expected = torch.from_numpy(np.asarray(center_crop(noise(seed), 16)).astype(np.float32)).permute(2, 0, 1)
        torch.testing.assert_close(image, expected / 127.5 - 1, atol=1e-6, rtol=0)
    assert batch.labels.tolist() == [1, 0]


@pytest.mark.parametrize("options", [{"name": "small"}, {"revision": "main"}])
def test_options_of_the_hub_are_said_to_do_nothing_with_a_saved_data_set(
    on_disk: Path, options: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    opened(on_disk, **options)
    assert f"{next(iter(options))} of the hub, without effect on files of this machine" in caplog.text


def test_a_folder_of_parquet_files_is_read(table: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "parquet"
    folder.mkdir()
    table(8).to_parquet(folder / "train.parquet")
    dataset = opened(folder, validation_share=0.25)
    assert dataset.class_names == ("0", "1")
    assert torch.bincount(dataset.train.labels).tolist() == [3, 3]
    assert torch.bincount(dataset.validation.labels).tolist() == [1, 1]


def test_a_single_saved_table_and_names_as_labels_are_read(table: Callable[..., Any], tmp_path: Path) -> None:
    table(6, labels=["dog", "cat"] * 3).save_to_disk(tmp_path / "one")
    dataset = opened(tmp_path / "one")
    assert dataset.class_names == ("cat", "dog")
    assert torch.bincount(dataset.train.labels).tolist() == [2, 2]


def test_workers_and_pickling_change_nothing(on_disk: Path) -> None:
    images = opened(on_disk, crop="random", flip=True, validation_split="test").train
    options = {"seed": 2, "global_batch": 5, "accumulation": 1, "rank": 0, "world": 1, "total_steps": 3}
    plain, worked, copied = (
        torch.cat([batch.images for (batch,) in training_batches(source, start_step=0, workers=workers, **options)])
        for source, workers in ((images, 0), (images, 1), (pickle.loads(pickle.dumps(images)), 0))
    )
    assert torch.equal(plain, worked)
    assert torch.equal(plain, copied)


def test_the_fingerprint_follows_content(library: Any, table: Callable[..., Any], tmp_path: Path) -> None:
    def fingerprint(name: str, start: int) -> str:
        table(6, start=start).save_to_disk(tmp_path / name)
        return opened(tmp_path / name).train.fingerprint

    assert fingerprint("one", 0) == fingerprint("same", 0) != fingerprint("other", 1)


def test_a_broken_image_is_named_or_skipped(library: Any, tmp_path: Path, picture: Callable[..., bytes]) -> None:
    cells = [{"bytes": picture(i), "path": None} for i in range(6)]
    cells[1]["bytes"] = b"junk"
    dataset_rows = library.Dataset.from_dict({"image": cells, "label": [0] * 6})
    dataset_rows.cast_column("image", library.Image()).save_to_disk(tmp_path / "bad")
    dataset = opened(tmp_path / "bad")
    index = next(i for i in range(5) if dataset.train._pictures.location(i).endswith("row 1"))
    with pytest.raises(RobustokError, match="bad, train, row 1: this image cannot be read: UnidentifiedImageError"):
        dataset.train.load([index])
    skipping = opened(tmp_path / "bad", on_bad_file="skip")
    assert len(skipping.train) + len(skipping.validation) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_split": "tarin"}, "saved: no split 'tarin' .did you mean 'train'"),
        ({"validation_split": "validation"}, "no split 'validation' .known: test, train"),
        ({"image_column": "img"}, "split 'train' has no column 'img' .*image"),
        ({"label_column": "labels"}, "split 'train' has no column 'labels' .did you mean 'label'"),
        ({"image_column": "label"}, "column 'label' does not hold images"),
        ({"label_column": "image"}, "column 'image' holds Image.*, not integers or names"),
    ],
)
def test_a_wrong_option_is_one_message(on_disk: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(RobustokError, match=message):
        opened(on_disk, **options)


def test_the_training_split_is_not_held_out(on_disk: Path) -> None:
    with pytest.raises(ValueError, match="validation_split is the training split 'train'"):
        opened(on_disk, validation_split="train")
    with as_it_was_made():  # the recipe of a run
        assert opened(on_disk, validation_split="train").validation is not None


def test_a_class_without_images_is_one_message(table: Callable[..., Any], tmp_path: Path) -> None:
    table(6, names=["cat", "dog", "emu"]).save_to_disk(tmp_path / "gap")
    with pytest.raises(RobustokError, match=r"gap, train: a class needs at least 2 training images: 'emu' \(0\)"):
        opened(tmp_path / "gap")


def test_a_hub_that_cannot_be_reached_is_one_message() -> None:
    with pytest.raises(
        RobustokError, match="someone/something: cannot get the data set someone/something from .*HF_HUB_OFFLINE is set"
    ):
        opened(Path("someone/something"))


def test_a_folder_without_data_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(RobustokError, match="the data set cannot be opened"):
        opened(tmp_path)


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RobustokError, match=r"pip install 'robustok\[huggingface\]'"):
        opened(Path("anything"))


def saved(library: Any, folder: Path, cells: list[Any], labels: list[Any]) -> Path:
    table = library.Dataset.from_dict({"image": cells, "label": labels}).cast_column("image", library.Image())
    table.save_to_disk(folder)
    return folder


@pytest.mark.parametrize(
    ("missing", "labels", "message"),
    [
        ("image", [0, 1] * 4, "1 of 8 rows that have no image: row 3 .*skip"),
        ("label", [0, 1, 0, None, 0, 1, 0, 1], "1 of 8 rows that have no label: row 3 .*skip"),
        ("label", ["a", "b", "a", None, "a", "b", "a", "b"], "1 of 8 rows that have no label: row 3 .*skip"),
    ],
)
def test_a_row_without_image_or_label_is_named_or_skipped(
    library: Any, tmp_path: Path, picture: Callable[..., bytes], missing: str, labels: list[Any], message: str
) -> None:
    cells: list[Any] = [{"bytes": picture(i), "path": None} for i in range(8)]
    if missing == "image":
        cells[3] = None
    saved(library, tmp_path / "set", cells, labels)
    with pytest.raises(RobustokError, match=f"set, train: {message}"):
        opened(tmp_path / "set")
    dataset = opened(tmp_path / "set", on_bad_file="skip")
    assert len(dataset.train) + len(dataset.validation) == 7
    assert dataset.class_names == (("a", "b") if labels[0] == "a" else ("0", "1"))
    dataset.train.load(range(len(dataset.train)))


def test_a_table_without_any_label_is_one_message(library: Any, tmp_path: Path, picture: Callable[..., bytes]) -> None:
    saved(library, tmp_path / "set", [{"bytes": picture(i), "path": None} for i in range(4)], [None] * 4)
    with pytest.raises(RobustokError, match="4 of 4 rows that have no label"):
        opened(tmp_path / "set")
    with pytest.raises(RobustokError, match="there are no images"):
        opened(tmp_path / "set", on_bad_file="skip")


def test_a_replaced_picture_of_another_size_changes_the_fingerprint(
    library: Any, tmp_path: Path, picture: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustok_data.pictures._SAMPLED", 1)
    monkeypatch.setattr("robustok_data.huggingface._is_saved", lambda _: False)  # without the table's own fingerprint
    monkeypatch.setattr(library, "load_dataset", lambda path, *_, **__: library.load_from_disk(path))

    def fingerprint(name: str, width: int) -> str:
        cells = [{"bytes": picture(i, width if i == 5 else 24), "path": None} for i in range(8)]
        return opened(saved(library, tmp_path / name, cells, [0, 1] * 4)).train.fingerprint

    assert fingerprint("one", 24) == fingerprint("same", 24) != fingerprint("other", 30)


def test_pictures_beside_the_table_are_known_by_their_size(
    library: Any, class_folders: Callable[..., Path], picture: Callable[..., bytes]
) -> None:
    root = class_folders({"cat": 4, "dog": 4}, split="train")
    before = opened(root).train.fingerprint
    assert opened(root, on_bad_file="skip").train.fingerprint == before
    for folder in ("cat", "dog"):
        for number in range(4):
            (root / f"train/{folder}/{number:03d}.png").write_bytes(picture(90 + number, 40))
    assert opened(root).train.fingerprint != before


def test_code_that_comes_with_data_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/made.py").write_text("raise SystemExit('this was run')")
    with pytest.raises(RobustokError, match="cannot be opened .*script.* never run: convert it to parquet"):
        opened(tmp_path / "made")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_cut_table_is_one_message(on_disk: Path, kept: float) -> None:
    for file in on_disk.rglob("*.arrow"):
        file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    with pytest.raises(RobustokError, match=r"saved.*: (the data set cannot be opened|this table is damaged)"):
        opened(on_disk)


def test_fetch_runs_no_code_either(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(library, "load_dataset", lambda *_, **options: asked.update(options))
    (download,) = HuggingFace.downloads(HuggingFaceConfig(path="owner/cats", image_size=16))
    download.fetch()
    assert asked["trust_remote_code"] is False


COMMIT, OTHER = "a" * 40, "b" * 40


@pytest.mark.parametrize(
    ("kept", "options", "present"),
    [
        (f"a/0.0.0/{COMMIT}", {}, True),
        (f"a/0.0.0/{COMMIT}", {"name": "a"}, True),
        (f"a-0123456789abcdef/0.0.0/{COMMIT}", {"name": "a"}, True),
        (f"ab/0.0.0/{COMMIT}", {"name": "a"}, False),
        (f"a-b/0.0.0/{COMMIT}", {"name": "a"}, False),
        (f"a/0.0.0/{COMMIT}", {"name": "[a]"}, False),
        (f"a/0.0.0/{COMMIT}.incomplete", {}, False),
        (f"a/0.0.0/{COMMIT}", {"revision": COMMIT}, True),
        (f"a/0.0.0/{COMMIT}", {"revision": OTHER}, False),
        (f"a/0.0.0/{COMMIT}", {"revision": "v1"}, True),
        (f"a/0.0.0/{OTHER}", {"revision": "v1"}, False),
        (f"a/0.0.0/{COMMIT}", {"revision": "v2"}, False),
    ],
)
def test_a_data_set_is_here_only_if_it_is_complete_and_the_one_asked_for(
    kept: str, options: dict[str, str], present: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    references = tmp_path / "cache/datasets--owner--cats/refs"
    references.mkdir(parents=True)
    (references / "v1").write_text(COMMIT)
    (tmp_path / "hub/owner___cats" / kept).mkdir(parents=True)
    (download,) = HuggingFace.downloads(HuggingFaceConfig(path="owner/cats", image_size=16, **options))
    assert download.present() is present
