from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import Registry
from robustok_core.values.draws import Draws
from robustok_data import plugin
from robustok_data.fashion_mnist import FashionMNIST, FashionMNISTConfig
from robustok_data.make_fashion_subset import main as make_subset

EMBEDDED = Path(plugin.__file__).with_name("fashion_mnist.npz")


@pytest.fixture(scope="module")
def fashion() -> FashionMNIST:
    return FashionMNIST(FashionMNISTConfig())


def small_file(path: Path, **replaced: np.ndarray) -> Path:
    arrays = {
        "train_images": np.arange(40 * 784, dtype=np.uint32).astype(np.uint8).reshape(40, 28, 28),
        "train_labels": np.arange(40) % 10,
        "val_images": np.zeros((10, 28, 28), np.uint8),
        "val_labels": np.arange(10),
    }
    np.savez(path, **{name: array for name, array in {**arrays, **replaced}.items() if array is not None})
    return path


def test_the_registry_builds_it_from_a_recipe_table() -> None:
    registry = Registry()
    assert registry.add_plugin(plugin, "robustok_data").error is None
    dataset = registry.build("dataset", {"use": "fashion_mnist", "train_limit": 20, "validation_limit": 10})
    assert (len(dataset.train), len(dataset.validation)) == (20, 10)


def test_the_embedded_subset_is_class_balanced(fashion: FashionMNIST) -> None:
    assert torch.bincount(fashion.train.labels).tolist() == [1200] * 10
    assert torch.bincount(fashion.validation.labels).tolist() == [200] * 10
    assert len(fashion.class_names) == fashion.num_classes == 10


def test_no_validation_image_is_in_the_training_split(fashion: FashionMNIST) -> None:
    train, validation = (
        {row.tobytes() for row in split.load(range(len(split))).images[:, 0].numpy()}
        for split in (fashion.train, fashion.validation)
    )
    assert len(validation) == 2000
    assert not train & validation


def test_images_are_the_files_bytes_padded_with_background_in_three_equal_channels(fashion: FashionMNIST) -> None:
    batch = fashion.train.load([0, 5])
    with np.load(EMBEDDED) as file:
        expected = torch.from_numpy(file["train_images"][[0, 5]]).double() / 127.5 - 1
        assert batch.labels.tolist() == file["train_labels"][[0, 5]].tolist()
    assert batch.images.shape == (2, 3, 32, 32)
    assert batch.images.dtype == torch.float32
    for channel in range(3):
        torch.testing.assert_close(batch.images[:, channel, 2:-2, 2:-2].double(), expected, atol=1e-7, rtol=0)
    border = batch.images.clone()
    border[:, :, 2:-2, 2:-2] = -1
    assert (border == -1).all()
    assert batch.indices.tolist() == [0, 5]


def test_other_sizes_are_resized_to_8_bits(fashion: FashionMNIST) -> None:
    native = FashionMNIST(FashionMNISTConfig(image_size=28)).validation.load([0]).images
    half = FashionMNIST(FashionMNISTConfig(image_size=14)).validation.load([0]).images
    levels = (half + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert native.shape[-1] == 28
    assert half.mean() == pytest.approx(native.mean().item(), abs=0.02)


def test_a_limit_takes_every_class_equally_often_and_smaller_limits_are_subsets() -> None:
    small, large = (FashionMNIST(FashionMNISTConfig(train_limit=limit)).train for limit in (20, 50))
    assert torch.bincount(small.labels).tolist() == [2] * 10
    assert torch.equal(small.load(range(20)).images, large.load(range(20)).images)


def test_flip_mirrors_the_images_chosen_by_the_draws_and_only_in_training() -> None:
    images = FashionMNIST(FashionMNISTConfig(flip=True, train_limit=40)).train
    plain = images.load(range(40)).images
    flipped = images.load(range(40), Draws.for_rows(1, 40)).images
    mirrored = (flipped == plain.flip(3)).flatten(1).all(1)
    assert ((flipped == plain).flatten(1).all(1) | mirrored).all()
    assert 8 < mirrored.sum() < 32
    rows = torch.tensor([7, 30])
    assert torch.equal(images.load([7, 30], Draws.for_rows(1, 40)[rows]).images, flipped[rows])


def test_the_fingerprint_follows_content_and_size_but_not_augmentation() -> None:
    def fingerprint(**options: object) -> str:
        return FashionMNIST(FashionMNISTConfig(**options)).validation.fingerprint

    assert fingerprint() == fingerprint(flip=True) == fingerprint(train_limit=100)
    assert (
        len({fingerprint(), fingerprint(image_size=28), fingerprint(image_size=40), fingerprint(validation_limit=9)})
        == 4
    )


def test_a_split_survives_pickling(fashion: FashionMNIST) -> None:
    copy = pickle.loads(pickle.dumps(fashion.validation))
    assert torch.equal(copy.load([3]).images, fashion.validation.load([3]).images)
    assert copy.fingerprint == fashion.validation.fingerprint


def test_the_subset_command_is_deterministic_and_reproduces_the_embedded_file(tmp_path: Path) -> None:
    # the subset of the subset is the subset: the same rows in the same order
    for name in ("once.npz", "again.npz"):
        make_subset([str(EMBEDDED), str(tmp_path / name)])
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "once.npz").read_bytes()
    # Python versions pack archives differently, so compare the arrays.
    with np.load(tmp_path / "once.npz") as written, np.load(EMBEDDED) as embedded:
        assert written.files == embedded.files
        assert all(np.array_equal(written[name], embedded[name]) for name in embedded.files)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"val_labels": None}, "no array val_labels .arrays found: train_images, train_labels, val_images"),
        ({"train_images": np.zeros((40, 32, 32), np.uint8)}, r"28x28 pixels, found \(32, 32\) .*npz"),
        ({"train_images": np.zeros((40, 28, 28))}, r"must be uint8 .* found float64 \(40, 28, 28\)"),
        ({"train_labels": np.arange(39) % 10}, "39 labels for 40 images"),
        ({"train_labels": np.arange(40) % 11}, "the label 10 is not a class: there are 10"),
        ({"train_labels": np.arange(40) % 10 - 1}, "labels must count from 0, found -1"),
        ({"train_labels": np.arange(40) % 9}, r"at least 2 training images: 'ankle boot' \(0\)"),
        ({"val_images": np.zeros((0, 28, 28), np.uint8), "val_labels": np.zeros(0, int)}, "there are no images"),
    ],
)
def test_a_bad_file_is_one_message(tmp_path: Path, replaced: dict, message: str) -> None:
    path = small_file(tmp_path / "bad.npz", **replaced)
    with pytest.raises(RobustokError, match=message) as caught:
        FashionMNIST(FashionMNISTConfig(path=str(path)))
    assert "bad.npz" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), (b"junk", "not a readable .npz"), (b"", "not a readable")]
)
def test_a_file_that_is_not_npz_is_one_message(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "bad.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RobustokError, match=message):
        FashionMNIST(FashionMNISTConfig(path=str(path)))
