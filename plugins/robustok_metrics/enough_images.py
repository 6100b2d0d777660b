"""Numbers of images: one message for sets that are too small for a sample metric, and a part of larger ones."""

from __future__ import annotations

import torch
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.values.draws import derive_seed


def require_images(count: int, least: int, purpose: str, *, where: str, hint: str) -> None:
    """Checks that a set has enough images.

    Args:
        count: number of images; 0 if only their statistics are known. least: number that the metric needs.
        purpose: what they are for, "3 neighbours each". where: the set. hint: what to do.

    Raises:
        RobustokError: if there are fewer.
    """
    if count < least:
        instead = hint if count else "statistics are not enough: use a reference with images"
        raise RobustokError(f"{count} images are too few for {purpose}", where=where, hint=instead)


def require_both(
    num_samples: int | None, num_reference: int | None, least: int, purpose: str, *, hint: str = "use more images"
) -> None:
    """Checks the numbers of images that are known before anything runs.

    Args:
        num_samples, num_reference: as in `SampleMetric.check`. For the others, see `require_images`.

    Raises:
        RobustokError: if either set has fewer.
    """
    for where, count in (("the samples", num_samples), ("the reference", num_reference)):
        if count is not None:
            require_images(count, least, purpose, where=where, hint=hint)


def drawn_rows(features: Tensor, count: int, *names: str) -> Tensor:
    """(count, F) random rows of features (n, F), the same ones for the same `names`; all rows, in order, if n is count.

    The first rows would not do: a set may be sorted by class.
    """
    if len(features) == count:
        return features
    generator = torch.Generator().manual_seed(derive_seed(*names))
    return features[torch.randperm(len(features), generator=generator)[:count]]
