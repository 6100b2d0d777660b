"""No perturbation."""

from __future__ import annotations

import pytest
import torch

from robustok_core import Draws, Latents


@pytest.mark.parametrize(
    "latents", [Latents(codes=torch.arange(6).reshape(2, 3)), Latents(vectors=torch.ones(2, 3, 4))]
)
def test_latents_of_any_space_are_returned_unchanged(registry, latents):
    perturbation = registry.build("perturbation", {"use": "none"})
    same, mask = perturbation.perturb(latents, None, draws=Draws.for_rows(0, 2), progress=0.5)
    assert same is latents
    assert torch.equal(mask, torch.zeros(2, 3, dtype=torch.bool))
