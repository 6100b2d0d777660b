from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import robustok_data.fluent_emoji as fluent_emoji
from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import Registry
from robustok_core.values.draws import Draws
from robustok_core.values.images import to_uint8
from robustok_data import plugin
from robustok_data.fluent_emoji import EMBEDDED, FluentEmoji, FluentEmojiConfig, pictures_of
from robustok_data.make_fluent_emoji import main as make_file
from robustok_data.make_fluent_emoji import sheet_of

#: SHA-256 of the images, labels (uint8) and names (one a line) of the file that the embedded one was made from.
SOURCE = {
    "train": (
        "dc554ab4a64175476a0db13ae20c8a7957f18aca9b3005a931239312208f556a",
        "d589e3ea01b8ac5e58ea66ecca858de071722f6ec47d836bc13261c7cd70e114",
        "f86b92bd47b2ba978b40548eb1968b5bf13ad58d0132009dadd4469fc07e515d",
    ),
    "val": (
        "37adaf7ee32ed1459939c058763ff1305c8ea82140f5f7207fedf71d0c7e5f95",
        "adeb2411bc7c03de5e7a1decd0a774108c58e7f3203fa99c4bc7ac8165b9cc0f",
        "bd0a01ed8cd317716c45f0e74abf9f1311014737e775e95bb927423e3d5e874c",
    ),
}
COUNTS = {"train": 1580, "val": 274}


@pytest.fixture(scope="module")
def emoji() -> FluentEmoji:
    return FluentEmoji(FluentEmojiConfig())


def small_file(path: Path, **replaced: np.ndarray | None) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (36, 64, 64, 3), dtype=np.uint8)
    arrays = {
        "class_names": np.array([f"group {label}" for label in range(9)]),
        "train_sheet": sheet_of(pixels, effort=0),
        "train_labels": np.arange(36, dtype=np.uint8) % 9,
        "train_names": np.array([f"picture {number}" for number in range(36)]),
        "val_sheet": sheet_of(pixels[:9], effort=0),
        "val_labels": np.arange(9, dtype=np.uint8),
        "val_names": np.array([f"picture {number}" for number in range(9)]),
    }
    np.savez(path, **{name: array for name, array in {**arrays, **replaced}.items() if array is not None})
    return path


@pytest.mark.parametrize("split", COUNTS)
def test_the_embedded_file_holds_the_sources_bytes(split) -> None:
    with np.load(EMBEDDED) as file:
        pixels = pictures_of(file[f"{split}_sheet"], COUNTS[split])
        labels, names = file[f"{split}_labels"], file[f"{split}_names"].tolist()
    assert pixels.shape == (COUNTS[split], 64, 64, 3)
    held = (pixels.tobytes(), labels.tobytes(), "\n".join(names).encode())
    assert tuple(hashlib.sha256(part).hexdigest() for part in held) == SOURCE[split]


def test_it_adds_at_most_7_mb_to_the_package() -> None:
    assert EMBEDDED.stat().st_size < 7e6


def test_its_licence_is_beside_it() -> None:
    text = EMBEDDED.with_name("LICENSE-fluent_emoji.txt").read_text()
    assert "Copyright (c) Microsoft Corporation" in text
    assert "The above copyright notice and this permission notice shall be included" in text


def test_the_registry_builds_it_from_a_recipe_table() -> None:
    registry = Registry()
    assert registry.add_plugin(plugin, "robustok_data").error is None
    dataset = registry.build("dataset", {"use": "fluent_emoji", "train_limit": 18, "validation_limit": 10})
    assert (len(dataset.train), len(dataset.validation)) == (18, 10)


def test_every_picture_keeps_its_pixels_label_and_name(emoji: FluentEmoji) -> None:
    with np.load(EMBEDDED) as file:
        names, labels = file["val_names"].tolist(), file["val_labels"].tolist()
        pixels = torch.from_numpy(pictures_of(file["val_sheet"], len(names))).permute(0, 3, 1, 2)
    batch = emoji.validation.load(range(len(names)))
    assert batch.images.shape == (274, 3, 64, 64)
    found = to_uint8(batch.images)
    torch.testing.assert_close(batch.images, found.double().div(127.5).sub(1).float(), atol=1e-6, rtol=0)
    held, expected = (
        sorted((name, label, image.numpy().tobytes()) for name, label, image in zip(*columns, strict=True))
        for columns in ((emoji.validation.names, batch.labels.tolist(), found), (names, labels, pixels))
    )
    assert held == expected


def test_names_and_classes_are_unicodes(emoji: FluentEmoji) -> None:
    assert emoji.num_classes == len(emoji.class_names) == 9
    place = emoji.train.names.index("red apple")
    assert emoji.class_names[emoji.train.labels[place]] == "food"


