"""Noise on vectors: z + s eps, with exactly the configured images, tokens and strengths."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from robustok_core import Draws, Latents, LatentSpace, ProblemsError, RobustokError
from robustok_perturbations.gaussian import Gaussian, GaussianConfig
from robustok_perturbations.selection import Anneal

SPACE = LatentSpace(kind="continuous", num_tokens=16, width=4)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents_of(images: int = 6, tokens: int = 16, width: int = 4, seed: int = 0) -> Latents:
    return Latents(vectors=torch.randn(images, tokens, width, generator=rng(seed)))


def perturb(latents: Latents, seed: int = 0, progress: float = 0.0, draws: Draws | None = None, **options: object):
    draws = draws or Draws.for_rows(seed, len(latents))
    return Gaussian(GaussianConfig(**options)).perturb(latents, None, draws=draws, progress=progress)


def noise_of(latents: Latents, **options: object) -> Tensor:
    return perturb(latents, **options)[0].vectors - latents.vectors


# --- how strong -----------------------------------------------------------------------------------


def test_fixed_noise_is_normal_with_standard_deviation_tau():
    noise = noise_of(latents_of(40, 64, 16), strength="fixed", tau=0.5)
    count = noise.numel()
    assert noise.mean().item() == pytest.approx(0, abs=4 * 0.5 / math.sqrt(count))
    assert noise.std().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(2 * count))
    kurtosis = (noise / noise.std()).pow(4).mean().item()
    assert kurtosis == pytest.approx(3, abs=4 * math.sqrt(24 / count))


def test_the_strength_of_an_image_is_uniform_up_to_tau():
    noise = noise_of(latents_of(500, 64, 16), tau=0.8)
    strengths = noise.flatten(1).std(dim=1).sort().values  # each known to 1 / sqrt(2 * 1024), 2 %
    uniform = (torch.arange(500) + 0.5) / 500 * 0.8
    assert (strengths - uniform).abs().max() < 0.8 * 1.63 / math.sqrt(500) + 0.02  # Kolmogorov, p = 0.01
    assert strengths[-1] < 0.8 * 1.1


def test_relative_noise_scales_with_each_channels_deviation_over_the_tokens_of_the_image():
    scales = torch.tensor([0.1, 1.0, 10.0, 0.0])
    latents = Latents(vectors=latents_of(3, 4000, 4).vectors * scales * torch.tensor([1.0, 2.0, 5.0])[:, None, None])
    noise = noise_of(latents, strength="fixed", tau=0.5, scale="relative")
    expected = 0.5 * scales * torch.tensor([1.0, 2.0, 5.0])[:, None]
    assert torch.allclose(noise.std(dim=1), expected, rtol=0.06)
    assert not noise[..., 3].any(), "a constant channel gets no noise"


def test_relative_noise_grows_with_the_latents_and_absolute_noise_does_not():
    latents = latents_of()
    large = Latents(vectors=latents.vectors * 8)  # a power of two: exact
    assert torch.allclose(noise_of(large, scale="relative"), 8 * noise_of(latents, scale="relative"), atol=1e-5)
    assert torch.allclose(noise_of(large), noise_of(latents), atol=1e-5)


# --- which images and tokens ----------------------------------------------------------------------


@given(beta=st.sampled_from([0.2, 0.5, 1.0]), alpha=st.sampled_from([0.25, 0.5, 1.0]), seed=st.integers(0, 2**32))
def test_exactly_the_configured_images_and_tokens_are_perturbed(beta, alpha, seed):
    latents = latents_of(10)
    perturbed, mask = perturb(latents, seed, beta=beta, alpha=alpha, strength="fixed")
    assert mask.any(dim=1).sum() == round(10 * beta)
    assert set(mask.sum(dim=1).tolist()) <= {0, round(16 * alpha)}
    changed = (perturbed.vectors != latents.vectors).any(dim=2)
    assert torch.equal(changed, mask)


@pytest.mark.parametrize("off", [{"beta": 0.0}, {"alpha": 0.0}, {"tau": 0.0}])
def test_zero_turns_it_off(off):
    latents = latents_of()
    perturbed, mask = perturb(latents, **off)
    assert perturbed is latents
    assert not mask.any()


@given(cuts=st.lists(st.integers(0, 12), max_size=4).map(sorted), scale=st.sampled_from(["absolute", "relative"]))
def test_several_processes_together_perturb_as_one(cuts, scale):
    latents, draws = latents_of(12), Draws.for_rows(5, 12)
    options = {"beta": 0.4, "alpha": 0.6, "scale": scale}
    whole, mask = perturb(latents, draws=draws, **options)
    parts = [slice(first, last) for first, last in zip([0, *cuts], [*cuts, 12], strict=True)]
    cut = [perturb(latents[part], draws=draws[part], **options) for part in parts]
    assert torch.equal(torch.cat([part.vectors for part, _ in cut]), whole.vectors)
    assert torch.equal(torch.cat([part_mask for _, part_mask in cut]), mask)


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["absolute", "relative"])
def test_the_gradient_reaches_the_clean_vectors_unchanged(scale):
    vectors = latents_of().vectors.requires_grad_()
    perturbed, _ = perturb(Latents(vectors=vectors), beta=0.5, scale=scale)
    weights = torch.randn(vectors.shape, generator=rng(1))
    (perturbed.vectors * weights).sum().backward()
    assert torch.equal(vectors.grad, weights)


def test_vectors_keep_their_precision_and_the_clean_ones_are_not_modified():
    latents = Latents(vectors=latents_of().vectors.bfloat16())
    before = latents.vectors.clone()
    perturbed, _ = perturb(latents)
    assert perturbed.vectors.dtype == torch.bfloat16
    assert torch.equal(latents.vectors, before)


def test_alpha_and_tau_fall_with_the_annealing():
    perturbation = Gaussian(GaussianConfig(alpha=0.8, tau=0.4, anneal=Anneal(start=0.2, end=0.6, ratio=0.5)))
    assert [perturbation.strengths(progress) for progress in (0.0, 0.4, 1.0)] == [
        (0.8, 0.4),
        (pytest.approx(0.6), pytest.approx(0.3)),
        (0.4, 0.2),
    ]
    noise = noise_of(latents_of(40, 64, 16), strength="fixed", tau=0.5, anneal=Anneal(ratio=0.5), progress=1.0)
    assert (noise != 0).float().mean().item() == 0.5
    assert noise[noise != 0].std().item() == pytest.approx(0.25, rel=0.02)


# --- what fits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "space", "batch", "where", "message"),
    [
        ({}, LatentSpace(kind="discrete", num_tokens=4, width=2, codebook_size=8), None, "use", "has codes"),
        ({"alpha": 0.01}, SPACE, None, "alpha", "is less than one token"),
        ({"alpha": 0.1, "anneal": Anneal(ratio=0.25)}, SPACE, None, "anneal", "falls to 0.025 in the training"),
        ({"beta": 0.1}, SPACE, 4, "beta", "is less than one image"),
        (
            {"scale": "relative"},
            LatentSpace(kind="continuous", num_tokens=1, width=2),
            None,
            "scale",
            "more than one token",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options, space, batch, where, message):
    with pytest.raises(RobustokError, match=message) as raised:
        Gaussian(GaussianConfig(**options)).check(space, batch)
    assert raised.value.where == f"perturbation.{where}"


def test_what_fits_passes_and_the_defaults_are_those_of_rae():
    config = GaussianConfig()
    Gaussian(config).check(SPACE, 4)
    assert (config.beta, config.alpha, config.tau, config.strength, config.scale) == (1, 1, 0.8, "uniform", "absolute")


def test_codes_are_refused():
    with pytest.raises(ValueError, match="continuous space"):
        perturb(Latents(vectors=torch.ones(2, 3, 4), codes=torch.ones(2, 3, dtype=torch.int64)))


def test_a_recipes_table_builds_it_and_reports_every_mistake(registry):
    built = registry.build("perturbation", {"use": "gaussian", "tau": 0.5, "anneal": {"ratio": 0.0}})
    assert built.strengths(1.0) == (0.0, 0.0)
    with pytest.raises(ProblemsError) as raised:
        registry.build("perturbation", {"use": "gaussian", "tau": -1.0, "scale": "large", "beta": 2.0})
    for key in ("perturbation.tau", "perturbation.scale", "perturbation.beta"):
        assert key in str(raised.value)
