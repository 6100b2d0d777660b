from __future__ import annotations

import torch

from robustok_core import Draws
from robustok_generators.label_dropout import drop_labels

LABELS = torch.arange(4000) % 10
DRAWS = Draws.for_rows(3, 4000)


def test_a_share_of_the_labels_is_the_null_class_and_the_others_stay() -> None:
    found = drop_labels(LABELS, DRAWS, 0.25, 10)
    dropped = found == 10
    assert 0.22 < dropped.float().mean() < 0.28
    assert torch.equal(found[~dropped], LABELS[~dropped])
    assert torch.equal(dropped, DRAWS.uniform() < 0.25), "uses the given draws, not a child stream"


def test_more_are_dropped_at_a_higher_rate_and_none_at_0() -> None:
    few, many = (drop_labels(LABELS, DRAWS, rate, 10) == 10 for rate in (0.1, 0.5))
    assert bool(many[few].all())
    assert torch.equal(drop_labels(LABELS, DRAWS, 0.0, 10), LABELS)
