"""The method's parameters are exact: beta of the images, alpha of the tokens, the delta nearest codewords."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from codebooks import Fixed, a_codebook, a_grid, distances, half_up, latents_of, perturb, rng
from robustok_core import Draws, Latents, RobustokError
from robustok_core.values import devices
from robustok_perturbations.top_delta import nearest_codes

SHARES = st.integers(1, 100).map(lambda percent: percent / 100)
SEEDS = st.integers(0, 2**32)


# --- beta: which images ---------------------------------------------------------------------------


@given(beta=SHARES, total=st.integers(1, 60), seed=SEEDS)
@example(beta=0.1, total=5, seed=0)  # half an image: one
@example(beta=0.1, total=25, seed=0)  # 2.5: three, where Python's round takes two
@example(beta=0.29, total=50, seed=0)  # 14.5, in floats 14.499999999999998: 15
def test_exactly_the_rounded_share_of_images_is_perturbed(beta, total, seed):
    quantizer, count = a_grid(), half_up(beta, total)
    latents, draws = latents_of(quantizer, total, 4), Draws.for_rows(seed, total)
    if count == 0:
        with pytest.raises(RobustokError, match="is less than one image"):
            perturb(latents, quantizer, draws, beta=beta, delta=3)
    else:
        _, mask = perturb(latents, quantizer, draws, beta=beta, delta=3)
        assert mask.any(dim=1).sum() == count


def test_all_images_are_perturbed_equally_often():
    quantizer = a_grid()
    latents = latents_of(quantizer, 8, 1)
    hits = torch.zeros(8)
    for seed in range(1000):
        hits += perturb(latents, quantizer, Draws.for_rows(seed, 8), beta=0.25, delta=3)[1].any(dim=1)
    # Two of eight without replacement: the variance is 1000 * 1/4 * 3/4, and the counts sum to 2000.
    assert (hits - 250).square().sum() / (1000 * 0.25 * 0.75) * 7 / 8 < 24.3  # chi-square, 7 df, p = 0.001


def test_the_first_images_are_counted_as_the_released_code_counts_them():
    quantizer = a_grid()
    _, mask = perturb(latents_of(quantizer, 28, 2), quantizer, Draws.for_rows(0, 28), beta=0.1, delta=3, images="first")
    assert mask.any(dim=1).nonzero()[:, 0].tolist() == [0, 1]  # 2.8 images, rounded down


def test_the_error_suggests_a_share_that_works():
    quantizer = a_grid()
    with pytest.raises(RobustokError, match=r"beta = 0.1 of a batch of 4 .*at least 0.25") as raised:
        perturb(latents_of(quantizer, 4, 2), quantizer, Draws.for_rows(0, 4), beta=0.1)
    assert raised.value.exit_code == 2


# --- alpha: which tokens --------------------------------------------------------------------------


@given(alpha=SHARES, tokens=st.integers(1, 40), seed=SEEDS)
@example(alpha=0.1, tokens=25, seed=0)
def test_exactly_the_rounded_share_of_tokens_is_replaced_in_each_perturbed_image(alpha, tokens, seed):
    quantizer = a_grid()
    _, mask = perturb(
        latents_of(quantizer, 6, tokens), quantizer, Draws.for_rows(seed, 6), beta=0.5, alpha=alpha, delta=3
    )
    replaced = mask.sum(dim=1)
    expected = half_up(alpha, tokens)
    assert sorted(replaced.tolist()) == [0, 0, 0, expected, expected, expected]


def test_all_tokens_are_replaced_equally_often():
    quantizer = a_grid()
    _, mask = perturb(latents_of(quantizer, 2000, 10), quantizer, Draws.for_rows(5, 2000), beta=1, alpha=0.3, delta=3)
    hits = mask.sum(dim=0)
    assert (hits - 600).square().sum() / (2000 * 0.3 * 0.7) * 9 / 10 < 27.9  # chi-square, 9 df, p = 0.001


def test_bernoulli_tokens_are_replaced_with_probability_alpha_each():
    quantizer = a_grid()
    _, mask = perturb(
        latents_of(quantizer, 500, 20),
        quantizer,
        Draws.for_rows(2, 500),
        beta=1,
        alpha=0.3,
        delta=3,
        tokens="bernoulli",
    )
    replaced = mask.sum(dim=1).float()
    assert abs(replaced.mean() - 6.0) < 4 * math.sqrt(20 * 0.3 * 0.7 / 500)
    assert abs(replaced.var() - 4.2) < 4 * 4.2 * math.sqrt(2 / 500)


# --- delta: which codes ---------------------------------------------------------------------------


@given(delta=st.integers(1, 40), alpha=SHARES, seed=SEEDS)
def test_every_replaced_code_is_among_the_nearest_of_its_codeword(delta, alpha, seed):
    quantizer = a_codebook(seed=seed % 7)
    latents = latents_of(quantizer, 5, 12, seed % 11)
    perturbed, mask = perturb(latents, quantizer, Draws.for_rows(seed, 5), beta=0.6, alpha=alpha, delta=delta)
    away = distances(quantizer.codebook, latents.codes)  # (B, N, K)
    border = away.kthvalue(delta, dim=-1).values
    drawn = away.gather(-1, perturbed.codes[..., None])[..., 0]
    assert (drawn <= border + 1e-5)[mask].all()


@given(delta=st.integers(1, 32), seed=SEEDS)
def test_of_codewords_at_the_same_distance_the_lower_codes_count_as_nearer(delta, seed):
    quantizer = a_grid(seed % 5)
    codes = torch.arange(32)
    near = nearest_codes(codes, quantizer, delta)
    expected = distances(quantizer.codebook, codes).sort(dim=1, stable=True).indices[:, :delta]
    own_is_there = (expected == codes[:, None]).any(dim=1)
    assert torch.equal(near[own_is_there], expected[own_is_there])


@given(neighbours=st.sampled_from(["codeword", "latent"]), seed=SEEDS)
def test_latent_neighbours_are_those_of_the_encoders_vector(neighbours, seed):
    quantizer = a_codebook()
    latents = latents_of(quantizer, 4, 30)
    perturbed, mask = perturb(latents, quantizer, Draws.for_rows(seed, 4), beta=1, delta=3, neighbours=neighbours)
    center = latents.features if neighbours == "latent" else latents.vectors
    nearest = torch.cdist(center, quantizer.codebook).topk(3, largest=False).indices
    assert mask.all()
    assert (perturbed.codes[..., None] == nearest).any(dim=-1).all()


def test_the_draw_is_uniform_over_the_delta_nearest():
    quantizer, delta = a_codebook(size=20), 6
    codes = torch.full((200, 50), 7)
    latents = Latents(vectors=quantizer.lookup(codes).detach(), codes=codes)
    perturbed, mask = perturb(latents, quantizer, Draws.for_rows(1, 200), beta=1, delta=delta)
    drawn, counts = perturbed.codes.unique(return_counts=True)
    assert mask.all()
    assert set(drawn.tolist()) == set(nearest_codes(torch.tensor([7]), quantizer, delta)[0].tolist())
    expected = codes.numel() / delta
    assert (counts - expected).square().sum() / expected < 20.5  # chi-square, 5 df, p = 0.001


@given(seed=SEEDS)
def test_a_tokens_own_codeword_is_among_the_nearest_even_if_codewords_coincide(seed):
    quantizer = Fixed(torch.zeros(9, 2))
    codes = torch.arange(9)
    for delta in (1, 4):
        near = nearest_codes(codes, quantizer, delta)
        assert (near == codes[:, None]).any(dim=1).all()
        assert all(len(set(row)) == delta for row in near.tolist())
    latents = latents_of(quantizer, 3, 5)
    perturbed, mask = perturb(latents, quantizer, Draws.for_rows(seed, 3), beta=1, delta=1)
    assert mask.all()
    assert torch.equal(perturbed.codes, latents.codes)


# --- vectors and gradients ------------------------------------------------------------------------


@given(beta=SHARES.filter(lambda share: share >= 0.1), alpha=SHARES, seed=SEEDS)
def test_tokens_that_are_not_replaced_stay_bit_identical(beta, alpha, seed):
    quantizer = a_codebook()
    latents = quantizer.quantize(torch.randn(6, 8, 3, generator=rng(seed % 13)))
    perturbed, mask = perturb(latents, quantizer, Draws.for_rows(seed, 6), beta=beta, alpha=alpha, delta=9)
    before, after = (item.vectors.detach().view(torch.int32) for item in (latents, perturbed))
    assert torch.equal(before[~mask], after[~mask])
    assert torch.equal(latents.codes[~mask], perturbed.codes[~mask])
    assert perturbed.features is latents.features


def test_replaced_vectors_are_exactly_the_codewords_of_their_codes():
    quantizer = a_codebook()
    latents = quantizer.quantize(torch.randn(6, 8, 3, generator=rng()))
    perturbed, mask = perturb(latents, quantizer, Draws.for_rows(0, 6), beta=0.5, delta=9)
    assert torch.equal(perturbed.vectors[mask], quantizer.lookup(perturbed.codes)[mask])
    assert not torch.equal(perturbed.vectors, latents.vectors)


def test_the_arguments_are_not_modified():
    quantizer = a_codebook()
    latents = latents_of(quantizer, 4, 6)
    before = latents.codes.clone(), latents.vectors.clone()
    perturb(latents, quantizer, Draws.for_rows(0, 4), beta=1, delta=9)
    assert torch.equal(latents.codes, before[0])
    assert torch.equal(latents.vectors, before[1])


def test_the_gradient_passes_straight_through_to_the_encoder_and_not_to_the_codebook():
    quantizer = a_codebook()
    z = torch.randn(4, 6, 3, generator=rng(1), requires_grad=True)
    weights = torch.randn(4, 6, 3, generator=rng(2))
    latents = quantizer.quantize(z)
    perturbed, mask = perturb(latents, quantizer, Draws.for_rows(0, 4), beta=0.5, alpha=0.5, delta=9)
    assert mask.sum() == 6
    (perturbed.vectors * weights).sum().backward()
    assert torch.equal(z.grad, weights)
    assert quantizer.codewords.grad is None


def test_vectors_keep_their_precision():
    quantizer = a_codebook()
    latents = latents_of(quantizer, 4, 6)
    half = latents.evolve(vectors=latents.vectors.bfloat16())
    perturbed, _ = perturb(half, quantizer, Draws.for_rows(0, 4), beta=1, delta=9)
    assert perturbed.vectors.dtype == torch.bfloat16


def test_codes_without_vectors_are_perturbed_the_same_way():
    quantizer = a_codebook()
    latents, draws = latents_of(quantizer, 4, 6), Draws.for_rows(0, 4)
    bare, _ = perturb(Latents(codes=latents.codes), quantizer, draws, beta=1, delta=9)
    whole, _ = perturb(latents, quantizer, draws, beta=1, delta=9)
    assert bare.vectors is None
    assert torch.equal(bare.codes, whole.codes)


# --- batches, processes and cost ------------------------------------------------------------------


@given(
    cuts=st.lists(st.integers(0, 12), max_size=4).map(sorted),
    make=st.sampled_from([a_grid, a_codebook]),
    neighbours=st.sampled_from(["codeword", "latent"]),
    images=st.sampled_from(["random", "first"]),
    tokens=st.sampled_from(["exact", "bernoulli"]),
    seed=SEEDS,
)
def test_several_processes_together_perturb_as_one(cuts, make, neighbours, images, tokens, seed):
    quantizer = make()
    latents, draws = latents_of(quantizer, 12, 9), Draws.for_rows(seed, 12)
    options = {"beta": 0.4, "alpha": 0.6, "delta": 5, "neighbours": neighbours, "images": images, "tokens": tokens}
    whole, mask = perturb(latents, quantizer, draws, **options)
    parts = [slice(first, last) for first, last in zip([0, *cuts], [*cuts, 12], strict=True)]
    cut = [perturb(latents[part], quantizer, draws[part], **options) for part in parts]
    assert torch.equal(torch.cat([part.codes for part, _ in cut]), whole.codes)
    assert torch.equal(torch.cat([part.vectors for part, _ in cut]), whole.vectors)
    assert torch.equal(torch.cat([part_mask for _, part_mask in cut]), mask)


def test_the_order_of_the_neighbours_does_not_matter():
    """It can depend on the last bit of a distance, which can depend on the batch size."""

    class Reversed(Fixed):
        def nearest(self, z: Tensor, count: int) -> Tensor:
            return super().nearest(z, count).flip(1)

    quantizer, draws = a_codebook(), Draws.for_rows(0, 8)
    latents = latents_of(quantizer, 8, 9)
    for neighbours in ("codeword", "latent"):
        options = {"beta": 1, "delta": 7, "neighbours": neighbours}
        expected, _ = perturb(latents, quantizer, draws, **options)
        perturbed, _ = perturb(latents, Reversed(quantizer.codebook.detach()), draws, **options)
        assert torch.equal(perturbed.codes, expected.codes)


def test_neighbours_are_searched_once_per_distinct_code_of_the_replaced_tokens():
    quantizer = a_codebook()
    latents = latents_of(quantizer, 20, 30)
    _, mask = perturb(latents, quantizer, Draws.for_rows(0, 20), beta=0.1, alpha=0.5, delta=5)
    assert mask.sum() == 30
    assert quantizer.asked == len(latents.codes[mask].unique()) < 30


# --- devices that work behind the program ---------------------------------------------------------


@pytest.mark.parametrize("tokens", [2, 40])  # fewer than the codewords, and more
def test_a_device_that_is_not_asked_for_distinct_codes_gives_the_same(monkeypatch, tokens):
    quantizer = a_codebook()
    latents, draws = latents_of(quantizer, 8, tokens), Draws.for_rows(3, 8)
    expected, mask = perturb(latents, quantizer, draws, beta=0.5, delta=3)
    monkeypatch.setattr(devices, "is_queued", lambda device: True)
    found, same = perturb(latents, quantizer, draws, beta=0.5, delta=3)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.vectors, expected.vectors)
    assert torch.equal(same, mask)
