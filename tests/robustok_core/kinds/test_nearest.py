"""The selection of each row's smallest entries, against a stable sort."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustok_core.kinds.nearest import smallest
from robustok_core.values import devices


def by_sorting(scores: torch.Tensor, count: int) -> torch.Tensor:
    return scores.sort(dim=1, stable=True).indices[:, :count]


@given(
    rows=st.integers(0, 5),
    columns=st.integers(1, 400),
    share=st.floats(0, 1),
    levels=st.integers(1, 300),
    seed=st.integers(0, 999),
)
def test_it_equals_a_stable_sort_including_ties(rows, columns, share, levels, seed):
    count = max(1, round(share * columns))
    scores = torch.randint(levels, (rows, columns), generator=torch.Generator().manual_seed(seed)) - levels / 2
    assert torch.equal(smallest(scores, count), by_sorting(scores, count))


def test_signs_zeros_and_infinities_are_in_order():
    scores = torch.tensor([[2.0, 0.0, float("inf"), 1e-40, -0.0, -1e-40, -3.0, float("-inf")]])
    assert smallest(scores, 8).tolist() == [[7, 6, 5, 1, 4, 3, 0, 2]]


def test_a_device_that_is_not_asked_how_many_pass_gives_the_same(monkeypatch):
    ties = torch.randint(40, (50, 300), generator=torch.Generator().manual_seed(0)) - 20.0
    special = torch.tensor([[2.0, 0.0, float("inf"), 1e-40, -0.0, -1e-40, -3.0, float("-inf")]])
    monkeypatch.setattr(devices, "is_queued", lambda device: True)
    assert torch.equal(smallest(ties, 100), by_sorting(ties, 100))
    assert smallest(special, 8).tolist() == [[7, 6, 5, 1, 4, 3, 0, 2]]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("numbers", [0, 3])
def test_a_row_of_nan_does_not_affect_other_rows(sign, numbers):
    scores = torch.randn(4, 200, generator=torch.Generator().manual_seed(0))
    scores[1::2, numbers:] = sign * float("nan")
    found = smallest(scores, 5)
    assert torch.equal(found[::2], by_sorting(scores, 5)[::2])
    assert all(len(set(row)) == 5 for row in found[1::2].tolist())
    assert ((found >= 0) & (found < 200)).all()
