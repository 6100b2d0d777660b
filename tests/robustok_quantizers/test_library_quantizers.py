"""Quantizers on top of vector-quantize-pytorch: the codes of each method, and what we change in the library."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from robustok_core.errors import ProblemsError, RobustokError
from robustok_core.recipe.registry import load_registry


def make(name: str, **options: object):
    torch.manual_seed(0)
    return load_registry().build("quantizer", {"use": name, **options})


def vectors(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TINY = {
    "vq": {"codebook_size": 16, "width": 4},
    "fsq": {"levels": [5, 4, 3]},
    "lfq": {"width": 4},
    "sim_vq": {"codebook_size": 16, "width": 4},
    "projected_vq": {"codebook_size": 16, "width": 4, "table_width": 8},
    "ibq": {"codebook_size": 64, "width": 4},
}


@pytest.mark.parametrize("name", TINY)
def test_the_code_is_the_nearest_to_the_features(name):
    """Perturbation among the neighbours of the latent relies on it."""
    quantizer = make(name, **TINY[name]).eval()
    latents = quantizer.quantize(vectors(8, 16, quantizer.width))
    near = quantizer.nearest(latents.features.flatten(0, 1), 3)
    assert torch.equal(near[:, 0], latents.codes.flatten())
    assert len(latents.codes.unique()) > 8


def test_fsq_codewords_are_the_grid_of_the_levels():
    quantizer = make("fsq", levels=[5, 4, 3])
    grid = itertools.product([-1, 0, 1], [-1, -0.5, 0, 0.5], [-1, -0.5, 0, 0.5, 1])
    assert quantizer.codebook_size == 60
    assert sorted(map(tuple, quantizer.codebook.flip(1).tolist())) == sorted(grid)


def test_fsq_gradients_are_those_of_the_bounded_vector():
    quantizer = make("fsq", levels=[5, 5]).train()
    z = vectors(2, 3, 2).requires_grad_()
    latents = quantizer.quantize(z)
    (actual,) = torch.autograd.grad(latents.vectors.sum(), z, retain_graph=True)
    (expected,) = torch.autograd.grad(latents.features.sum(), z)
    torch.testing.assert_close(actual, expected)
    assert latents.losses == {}


@pytest.mark.parametrize("spherical", [False, True])
def test_lfq_codes_are_the_signs(spherical):
    quantizer = make("lfq", width=5, spherical=spherical).eval()
    z = vectors(3, 7, 5)
    latents = quantizer.quantize(z)
    side = 1 / math.sqrt(5) if spherical else 1.0
    torch.testing.assert_close(latents.vectors, torch.where(z > 0, side, -side))
    assert latents.codes.flatten().tolist() == [
        int("".join("1" if number > 0 else "0" for number in row), 2) for row in z.flatten(0, 1).tolist()
    ]


def test_the_first_number_may_be_the_lowest_bit_of_an_lfq_code():
    """As in Open-MAGVIT2."""
    quantizer, z = make("lfq", width=5, lowest_bit_first=True).eval(), vectors(3, 7, 5)
    latents = quantizer.quantize(z)
    assert torch.equal(latents.codes, ((z > 0) * 2 ** torch.arange(5)).sum(-1))
    assert torch.equal(latents.vectors, torch.where(z > 0, 1.0, -1.0))
    assert torch.equal(quantizer.codebook[latents.codes], latents.vectors)


@pytest.mark.parametrize("spherical", [False, True])
def test_lfq_losses_are_the_librarys_on_one_process(spherical):
    from vector_quantize_pytorch import LFQ

    options = {"entropy_weight": 0.3, "diversity": 0.7, "commitment": 0.5, "inverse_temperature": 2.0}
    quantizer = make("lfq", width=4, spherical=spherical, **options).train()
    library = LFQ(
        dim=4, spherical=spherical, entropy_loss_weight=0.3, diversity_gamma=0.7, commitment_loss_weight=0.5
    ).train()
    z = vectors(4, 8, 4).requires_grad_()
    ours = sum(quantizer.quantize(z).losses.values())
    theirs = library(z, inv_temperature=2.0).entropy_aux_loss
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.autograd.grad(ours, z)[0], torch.autograd.grad(theirs, z)[0], atol=1e-5, rtol=1e-3)


def test_lfq_gradients_stay_finite_where_soft_codes_are_hard():
    quantizer = make("lfq", width=8).train()
    z = (3 * vectors(2, 8, 8)).requires_grad_()
    quantizer.quantize(z).losses["entropy"].backward()
    assert z.grad.isfinite().all()


def test_sim_vq_moves_all_codewords_through_one_layer():
    quantizer = make("sim_vq", codebook_size=16, width=4).train()
    assert [tuple(parameter.shape) for parameter in quantizer.parameters()] == [(4, 4)]
    z = vectors(2, 3, 4)
    latents = quantizer.quantize(z)
    assert torch.equal(latents.codes, torch.cdist(z, quantizer.codebook).argmin(-1))
    distance = (z - latents.vectors).square().mean().item()
    assert latents.losses["codebook_and_commitment"].item() == pytest.approx(1.25 * distance)
    before = quantizer.codebook.detach()
    latents.losses["codebook_and_commitment"].backward()
    torch.optim.SGD(quantizer.parameters(), lr=0.1).step()
    assert (quantizer.codebook != before).all(dim=1).all(), "codes without a hit move too"


def test_residual_codes_are_digits_and_each_level_quantizes_the_residual():
    quantizer = make("residual_vq", num_levels=3, level_size=4, width=5).eval()
    z = vectors(2, 6, 5)
    latents = quantizer.quantize(z)
    left, expected = z, torch.zeros(2, 6, dtype=torch.int64)
    for level, codewords in enumerate(quantizer.library.codebooks):
        digit = torch.cdist(left, codewords).argmin(-1)
        left = left - codewords[digit]
        expected = expected + digit * 4**level
    assert torch.equal(latents.codes, expected)
    torch.testing.assert_close(latents.vectors, z - left)
    assert quantizer.codebook.shape == (64, 5)
    assert torch.equal(quantizer.codebook[latents.codes], latents.vectors)


def test_residual_gradients_pass_straight_through_once():
    quantizer = make("residual_vq", num_levels=3, level_size=4, width=5).train()
    z = vectors(2, 6, 5).requires_grad_()
    quantizer.quantize(z).vectors.sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z)), "the library's sum over levels would give 3"


def test_residual_losses_train_the_codewords_of_every_level():
    quantizer = make("residual_vq", num_levels=2, level_size=4, width=5).train()
    z = vectors(2, 6, 5).requires_grad_()
    losses = quantizer.quantize(z).losses
    losses["codebook_and_commitment"].backward()
    assert len(list(quantizer.parameters())) == 2
    assert all(parameter.grad.abs().sum() > 0 for parameter in quantizer.parameters())
    assert z.grad.abs().sum() > 0


def test_a_residual_codebook_that_is_too_large_is_not_listed():
    quantizer = make("residual_vq", num_levels=5, level_size=16, width=4).eval()
    latents = quantizer.quantize(vectors(2, 6, 4))
    assert quantizer.codebook_size == 16**5
    assert torch.equal(quantizer.lookup(latents.codes), latents.vectors)
    with pytest.raises(RobustokError, match="1048576 codewords"):
        _ = quantizer.codebook


@pytest.mark.parametrize("count", [1, 40])
def test_the_neighbours_in_a_large_residual_codebook_are_those_of_the_whole(monkeypatch, count):
    quantizer = make("residual_vq", num_levels=3, level_size=7, width=3).eval()
    with torch.no_grad():
        for parameter in quantizer.parameters():  # whole numbers: of many equal distances the lower code comes first
            parameter.mul_(4).round_()
        z = vectors(5, 3).mul(4).round()
        whole = quantizer.nearest(z, count)
        monkeypatch.setattr("robustok_quantizers.residual_vq._LARGEST_LISTED", 30)
        assert torch.equal(quantizer.nearest(z, count), whole)


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("fsq", {"levels": [8, 2]}, "levels"),
        ("lfq", {"width": 30}, "width"),
        ("residual_vq", {"num_levels": 9, "level_size": 1024}, "more codes than fit in 62 bits"),
        ("vq", {"codebook_update": "magic"}, "codebook_update"),
    ],
)
def test_options_out_of_range_are_refused(name, options, complaint):
    with pytest.raises(ProblemsError, match=complaint):
        make(name, **options)


@pytest.mark.parametrize("name", [*TINY, "residual_vq"])
def test_quantizing_does_not_use_global_random_state(name):
    quantizer = make(name, **TINY.get(name, {})).train()
    before = torch.get_rng_state()
    quantizer.quantize(vectors(2, 5, quantizer.width))
    assert torch.equal(torch.get_rng_state(), before)


def test_lfq_keeps_the_library_in_eval_mode():
    quantizer = make("lfq", width=3).train()
    assert quantizer.training
    assert not quantizer.library.training
    assert F.mse_loss(quantizer.codebook[-1], torch.ones(3)) == 0
