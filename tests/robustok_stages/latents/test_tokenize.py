"""Latents of a data set: views and shards; a kill or several processes change nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import frozen
from torchvision.transforms.functional import ten_crop

from processes import killed_in_a_shard
from project import TRAIN_IMAGES, Project, contents, registry_with
from robustok_core import Latents, Registry, RobustokError, Tokenizer, load_registry
from robustok_core.errors import Interrupted, RunError
from robustok_core.kinds.dataset import Dataset
from robustok_core.runs.components import save_component
from robustok_core.values.latents import LatentSpace
from robustok_stages.latents.crops_for_training import ten_crops
from robustok_toolkit.latent_files import LatentRows


def tokenizing(trained: Project, out: Path, **options: Any) -> Project:
    """A project that tokenizes with the tokenizer of another."""
    return trained.later(out, ["tokenize"], tokenize=options)


def files_kept(project: Project) -> list[Path]:
    """The shards that wait in the stage's checkpoints."""
    return sorted((project.folder / "checkpoints").rglob("[!.]*.npy"))


@pytest.mark.parametrize("size", [32, 33])
def test_ten_crops_are_those_of_torchvision(size):
    images = torch.rand(2, 3, 47, 41)
    ours = ten_crops(images, size)
    assert len(ours) == 10
    for mine, theirs in zip(ours, ten_crop(images, size), strict=True):
        assert torch.equal(mine, theirs)


def test_ten_crop_latents_are_those_of_torchvisions_crops_of_the_larger_images(trained, registry, tmp_path):
    project = tokenizing(trained, tmp_path, views="ten_crop", crop_ranges=[1.1, 1.25])
    project.table["data"] |= {"train_limit": 20, "validation_limit": 10}
    folder = project.run().artifact("latents")
    rows = LatentRows(folder, "train")
    assert (len(rows), rows.views) == (20, 20)
    tokenizer = trained.component("tokenizer")
    views = []
    for size in (35, 40):  # int(1.1 * 32), int(1.25 * 32)
        larger = registry.build("dataset", project.table["data"] | {"image_size": size}).train.load(range(20)).images
        with torch.no_grad():
            views += [tokenizer.encode(crop).codes.numpy() for crop in ten_crop(larger, 32)]
    held = np.load(folder / "parts" / "train-000000000-000000020.codes.npy")
    np.testing.assert_array_equal(held, np.stack(views, 1))
    assert LatentRows(folder, "validation").views == 1


def test_crops_of_impossible_sizes_are_refused_before_anything_is_written(trained, tmp_path):
    refusal = tokenizing(trained, tmp_path, views="ten_crop", crop_ranges=[1.1, 1100.0]).refusal()
    assert re.search("stage.tokenize.crop_ranges: images of 35200 pixels: .*image_size", refusal), refusal
    assert not list(tmp_path.iterdir())


def test_crops_that_are_all_the_same_are_said_before_the_run(trained, tmp_path, caplog):
    tokenizing(trained, tmp_path, views="ten_crop", crop_ranges=[1.1, 1.02]).check()
    (record,) = caplog.records
    assert "stage.tokenize.crop_ranges: images of 32 pixels are not enlarged by each of [1.1, 1.02]" in record.message


@pytest.mark.parametrize("part", [1, 3, 5])
def test_a_killed_stage_resumes_and_gives_the_same_files(trained, tmp_path, part):
    """Shards 1 to 3 are of the training split, 4 and 5 of the validation split."""
    project = tokenizing(trained, tmp_path)
    killed_in_a_shard(project.run, part)
    assert len(files_kept(project)) == part - 1
    before = {file.name: file.stat().st_ino for file in files_kept(project)}
    folder = project.run().artifact("latents")
    assert contents(folder) == contents(trained.artifact("latents"))
    assert before == {name: (folder / "parts" / name).stat().st_ino for name in before}
    assert not list((project.folder / "checkpoints").rglob("*.npy"))


def test_a_stop_retains_finished_shards(trained, tmp_path, monkeypatch):
    import robustok_toolkit.resumable_shards as shards

    project, calls = tokenizing(trained, tmp_path), []
    monkeypatch.setattr(shards, "asked_anywhere", lambda stop, device: calls.append(1) or len(calls) == 2)
    with pytest.raises(
        Interrupted, match="stopped in round 2 of 3 of the shards; the finished shards are saved"
    ) as caught:
        project.run()
    assert "resumes from the last checkpoint" in caught.value.hint
    assert len(list((project.folder / "checkpoints").rglob("*.npy"))) == 2
    monkeypatch.undo()
    assert contents(project.run().artifact("latents")) == contents(trained.artifact("latents"))


def test_loader_processes_change_nothing_and_repeat_nothing(trained, tmp_path):
    folder = tokenizing(trained, tmp_path, workers=2).run().artifact("latents")
    assert contents(folder) == contents(trained.artifact("latents"))
    changed_at = (folder / "latents.json").stat().st_mtime_ns
    assert tokenizing(trained, tmp_path).run().artifact("latents") == folder
    assert (folder / "latents.json").stat().st_mtime_ns == changed_at


