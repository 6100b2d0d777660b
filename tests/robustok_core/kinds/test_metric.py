"""An evaluation computes the features of real images once for all metrics."""

from __future__ import annotations

import torch

from robustok_core import Draws, Latents
from robustok_core.kinds.metric import Evaluation
from robustok_core.values.batches import ImageBatch


class Counting:
    """A network that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        return images.mean((2, 3)) + self.calls


def test_the_features_of_real_images_are_computed_once_for_each_network():
    images = torch.rand(2, 3, 4, 4)
    rows = torch.arange(2)
    step = Evaluation(
        batch=ImageBatch(images=images, labels=rows, indices=rows),
        latents=Latents(codes=torch.zeros(2, 4, dtype=torch.int64)),
        images=torch.zeros(2, 3, 4, 4),
        tokenizer=None,
        draws=Draws.for_rows(0, 2),
    )
    first, second = Counting(), Counting()
    expected = images.mean((2, 3)) + 1
    for network in (first, second, first):
        assert torch.equal(step.real_features(network), expected)
    assert (first.calls, second.calls) == (1, 1)
