"""`robustok prepare` as a user meets it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from PIL import Image

from full_disk import full_after, leftovers
from project import Project, assert_same_weights, contents, recipe_of
from robustok_commands.prepare import prepare
from robustok_core import RobustokError, RunError, load_registry
from robustok_core.errors import Interrupted
from robustok_core.kinds.dataset import Dataset
from robustok_training.progress import StepProgress

SIZE = 32
#: Three shards for training and one for validation, of 12 images each (of 32 x 32 pixels, 341 fit into a MiB).
TRAIN, VALIDATION = 900, 100


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two classes, of JPEG files of several sizes."""
    random = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "pictures" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (40 + number, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.jpg", quality=95)
    return tmp_path / "pictures"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe whose images need several shards of a MiB."""
    file = tmp_path / "recipe.toml"
    file.write_text(tomli_w.dumps(recipe_of(data={"train_limit": TRAIN, "validation_limit": VALIDATION})))
    return file


def prepared(data: Path, out: Path, *options: str) -> Path:
    small = (f"--set=data.image_size={SIZE}",) if data.is_dir() else ()
    prepare.main([str(data), str(out), "--shard-size=1", *small, *options], standalone_mode=False)
    return out


def opened(folder: Path, **options: object) -> Dataset:
    return load_registry().build("dataset", {"use": "prepared", "path": str(folder), **options})


@pytest.mark.parametrize("image_format", ["npy", "webp"])
def test_a_training_from_prepared_images_is_the_same_bit_for_bit(pictures, tmp_path, image_format):
    folder = prepared(pictures, tmp_path / "out", f"--format={image_format}")
    data = {"use": "image_folder", "path": str(pictures), "image_size": SIZE, "flip": True}
    first = Project(tmp_path / "first", data=data).run()
    second = Project(tmp_path / "second", data={"use": "prepared", "path": str(folder), "flip": True}).run()
    assert_same_weights(first.weights(), second.weights())
    losses = [[line.get("loss") for line in project.logged("train_tokenizer")] for project in (first, second)]
    assert losses[0] == losses[1] != []


@pytest.mark.parametrize("image_format", ["npy", "webp"])
def test_the_images_of_a_recipe_are_stored_as_they_are_loaded(recipe, tmp_path, image_format):
    source = load_registry().build(
        "dataset", {"use": "fashion_mnist", "train_limit": TRAIN, "validation_limit": VALIDATION}
    )
    stored = opened(prepared(recipe, tmp_path / "out", f"--format={image_format}"))
    assert stored.class_names == source.class_names
    for name in ("train", "validation"):
        ours, theirs = getattr(stored, name), getattr(source, name)
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(ours.load(range(len(ours))).images, theirs.load(range(len(theirs))).images)


def test_the_printed_table_reads_the_folder_and_mirrors_as_the_recipe_did(pictures, tmp_path, capsys):
    folder = prepared(pictures, tmp_path / "out", "--set=data.flip=true")
    table = capsys.readouterr().out.split("[data]\n")[1]
    assert table == f'use = "prepared"\npath = "{folder}"\nflip = true\n'


def test_webp_shards_are_read_by_webdataset_too(pictures, tmp_path):
    pytest.importorskip("webdataset")
    folder = prepared(pictures, tmp_path / "out", "--format=webp")
    table = {"use": "webdataset", "train": f"{folder}/train-*.tar", "validation": f"{folder}/validation-*.tar"}
    theirs, ours = load_registry().build("dataset", {**table, "image_size": SIZE}).train, opened(folder).train
    rows = range(len(ours))
    assert torch.equal(ours.load(rows).images, theirs.load(rows).images)


def test_arrays_can_be_mapped_by_numpy(pictures, tmp_path):
    folder = prepared(pictures, tmp_path / "out")
    (file,) = [file for file in folder.glob("train-*.npy") if not file.name.endswith(".index.npy")]
    pixels = np.load(file, mmap_mode="r")
    assert (pixels.dtype, pixels.shape) == (np.uint8, (len(opened(folder).train), SIZE, SIZE, 3))


def stopping(monkeypatch: pytest.MonkeyPatch, stop: Callable[[], None]) -> None:
    """Stops the command when its second shard is done."""
    real, seen = StepProgress.update, [0]

    def update(self, *arguments):
        real(self, *arguments)
        seen[0] += 1
        if seen[0] == 2:
            stop()

    monkeypatch.setattr(StepProgress, "update", update)


def test_a_stopped_command_goes_on_where_it_was(recipe, tmp_path, monkeypatch, capsys):
    def stop() -> None:
        raise KeyboardInterrupt

    whole = contents(prepared(recipe, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stopping(patch, stop)
        with pytest.raises(Interrupted, match="the finished shards are kept"):
            prepared(recipe, tmp_path / "out")
    with pytest.raises(RobustokError, match="not complete"):
        opened(tmp_path / "out")
    capsys.readouterr()
    assert contents(prepared(recipe, tmp_path / "out")) == whole
    assert "2 of 4 are there already" in capsys.readouterr().out


def test_a_killed_command_goes_on_where_it_was(recipe, tmp_path):
    code = (
        "import os\n"
        "from robustok_toolkit import preparing\n"
        "from robustok_commands.prepare import prepare\n"
        "real = preparing.write_array\n"
        "def write_array(file, array):\n"
        "    if file.name.startswith('train-000000341'): os.kill(os.getpid(), 9)\n"
        "    real(file, array)\n"
        "preparing.write_array = write_array\n"
        f"prepare.main([{str(recipe)!r}, {str(tmp_path / 'out')!r}, '--shard-size=1'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=120, env=os.environ)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert contents(prepared(recipe, tmp_path / "out")) == contents(prepared(recipe, tmp_path / "whole"))


def test_a_full_disk_leaves_nothing_half_written(recipe, tmp_path):
    whole, out, refused = contents(prepared(recipe, tmp_path / "whole")), tmp_path / "out", []
    for flushes in range(1, 40, 7):
        shutil.rmtree(out, ignore_errors=True)
        try:
            with full_after(flushes, for_good=True):
                prepared(recipe, out, "--quiet")
        except RunError as error:
            refused.append(str(error))
        assert leftovers(out) == []
        assert contents(prepared(recipe, out)) == whole
    assert len(refused) > 3
    assert all("cannot write" in message for message in refused)


def test_too_little_room_is_said_before_anything_is_written(recipe, tmp_path, monkeypatch, capsys):
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3_000_000))
        with pytest.raises(RunError, match=r"not enough room: 3\.1 MB are needed, 3\.0 MB are free"):
            prepared(recipe, tmp_path / "out")
    assert not [file for file in (tmp_path / "out").iterdir() if file.name != ".lock"]
    prepared(recipe, tmp_path / "out")
    written = sum(map(len, contents(tmp_path / "out").values()))
    assert 3_100_000 < written < 3_200_000


def test_damage_is_found_when_an_image_is_read_and_mended_by_the_same_command(recipe, tmp_path, caplog):
    folder = prepared(recipe, tmp_path / "out")
    before = contents(folder)
    shard = folder / "train-000000341-000000682.npy"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    images = opened(folder).train
    images.load([340, 341, 680, 682])
    with pytest.raises(RunError, match=r"train-000000341-000000682\.npy, image 340: .*checksum"):
        images.load([681])
    prepared(recipe, folder, "--quiet")
    assert "this shard is made again" in caplog.text
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    assert {name.split("-", 1)[0] for name in after.keys() - before.keys()} == {"damaged"}


def test_a_damaged_manifest_is_written_again(recipe, tmp_path):
    folder = prepared(recipe, tmp_path / "out")
    before = contents(folder)
    for name in ("manifest.json", "prepared.json"):
        (folder / name).write_text("{}")
        assert contents(prepared(recipe, folder)) == before


@pytest.mark.parametrize(
    ("option", "change"),
    [
        ("--format=webp", "format was npy and is webp"),
        ("--shard-size=2", "shard_images was 341 and is 682"),
        ("--set=data.image_size=16", "image_size was 32 and is 16"),
        ("--set=data.validation_share=0.3", r"there were \d+ train images and are \d+"),
        ("--set=data.fast_resize=true", r"the train images were others, or read with other options of \[data\]"),
    ],
)
def test_a_folder_that_was_prepared_otherwise_is_left_alone(pictures, tmp_path, option, change):
    folder = prepared(pictures, tmp_path / "out")
    before = contents(folder)
    with pytest.raises(RobustokError, match="prepared otherwise: " + change):
        prepared(pictures, folder, option)
    assert contents(folder) == before


def test_a_mistake_is_called_as_in_the_command(pictures, refused):
    assert "error: data.image_sze: unknown key" in refused("prepare", pictures, "out", "--set", "data.image_sze=16")


def test_a_folder_of_something_else_is_left_alone(pictures):
    before = contents(pictures)
    with pytest.raises(RobustokError, match="already exists"):
        prepared(pictures, pictures)
    assert contents(pictures) == before


def test_random_crops_are_refused(pictures, tmp_path):
    with pytest.raises(RobustokError, match=r"(?s)more than mirroring.*data\.crop=center"):
        prepared(pictures, tmp_path / "out", "--set=data.crop=random")
    assert not (tmp_path / "out").exists()


def test_ten_crops_of_prepared_images_are_refused(pictures, tmp_path):
    data = {"use": "prepared", "path": str(prepared(pictures, tmp_path / "out"))}
    stages = ["train_tokenizer", {"use": "tokenize", "views": "ten_crop"}]
    with pytest.raises(RobustokError, match="'prepared' has no option image_size"):
        Project(tmp_path / "runs", stages, data=data).check()


def test_a_damaged_picture_is_one_message_and_nothing_is_complete(pictures, tmp_path):
    file = pictures / "dog" / "39.jpg"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(RobustokError, match=r"39\.jpg: this image cannot be read"):
        prepared(pictures, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()
    prepared(pictures, tmp_path / "good", "--set=data.on_bad_file=skip")
    assert len(opened(tmp_path / "good").train) + len(opened(tmp_path / "good").validation) == 39


def test_a_recipe_without_data_is_one_message(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text(
        tomli_w.dumps(
            recipe_of(["train_generator"], load={"latents": "runs/other", "tokenizer": "runs/other"}, data=None)
        )
    )
    with pytest.raises(RobustokError, match=r"r\.toml: .*\[data\]"):
        prepared(file, tmp_path / "out")


def test_an_option_of_a_folder_without_its_table_is_one_message(pictures, tmp_path):
    with pytest.raises(RobustokError, match=r"'flip'.*\n?.*--set data\.image_size=64"):
        prepared(pictures, tmp_path / "out", "--set=flip=true")
