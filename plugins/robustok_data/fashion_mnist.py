"""Fashion-MNIST (Xiao et al. 2017): the package contains 12,000 training and 2,000 validation images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from attrs import field, frozen, validators
from numpy.typing import NDArray
from torch.nn import functional as F

from robustok_core.errors import RobustokError
from robustok_core.kinds.dataset import Dataset
from robustok_core.recipe.validators import LARGEST_SIDE, in_range
from robustok_data.arrays import ArrayImages, as_labels, as_pixels, read_npz
from robustok_data.places import local, place_field
from robustok_data.splits import check_classes, check_labels
from robustok_training.batches import class_balanced_order

CLASS_NAMES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
#: The file in the package.
EMBEDDED = Path(__file__).with_name("fashion_mnist.npz")
_NATIVE_SIZE = 28
_PADDED_SIZE = 32


@frozen(kw_only=True)
class FashionMNISTConfig:
    """Options of `fashion_mnist`."""

    path: str | None = place_field(
        "an .npz file with train_images, train_labels, val_images, val_labels; left out: the embedded one", default=None
    )
    image_size: int = field(
        default=_PADDED_SIZE,
        validator=in_range(8, LARGEST_SIDE),
        metadata={"doc": "height and width in pixels: 28 is native, 32 pads with background, others resize (bilinear)"},
    )
    flip: bool = field(default=False, metadata={"doc": "mirror half of the training images (shoes all point left)"})
    train_limit: int | None = field(
        default=None,
        validator=validators.optional(validators.ge(2 * len(CLASS_NAMES))),
        metadata={"doc": "use only this many training images, class-balanced"},
    )
    validation_limit: int | None = field(
        default=None,
        validator=validators.optional(validators.ge(1)),
        metadata={"doc": "use only this many validation images, class-balanced"},
    )


class FashionMNIST(Dataset):
    """10 classes of clothes in grey on black, 28x28 pixels.

    Both splits are in `class_balanced_order`, so that a limit takes the same number of images of every class.
    """

    Config = FashionMNISTConfig

    def __init__(self, config: FashionMNISTConfig) -> None:
        path = EMBEDDED if config.path is None else local(config.path)
        arrays = read_npz(path, ["train_images", "train_labels", "val_images", "val_labels"])
        self.image_size = config.image_size
        self.class_names = CLASS_NAMES
        self.num_classes = len(CLASS_NAMES)
        self.train = _split(arrays, "train", config.train_limit, config, str(path))
        self.validation = _split(arrays, "val", config.validation_limit, config, str(path))
        check_classes(self.train.labels, CLASS_NAMES, str(path))


def _split(
    arrays: Mapping[str, NDArray[np.generic]], name: str, limit: int | None, config: FashionMNISTConfig, path: str
) -> ArrayImages:
    where = f"{path}, {name}_images"
    pixels = as_pixels(arrays[f"{name}_images"], where)  # (n, 1, 28, 28)
    labels = as_labels(arrays[f"{name}_labels"], len(pixels), f"{path}, {name}_labels")
    if pixels.shape[1:] != (1, _NATIVE_SIZE, _NATIVE_SIZE):
        raise RobustokError(
            f"expected greyscale images of 28x28 pixels, found {tuple(arrays[f'{name}_images'].shape[1:])}",
            where=where,
            hint='`use = "npz"` reads other images',
        )
    check_labels(labels, len(CLASS_NAMES), where)
    order = class_balanced_order(labels)[:limit]
    pixels = pixels[order]
    if config.image_size == _PADDED_SIZE:
        pixels = F.pad(pixels, [(_PADDED_SIZE - _NATIVE_SIZE) // 2] * 4)
    return ArrayImages(pixels, labels[order], image_size=config.image_size, flip=config.flip)
