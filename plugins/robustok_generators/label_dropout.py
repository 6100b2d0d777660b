"""Training a generator for classifier-free guidance: some images lose their label (arXiv 2207.12598)."""

from __future__ import annotations

from torch import Tensor

from robustok_core.values.draws import Draws


def drop_labels(labels: Tensor, draws: Draws, rate: float, null_label: int) -> Tensor:
    """(B,) int64 labels, of which a random share `rate` is the null class.

    Args:
        labels: (B,) int64.
        draws: a stream of its own; one row an image decides.
        rate: in [0, 1); 0 drops none, as outside of training.
        null_label: the class that stands for none.
    """
    return labels.masked_fill(draws.uniform() < rate, null_label)
