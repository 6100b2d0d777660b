"""Label dropout, which trains a generator for classifier-free guidance (arXiv 2207.12598)."""

from __future__ import annotations

from torch import Tensor

from robustok_core.values.draws import Draws


def drop_labels(labels: Tensor, draws: Draws, rate: float, null_label: int) -> Tensor:
    """Replaces a random share `rate` of the labels by the null class: (B,) int64.

    Args:
        labels: (B,) int64.
        draws: a separate stream, one row per image.
        rate: in [0, 1); 0, outside training, drops none.
        null_label: the null class.
    """
    return labels.masked_fill(draws.uniform() < rate, null_label)
