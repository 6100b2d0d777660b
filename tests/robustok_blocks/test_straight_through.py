"""The straight-through estimator returns exact values and passes the gradient on."""

from __future__ import annotations

import torch

from robustok_blocks.straight_through import straight_through


def test_values_equal_the_vectors_exactly_and_the_gradient_goes_to_z():
    torch.manual_seed(0)
    z, vectors = (100 * torch.randn(64, 8)).requires_grad_(), torch.randn(64, 8).requires_grad_()
    through = straight_through(z, vectors)
    assert torch.equal(through, vectors)
    weights = torch.randn(64, 8)
    (through * weights).sum().backward()
    assert torch.equal(z.grad, weights)
    assert vectors.grad is None
