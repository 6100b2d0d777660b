"""Training and validation splits: which image is in which, and checks for every data set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.values.draws import Draws, derive_seed
from robustok_core.values.ignored import changed_options
from robustok_core.values.wording import some_names
from robustok_data.pictures import FilesConfig, PictureImages, Pictures, SomePictures, limited_rows

MIN_IMAGES = 2

_log = logging.getLogger(__name__)


def validation_share_field(where: str) -> Any:
    """The option validation_share; `where` says when it applies."""
    return field(
        default=0.1,
        validator=[validators.gt(0.0), validators.lt(1.0)],
        metadata={"doc": f"share of each class used for validation {where}"},
    )


def warn_of_share(config: Any, where: str) -> None:
    """For data with validation images of their own: says so of a validation_share that is not the default."""
    if any(changed_options(config, "validation_share")):
        what = "%s: validation_share = %g has no effect: there is a validation split"
        _log.warning(what, where, config.validation_share)


@frozen(kw_only=True, eq=False)
class Labelled:
    """Labelled images of a split that is being opened.

    Attributes:
        pictures: n images.
        labels: (n,) int64.
        where: the location for messages.
        keys: (n,) int64; the images of a class with the smallest keys go to validation. A function of the image's
            name or index.
    """

    pictures: Pictures
    labels: Tensor
    where: str
    keys: Tensor = field()

    @keys.default
    def _keys(self) -> Tensor:
        return keys_of_places(len(self.labels))

    def __getitem__(self, rows: Tensor) -> Labelled:
        """The images at rows (m,) int64."""
        return Labelled(
            pictures=SomePictures(self.pictures, rows),
            labels=self.labels[rows],
            where=self.where,
            keys=self.keys[rows],
        )

    def limited(self, limit: int | None) -> Labelled:
        """At most so many of the images, all classes as often as each other."""
        return self if limit is None or limit >= len(self.labels) else self[limited_rows(self.labels, limit)]

    def shares(self, share: float) -> tuple[Labelled, Labelled]:
        """The training and the validation share."""
        held_out = validation_rows(self.labels, share, self.keys)
        return self[(~held_out).nonzero().flatten()], self[held_out.nonzero().flatten()]


def keys_of_places(count: int) -> Tensor:
    """(count,) int64 shuffled keys, a function of the count."""
    return Draws.for_rows(derive_seed("validation"), count).bits()


def two_splits(
    train: Labelled, validation: Labelled | None, share: float, class_names: Sequence[str], config: FilesConfig
) -> tuple[PictureImages, PictureImages]:
    """Both splits, checked and limited; without a validation split, a share of the training split is used.

    Raises:
        RobustokError: a class has fewer than 2 images, a split is empty, or a label is not a class.
    """
    check_labels(train.labels, len(class_names), train.where)
    check_classes(train.labels, class_names, train.where)
    if validation is None:
        train, validation = train.shares(share)
    check_labels(validation.labels, len(class_names), validation.where)
    train, validation = train.limited(config.train_limit), validation.limited(config.validation_limit)
    how = {"exif": config.exif, "fast_jpeg": config.fast_jpeg, "fast_resize": config.fast_resize}
    first, second = (PictureImages(split.pictures, split.labels, config, **how) for split in (train, validation))
    return first, second


def check_classes(labels: Tensor, class_names: Sequence[str], where: str) -> None:
    """Checks that every class has at least 2 images among training labels (n,).

    Raises:
        RobustokError: names the first few classes that have too few.
    """
    counts = torch.bincount(labels, minlength=len(class_names)).tolist()
    short = [f"{name!r} ({count})" for name, count in zip(class_names, counts, strict=True) if count < MIN_IMAGES]
    if short:
        what = f"a class needs at least {MIN_IMAGES} training images: {some_names(short)}"
        raise RobustokError(what, where=where, hint="add images, or remove the class")


def check_labels(labels: Tensor, num_classes: int, where: str) -> None:
    """Raises RobustokError if a split is empty or a label of (n,) is not below the number of classes."""
    if len(labels) == 0:
        raise RobustokError("there are no images", where=where)
    if int(labels.max()) >= num_classes:
        what = f"the label {int(labels.max())} is not a class: there are {num_classes}, counted from 0"
        raise RobustokError(what, where=where)


def validation_rows(labels: Tensor, share: float, keys: Tensor) -> Tensor:
    """(n,) bool: in each class the round(share * images) rows with the smallest keys, at least one, but not all.

    Args:
        labels: (n,) int64, at least 2 rows of each class that occurs.
        keys: (n,) int64, one per row, each independent of the other rows.
    """
    order = torch.argsort(keys, stable=True)
    order = order[torch.argsort(labels[order], stable=True)]  # by class, then by key
    counts = torch.bincount(labels)
    rank_in_class = torch.arange(len(labels)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    num_chosen = torch.clamp((counts * share).round().long(), min=1).minimum(counts - 1)
    chosen = torch.empty(len(labels), dtype=torch.bool)
    chosen[order] = rank_in_class < num_chosen[labels[order]]
    return chosen
