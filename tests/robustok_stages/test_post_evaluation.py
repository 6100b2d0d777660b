"""How the decoders before and after post-training are compared."""

from __future__ import annotations

import pytest
import torch

from robustok_core.loading import epoch_order
from robustok_stages.post_evaluation import balanced_halves


@pytest.mark.parametrize(("classes", "each"), [(10, 100), (1000, 5), (3, 30), (7, 3)])
def test_both_halves_of_the_held_out_images_hold_every_class(classes, each):
    labels = torch.arange(classes).repeat_interleave(each)[epoch_order(classes * each, seed=0, epoch=0)]
    halves = balanced_halves(labels)
    assert torch.cat(halves).sort().values.tolist() == list(range(len(labels)))
    assert abs(len(halves[0]) - len(halves[1])) <= 1
    first, second = (torch.bincount(labels[rows], minlength=classes) for rows in halves)
    assert int((first - second).abs().max()) <= 1
