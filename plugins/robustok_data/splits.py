"""What every data set must satisfy: enough images in each class, no class unknown to the training split."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robustok_core.errors import RobustokError

MIN_IMAGES = 2


def check_classes(labels: Tensor, class_names: Sequence[str], where: str) -> None:
    """Refuses training labels (n,) unless every class holds at least 2 images.

    Raises:
        RobustokError: naming the first few classes that fall short.
    """
    counts = torch.bincount(labels, minlength=len(class_names)).tolist()
    short = [f"{name!r} ({count})" for name, count in zip(class_names, counts, strict=True) if count < MIN_IMAGES]
    if short:
        more = f" and {len(short) - 3} more" if len(short) > 3 else ""
        what = f"a class needs at least {MIN_IMAGES} training images: {', '.join(short[:3])}{more}"
        raise RobustokError(what, where=where, hint="add images, or remove the class")


def check_labels(labels: Tensor, num_classes: int, where: str) -> None:
    """Refuses an empty split, and labels (n,) beyond the number of classes."""
    if len(labels) == 0:
        raise RobustokError("there are no images", where=where)
    if int(labels.max()) >= num_classes:
        what = f"the label {int(labels.max())} is no class: there are {num_classes}, counted from 0"
        raise RobustokError(what, where=where)
