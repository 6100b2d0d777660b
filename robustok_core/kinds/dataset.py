"""Images with labels, and other data that training reads by index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.kinds import expectations
from robustok_core.kinds.boundary import Boundary, Call, name_of
from robustok_core.kinds.component import Component
from robustok_core.values.batches import Batch, ImageBatch
from robustok_core.values.draws import Draws

#: Where a split remembers the image size of its data set.
_SIZE = "_robustok_image_size"


def _loaded(call: Call, batch: Any, indices: Sequence[int], *_: Any, **__: Any) -> None:
    call.require(isinstance(batch, Batch), f"`load` must return a Batch, found {type(batch).__name__}")
    for name in ("labels", "indices"):
        expectations.tensor(call, getattr(batch, name), (len(indices),), torch.int64, f"{name} of `load`")


def _loaded_images(call: Call, batch: Any, indices: Sequence[int], *_: Any, **__: Any) -> None:
    call.require(isinstance(batch, ImageBatch), f"`load` must return an ImageBatch, found {type(batch).__name__}")
    _loaded(call, batch, indices)
    known = getattr(call.component, "__dict__", {}).get(_SIZE)
    height, width = _size(batch.images) if known is None else (known, known)
    expectations.tensor(call, batch.images, (len(indices), 3, height, width), torch.float32, "images of `load`")
    if call.looks_at_values():
        call.require(bool((batch.images.abs() <= 1.0).all()), "images of `load` must lie in [-1, 1]")
        asked = known is None or batch.indices.tolist() == list(indices)  # a part of a split names the whole's rows
        call.require(asked, "`load` must return the indices that it was asked for")


def _size(images: Any) -> tuple[int, int]:
    """The height and width of images that are in no data set, whose images would be square."""
    return (images.shape[2], images.shape[3]) if isinstance(images, Tensor) and images.ndim == 4 else (0, 0)


def _built(call: Call) -> None:
    data = call.component
    size = getattr(data, "image_size", None)
    call.require(isinstance(size, int), f"`image_size` must be an integer, found {size!r}")
    names = getattr(data, "class_names", ())
    classes = getattr(data, "num_classes", None)
    call.require(len(names) == classes, f"it has {classes} classes but {len(names)} class names")
    for name in ("train", "validation"):
        split: Any = getattr(data, name, None)
        call.require(isinstance(split, Images), f"`{name}` must be Images, found {type(split).__name__}")
        labels = split.labels
        count = len(labels) if isinstance(labels, Tensor) and labels.ndim else 0
        expectations.tensor(call, labels, (count,), torch.int64, f"labels of `{name}`")
        call.require(count > 0, f"`{name}` is empty")
        expectations.in_range(call, labels, data.num_classes, f"`{name}` has labels")
        split.built_as(f"{name_of(data)}, {name}")
        if hasattr(split, "__dict__"):
            split.__dict__[_SIZE] = size


class Rows(Boundary, ABC):
    """Data that training reads by index. Must be picklable: data loader workers hold a copy."""

    returns: ClassVar = {"load": _loaded}

    @property
    @abstractmethod
    def labels(self) -> Tensor:
        """(n,) int64 in [0, num_classes)."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the content and of its preparation (crop, size): equal rows have equal hashes."""

    @abstractmethod
    def load(self, indices: Sequence[int], draws: Draws | None = None) -> Batch:
        """The rows at `indices`. `draws` (one row each) drives augmentation; None disables it."""

    def __len__(self) -> int:
        return len(self.labels)


class Images(Rows):
    """The images of one split of a data set."""

    returns: ClassVar = {"load": _loaded_images}

    @abstractmethod
    def load(self, indices: Sequence[int], draws: Draws | None = None) -> ImageBatch:
        """The images at `indices`."""


@frozen(kw_only=True)
class Expected:
    """What a data set will hold where it is: enough to plan with."""

    train: int = field(validator=validators.ge(2), metadata={"doc": "training images"})
    validation: int = field(validator=validators.ge(2), metadata={"doc": "validation images"})
    classes: int = field(validator=validators.ge(1), metadata={"doc": "classes"})


class Dataset(Component, ABC):
    """Images with labels, in a training and a validation split.

    Where its Config has an option `expect` (an `Expected` or None) besides `image_size`, recipes can be planned and
    checked on machines that do not have the data.

    The constructor `Dataset(config)` opens and checks the source. It raises RobustokError if a file is missing,
    a folder is empty or a class has fewer than 2 images.
    """

    built: ClassVar = staticmethod(_built)
    image_size: int
    num_classes: int
    class_names: Sequence[str]
    train: Images
    validation: Images
