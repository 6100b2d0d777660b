from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_kid import kernel_rbf, mmd2

import robustok_metrics.cmmd
from robustok_core import RobustokError, Spec
from robustok_metrics.cmmd import CMMD, CMMDConfig, discrepancy

Colours = Callable[..., Spec]


def cloud(seed: int, count: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)) + shift


def normalised(rows: Tensor) -> np.ndarray[Any, Any]:
    lengths: np.ndarray[Any, Any] = np.linalg.norm(rows.double().numpy(), axis=1, keepdims=True)
    return rows.double().numpy() / lengths


def test_discrepancy_matches_torch_fidelitys_kernels() -> None:
    ours, theirs = normalised(cloud(1, 40, 0.5)), normalised(cloud(2, 40))
    pairs = ((ours, ours), (ours, theirs), (theirs, theirs))
    kernels = [kernel_rbf(one, other, kid_kernel_rbf_sigma=10.0) for one, other in pairs]
    expected = 1000 * mmd2(*kernels, mmd_est="biased")
    assert discrepancy(cloud(1, 40, 0.5), cloud(2, 40)) == pytest.approx(expected)


def test_sets_of_different_sizes_are_compared_as_by_the_definition() -> None:
    ours, theirs = normalised(cloud(1, 7, 0.5)), normalised(cloud(2, 12))

    def mean(some: np.ndarray[Any, Any], others: np.ndarray[Any, Any]) -> float:
        return float(np.mean([math.exp(-(np.linalg.norm(x - y) ** 2) / 200) for x in some for y in others]))

    expected = 1000 * (mean(ours, ours) + mean(theirs, theirs) - 2 * mean(ours, theirs))
    assert discrepancy(cloud(1, 7, 0.5), cloud(2, 12)) == pytest.approx(expected)


def test_two_opposite_embeddings_have_the_largest_discrepancy() -> None:
    """Their squared distance is 4: 1,000 (1 + 1 - 2 exp(-4 / 200)); lengths do not count."""
    one = torch.tensor([[3.0, 0.0]])
    assert discrepancy(one, torch.tensor([[-0.1, 0.0]])) == pytest.approx(2000 * (1 - math.exp(-0.02)))
    assert discrepancy(one, one * 7) == pytest.approx(0.0, abs=1e-9)


def test_chunking_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = discrepancy(cloud(1, 90, 0.4), cloud(2, 70))
    monkeypatch.setattr(robustok_metrics.cmmd, "_KERNELS_AT_ONCE", 7 * 70)
    assert discrepancy(cloud(1, 90, 0.4), cloud(2, 70)) == pytest.approx(whole)


def test_only_the_published_clip_gives_a_cmmd(given: Any, colours: Colours) -> None:
    rows = given(cloud(1, 10))
    for network, name in (("clip", "cmmd"), ("clip_random", "mmd_clip_random"), ("inception", "mmd_inception")):
        metric = CMMD(CMMDConfig(features=colours(network), least_images=10))
        assert set(metric.compute(rows, rows)) == {name}
        assert metric.result_names(lambda spec: spec.build()) == [name]


def test_too_few_images_are_refused_before_and_after(given: Any, colours: Colours) -> None:
    metric = CMMD(CMMDConfig(features=colours(), least_images=10))
    with pytest.raises(RobustokError, match="9 images are too few for least_images = 10 in each set") as caught:
        metric.compute(given(cloud(1, 9), "generated"), given(cloud(2, 20)))
    assert (caught.value.where, caught.value.hint) == ("generated", "lower least_images")
    with pytest.raises(RobustokError, match="too few"):
        metric.check(20, 9)
