"""Fluent Emoji (Microsoft, 3D style): the package contains all 1,854 shaded colour renders, losslessly coded."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import field, frozen, validators
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Dataset
from robustok_core.recipe.validators import LARGEST_SIDE, in_range
from robustok_data.arrays import ArrayImages, as_labels, as_pixels, read_npz
from robustok_data.splits import check_classes, check_labels
from robustok_toolkit.image_decoding import why_unreadable
from robustok_training.batches import class_balanced_order

#: The file in the package.
EMBEDDED = Path(__file__).with_name("fluent_emoji.npz")
SPLITS = ("train", "val")
#: Height and width of the renders, and how many stand side by side in a split's sheet.
SIDE, COLUMNS = 64, 16
_NUM_CLASSES = 9


@frozen(kw_only=True)
class FluentEmojiConfig:
    """Options of `fluent_emoji`."""

    image_size: int = field(
        default=SIDE,
        validator=in_range(8, LARGEST_SIDE),
        metadata={"doc": "height and width in pixels: 64 is native, others resize (bilinear)"},
    )
    flip: bool = field(
        default=False,
        metadata={"doc": "mirror half of the training images, letters and flags too: for a tokenizer, not a generator"},
    )
    train_limit: int | None = field(
        default=None,
        validator=validators.optional(validators.ge(2 * _NUM_CLASSES)),
        metadata={"doc": "use only this many training images, class-balanced"},
    )
    validation_limit: int | None = field(
        default=None,
        validator=validators.optional(validators.ge(1)),
        metadata={"doc": "use only this many validation images, class-balanced"},
    )


class NamedImages(ArrayImages):
    """A split in memory whose pictures have names.

    Attributes:
        names: the Unicode short name of each image.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, names: Sequence[str], **options: Any) -> None:
        super().__init__(pixels, labels, **options)
        self.names = tuple(names)


class FluentEmoji(Dataset):
    """1,580 training and 274 validation renders of emoji on white, 64x64 pixels in colour, in Unicode's 9 groups.

    Too few to judge a generator by a Fréchet distance. Emoji of one kind (clock faces, a job in two sexes) are in one
    split only; one picture is in both, as "cat face" and "grinning cat". Both splits are in `class_balanced_order`.
    `train.names` and `validation.names` are Unicode's names, which a few pictures share.
    """

    Config = FluentEmojiConfig
    train: NamedImages
    validation: NamedImages

    def __init__(self, config: FluentEmojiConfig) -> None:
        wanted = [f"{split}_{part}" for split in SPLITS for part in ("sheet", "labels", "names")]
        arrays = read_npz(EMBEDDED, ["class_names", *wanted])
        self.image_size = config.image_size
        self.class_names = tuple(arrays["class_names"].tolist())
        self.num_classes = len(self.class_names)
        self.train = _split(arrays, "train", config.train_limit, config)
        self.validation = _split(arrays, "val", config.validation_limit, config)
        for split in (self.train, self.validation):
            check_labels(split.labels, self.num_classes, str(EMBEDDED))
        check_classes(self.train.labels, self.class_names, str(EMBEDDED))


def pictures_of(sheet: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """The first `count` pictures (count, SIDE, SIDE, 3) of a sheet's bytes, row by row."""
    try:
        pixels = np.array(Image.open(io.BytesIO(sheet.tobytes())).convert("RGB"))
    except Exception as error:  # Pillow raises many types for broken files
        what = f"its images cannot be read: {why_unreadable(error)}"
        raise RobustokError(what, where=str(EMBEDDED), hint="install robustok again") from error
    return rearrange(pixels, "(r h) (k w) c -> (r k) h w c", h=SIDE, k=COLUMNS)[:count]


def _split(arrays: Mapping[str, NDArray[Any]], name: str, limit: int | None, config: FluentEmojiConfig) -> NamedImages:
    names = arrays[f"{name}_names"]
    pixels = as_pixels(pictures_of(arrays[f"{name}_sheet"], len(names)), f"{EMBEDDED}, {name}_sheet")
    labels = as_labels(arrays[f"{name}_labels"], len(pixels), f"{EMBEDDED}, {name}_labels")
    order = class_balanced_order(labels)[:limit]
    chosen = names[order.numpy()].tolist()
    return NamedImages(pixels[order], labels[order], chosen, image_size=config.image_size, flip=config.flip)