@frozen(kw_only=True)
class NoConfig:
    pass


class Means(Tokenizer):
    """A continuous tokenizer: the mean colour of each quarter of an image, and its decoder."""

    Config = NoConfig

    def __init__(self, config: NoConfig) -> None:
        super().__init__()
        self.space = LatentSpace(kind="continuous", num_tokens=4, width=3, grid=(2, 2))
        self.image_size, self.quantizer = 32, None
        self.scale = torch.nn.Conv2d(3, 3, 1)

    def encode(self, images):
        vectors = torch.nn.functional.avg_pool2d(images, 16).flatten(2).transpose(1, 2)
        return Latents(vectors=vectors, features=vectors)

    def decode_vectors(self, vectors):
        small = vectors.transpose(1, 2).unflatten(2, (2, 2))
        return torch.nn.functional.interpolate(self.scale(small), scale_factor=16)

    @property
    def decoder(self):
        return torch.nn.ModuleList([self.scale])

    @property
    def last_layer(self):
        return self.scale.weight


class Fixed(Dataset):
    """The tiny data set in one fixed size."""

    Config = NoConfig

    def __init__(self, config: NoConfig) -> None:
        whole = load_registry().build("dataset", {"use": "fashion_mnist", "train_limit": 20, "validation_limit": 10})
        self.image_size, self.num_classes, self.class_names = 32, 10, whole.class_names
        self.train, self.validation = whole.train, whole.validation


@pytest.fixture
def with_doubles() -> Registry:
    return registry_with(tokenizer={"means": Means}, dataset={"fixed": Fixed})


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_vectors_are_stored_with_their_mean_and_std_over_the_unmirrored_training_images(with_doubles, tmp_path, dtype):
    project = Project(
        tmp_path,
        ["train_tokenizer", "tokenize"],
        tokenizer={"use": "means"},
        perturbation=None,
        train_tokenizer={"epochs": 0.2},
        tokenize={"dtype": dtype},
    )
    rows = LatentRows(project.run(registry=with_doubles).artifact("latents"), "train")
    images = project.dataset().train.load(range(TRAIN_IMAGES)).images
    vectors = torch.nn.functional.avg_pool2d(images, 16).flatten(2).transpose(1, 2)
    held = vectors if dtype == "float32" else vectors.half().float()
    assert torch.equal(rows.load(range(TRAIN_IMAGES)).latents.vectors, held)
    torch.testing.assert_close(rows.mean, held.double().mean((0, 1)).float())
    torch.testing.assert_close(rows.std, held.double().flatten(0, 1).std(0, correction=0).float())


@pytest.mark.parametrize(
    ("number", "dtype", "words"),
    [
        (-7e4, "float16", r'with values up to 70000, but float16 ends at 65504 \(set dtype = "float32"\)'),
        (float("inf"), "float16", r'that are not finite \(if precision = "bf16", set it to "no"'),
        (float("nan"), "float32", r'that are not finite \(if precision = "bf16", set it to "no"'),
    ],
)
def test_vectors_that_are_not_finite_in_their_type_are_refused_before_a_shard_is_written(
    with_doubles, tmp_path, monkeypatch, number, dtype, words
):
    (tmp_path / "means").mkdir()
    save_component(tmp_path / "means", "tokenizer", {"use": "means"}, Means(NoConfig()))
    project = Project(tmp_path / "out", ["tokenize"], load={"tokenizer": tmp_path / "means"}, tokenize={"dtype": dtype})
    monkeypatch.setattr(Means, "encode", lambda self, images: Latents(vectors=torch.full((len(images), 4, 3), number)))
    with pytest.raises(RunError, match=f"^stage tokenize: the encoder returned vectors {words}"):
        project.run(registry=with_doubles)
    assert not list((tmp_path / "out").rglob("*.npy"))


def test_a_data_set_of_one_size_cannot_be_cut_into_ten_crops(trained, with_doubles, tmp_path):
    project = tokenizing(trained, tmp_path, views="ten_crop")
    project.table["data"] = {"use": "fixed"}
    with pytest.raises(RobustokError, match="the data set 'fixed' has no option image_size") as caught:
        project.run(registry=with_doubles)
    assert caught.value.exit_code == 2
    assert not project.folder.exists()


def test_images_of_another_size_than_the_loaded_tokenizers_are_refused(trained, tmp_path):
    project = tokenizing(trained, tmp_path)
    project.table["data"]["image_size"] = 28
    with pytest.raises(RobustokError, match="tokenizer.image_size is 32, but the images"):
        project.run()


def test_a_type_of_vectors_is_refused_where_there_are_codes(trained, tmp_path):
    message = tokenizing(trained, tmp_path, dtype="float16").refusal()
    assert "stage.tokenize.dtype: it is of vectors, and this latent space has codes" in message
    assert "(leave dtype out)" in message