def test_the_apple_is_red_on_white(emoji: FluentEmoji) -> None:
    image = emoji.train.load([emoji.train.names.index("red apple")]).images[0]
    assert (image[:, 0, 0] == 1).all()
    red, green, blue = image[:, 32:48, 24:40].mean(dim=(1, 2)).tolist()
    assert red > max(green, blue) + 0.5


def test_no_name_is_in_both_splits_and_of_the_pictures_only_one_that_has_two_names(emoji: FluentEmoji) -> None:
    assert not set(emoji.train.names) & set(emoji.validation.names)
    train, validation = (
        dict(zip((image.numpy().tobytes() for image in split.load(range(len(split))).images), split.names, strict=True))
        for split in (emoji.train, emoji.validation)
    )
    both = [(train[pixels], validation[pixels]) for pixels in train.keys() & validation.keys()]
    assert both == [("cat face", "grinning cat")]


def test_a_limit_takes_every_class_equally_often_and_smaller_limits_are_subsets() -> None:
    small, large = (FluentEmoji(FluentEmojiConfig(train_limit=limit)).train for limit in (18, 45))
    assert torch.bincount(small.labels).tolist() == [2] * 9
    assert small.names == large.names[:18]
    assert torch.equal(small.load(range(18)).images, large.load(range(18)).images)


def test_other_sizes_are_resized_to_8_bits(emoji: FluentEmoji) -> None:
    half = FluentEmoji(FluentEmojiConfig(image_size=32, validation_limit=9)).validation.load([0]).images
    levels = (half + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert half.shape[-1] == 32
    assert half.mean() == pytest.approx(emoji.validation.load([0]).images.mean().item(), abs=0.02)


def test_flip_mirrors_the_images_chosen_by_the_draws_and_only_in_training() -> None:
    images = FluentEmoji(FluentEmojiConfig(flip=True, train_limit=36)).train
    plain, flipped = images.load(range(36)).images, images.load(range(36), Draws.for_rows(1, 36)).images
    mirrored = (flipped == plain.flip(3)).flatten(1).all(1)
    assert ((flipped == plain).flatten(1).all(1) | mirrored).all()
    assert 8 < mirrored.sum() < 30


def test_the_fingerprint_follows_content_and_size_but_not_augmentation() -> None:
    def fingerprint(**options: object) -> str:
        return FluentEmoji(FluentEmojiConfig(**options)).validation.fingerprint

    assert fingerprint() == fingerprint(flip=True) == fingerprint(train_limit=90)
    assert len({fingerprint(), fingerprint(image_size=32), fingerprint(validation_limit=9)}) == 3


def test_a_split_survives_pickling(emoji: FluentEmoji) -> None:
    copy = pickle.loads(pickle.dumps(emoji.validation))
    assert torch.equal(copy.load([3]).images, emoji.validation.load([3]).images)
    assert copy.names == emoji.validation.names


def test_the_command_writes_the_source_losslessly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (37, 64, 64, 3), dtype=np.uint8)
    labels, names = np.arange(37) % 9, np.array([f"picture {number}" for number in range(37)])
    arrays = {"class_names": np.array(list("abcdefghi"))}
    for split in COUNTS:
        arrays |= {f"{split}_images": pixels, f"{split}_labels": labels, f"{split}_names": names}
    np.savez(tmp_path / "source.npz", **arrays)
    make_file([str(tmp_path / "source.npz"), str(tmp_path / "out.npz"), "--effort", "0"])
    monkeypatch.setattr(fluent_emoji, "EMBEDDED", tmp_path / "out.npz")
    made = FluentEmoji(FluentEmojiConfig())
    assert made.class_names == tuple("abcdefghi")
    for split in (made.train, made.validation):
        places = [names.tolist().index(name) for name in split.names]
        assert sorted(places) == list(range(37))
        assert split.labels.tolist() == labels[places].tolist()
        found = to_uint8(split.load(range(37)).images).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(found, pixels[places])


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"val_names": None}, "no array val_names"),
        ({"train_sheet": np.zeros(50, np.uint8)}, "its images cannot be read: .*install robustok again"),
        ({"train_labels": np.arange(35, dtype=np.uint8) % 9}, "35 labels for 36 images"),
        ({"val_labels": np.arange(1, 10, dtype=np.uint8)}, "the label 9 is not a class: there are 9"),
    ],
)
def test_a_damaged_file_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: dict, message: str
) -> None:
    monkeypatch.setattr(fluent_emoji, "EMBEDDED", small_file(tmp_path / "bad.npz", **replaced))
    with pytest.raises(RobustokError, match=message) as caught:
        FluentEmoji(FluentEmojiConfig())
    assert "bad.npz" in str(caught.value)
