"""Latents mixed with noise: (1 - t) z + t gamma eps."""

from __future__ import annotations

import math

import pytest
import torch

from robustok_core import Draws, Latents, LatentSpace, RobustokError
from robustok_perturbations.interpolate import Interpolate, InterpolateConfig


def perturb(vectors: torch.Tensor, seed: int = 0, **options: object):
    draws = Draws.for_rows(seed, len(vectors))
    perturbation = Interpolate(InterpolateConfig(**options))
    return perturbation.perturb(Latents(vectors=vectors), None, draws=draws, progress=0.0)


def test_a_fixed_share_of_noise_replaces_the_same_share_of_the_latents():
    vectors = torch.full((50, 64, 16), 2.0)
    mixed, mask = perturb(vectors, tau=0.25, strength="fixed")
    assert mask.all()
    count = vectors.numel()
    assert mixed.vectors.mean().item() == pytest.approx(0.75 * 2.0, abs=4 * 0.75 / math.sqrt(count))
    assert mixed.vectors.std().item() == pytest.approx(0.25 * 3.0, abs=4 * 0.75 / math.sqrt(2 * count))


def test_the_share_is_uniform_over_images_and_the_same_for_the_tokens_of_one():
    vectors = torch.full((500, 64, 16), 1e4)  # so large that the noise is negligible: the rest of z gives t
    shares = 1 - perturb(vectors)[0].vectors.mean(dim=2) / 1e4  # (B, N)
    assert (shares.amax(1) - shares.amin(1)).max() < 2e-3
    uniform = (torch.arange(500) + 0.5) / 500
    assert (shares.mean(1).sort().values - uniform).abs().max() < 1.63 / math.sqrt(500)  # Kolmogorov, p = 0.01


def test_at_a_share_of_1_only_noise_is_left():
    from_zeros = perturb(torch.zeros(4, 8, 2), tau=1.0, strength="fixed", gamma=1.5)[0]
    from_ones = perturb(torch.ones(4, 8, 2), tau=1.0, strength="fixed", gamma=1.5)[0]
    assert torch.equal(from_zeros.vectors, from_ones.vectors)


def test_the_gradient_that_reaches_the_encoder_is_the_share_of_the_latents_in_the_mixture():
    vectors = torch.randn(6, 8, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mixed, mask = perturb(vectors, beta=0.5, alpha=0.5, tau=0.4, strength="fixed")
    mixed.vectors.sum().backward()
    expected = torch.where(mask, 0.6, 1.0)[..., None].expand_as(vectors)
    assert torch.allclose(vectors.grad, expected)


def test_the_defaults_are_those_of_l_detok_and_discrete_spaces_are_refused(registry):
    config = InterpolateConfig()
    assert (config.beta, config.alpha, config.tau, config.gamma, config.strength) == (1, 1, 1, 3, "uniform")
    perturbation = registry.build("perturbation", {"use": "interpolate"})
    perturbation.check(LatentSpace(kind="continuous", num_tokens=1, width=2), 1)
    with pytest.raises(RobustokError, match="has codes"):
        perturbation.check(LatentSpace(kind="discrete", num_tokens=4, width=2, codebook_size=8))
