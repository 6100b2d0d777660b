"""The learned codebook: nearest codewords, gradients, usage, averages and restarts."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from robustok_core.values.draws import Draws
from robustok_quantizers.vq import VQ, VQConfig

DRAWS = Draws.for_rows(3, 1)


def make(**options: object) -> VQ:
    torch.manual_seed(0)
    return VQ(VQConfig(**{"codebook_size": 16, "width": 4, **options})).train()


def vectors(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def codebook_state(quantizer: VQ) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in quantizer.state_dict().items()}


@pytest.mark.parametrize("l2_normalise", [True, False])
def test_every_code_is_the_nearest_of_all_codewords(l2_normalise):
    quantizer = make(l2_normalise=l2_normalise).eval()
    z = vectors(3, 5, 4) * 0.05
    latents = quantizer.quantize(z)
    compared = F.normalize(z, dim=-1) if l2_normalise else z
    expected = torch.cdist(compared.double(), quantizer.codebook.double()).argmin(-1)
    assert torch.equal(latents.codes, expected)
    assert latents.codes.dtype == torch.int64
    assert torch.equal(latents.vectors, quantizer.lookup(latents.codes))
    assert latents.features is z


def test_searching_in_chunks_gives_the_same_codes(monkeypatch):
    quantizer = make().eval()
    z = vectors(4, 9, 4)
    whole = quantizer.quantize(z).codes
    monkeypatch.setattr("robustok_core.kinds.nearest._SCORES_AT_ONCE", 16 * 5)
    assert torch.equal(quantizer.quantize(z).codes, whole)
    assert torch.equal(quantizer.nearest(z.reshape(-1, 4), 3)[:, 0], whole.flatten())


def test_codewords_start_on_the_unit_sphere():
    assert torch.allclose(make().embedding.norm(dim=1), torch.ones(16))
    assert make(l2_normalise=False).embedding.abs().max() <= 1 / 16


def test_the_losses_are_the_two_weighted_distances():
    quantizer = make(commitment=0.5, codebook_weight=2.0)
    z = vectors(2, 3, 4)
    latents = quantizer.quantize(z)
    distance = (F.normalize(z, dim=-1) - latents.vectors).square().mean()
    assert latents.losses["commitment"].item() == pytest.approx(0.5 * distance.item())
    assert latents.losses["codebook"].item() == pytest.approx(2.0 * distance.item())


def test_the_commitment_moves_only_vectors_and_the_codebook_term_only_codewords():
    quantizer = make()
    z = vectors(2, 3, 4).requires_grad_()
    losses = quantizer.quantize(z).losses
    assert (
        torch.autograd.grad(losses["commitment"], quantizer.embedding, allow_unused=True, retain_graph=True)[0] is None
    )
    assert torch.autograd.grad(losses["codebook"], z, allow_unused=True, retain_graph=True)[0] is None
    assert torch.autograd.grad(losses["codebook"], quantizer.embedding)[0].abs().sum() > 0
    assert torch.autograd.grad(losses["commitment"], z)[0].abs().sum() > 0


def test_the_gradient_passes_straight_through_to_the_normalised_vector():
    quantizer = make()
    z = vectors(2, 3, 4).requires_grad_()
    weights = vectors(2, 3, 4, seed=2)
    (actual,) = torch.autograd.grad((quantizer.quantize(z).vectors * weights).sum(), z)
    (expected,) = torch.autograd.grad((F.normalize(z, dim=-1) * weights).sum(), z)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_evaluation_has_no_losses_and_changes_nothing(update):
    quantizer = make(codebook_update=update, restart_threshold=0.9, restart_after=1).eval()
    before = codebook_state(quantizer)
    assert quantizer.quantize(vectors(2, 3, 4)).losses == {}
    quantizer.after_step(DRAWS)
    assert all(torch.equal(before[name], value) for name, value in quantizer.state_dict().items())


def test_distances_are_in_float32_under_autocast():
    quantizer = make(codebook_size=512).eval()
    z = vectors(2, 64, 4)
    expected = quantizer.quantize(z).codes
    with torch.autocast("cpu", dtype=torch.bfloat16):
        latents = quantizer.quantize(z)
        assert torch.equal(quantizer.nearest(z.reshape(-1, 4), 2)[:, 0], expected.flatten())
    assert torch.equal(latents.codes, expected)
    assert latents.vectors.dtype == torch.float32


def test_usage_is_the_first_step_then_a_moving_average():
    quantizer = make()
    first, second = vectors(1, 40, 4), vectors(1, 40, 4, seed=2)
    share = [quantizer.quantize(z).codes.flatten().bincount(minlength=16) / 40 for z in (first,)]
    quantizer.after_step(DRAWS)
    assert torch.allclose(quantizer.usage, share[0])
    share.append(quantizer.quantize(second).codes.flatten().bincount(minlength=16) / 40)
    quantizer.after_step(DRAWS)
    assert torch.allclose(quantizer.usage, 0.9 * share[0] + 0.1 * share[1])
    assert quantizer.usage.sum().item() == pytest.approx(1.0)


def test_averages_move_hit_codewords_to_their_vectors_and_leave_the_others():
    quantizer = make(codebook_update="ema", ema_decay=0.5, l2_normalise=False)
    assert not list(quantizer.parameters())
    z = vectors(1, 6, 4)
    before = quantizer.embedding.clone()
    codes = quantizer.quantize(z).codes[0]
    quantizer.after_step(DRAWS)
    for code in range(16):
        served = z[0][codes == code]
        size, total = 0.5 + 0.5 * len(served), 0.5 * before[code] + 0.5 * served.sum(0)
        expected = total / size if len(served) else before[code]
        assert torch.allclose(quantizer.embedding[code], expected, atol=1e-6)
    assert torch.equal(
        quantizer.embedding[codes.bincount(minlength=16) == 0], before[codes.bincount(minlength=16) == 0]
    )


@pytest.mark.parametrize("update", ["gradient", "ema"])
@pytest.mark.parametrize("cuts", [(24,), (12, 12), (8, 8, 8)])
def test_micro_batches_give_the_codebook_of_the_whole_batch(update, cuts):
    options = {"codebook_update": update, "restart_threshold": 0.5, "restart_after": 1}
    whole, cut = make(**options), make(**options)
    for step in range(3):
        z = vectors(24, 5, 4, seed=step)
        whole.quantize(z)
        for part in z.split(cuts):
            cut.quantize(part)
        whole.after_step(DRAWS.child(step))
        cut.after_step(DRAWS.child(step))
        assert all(torch.equal(value, cut.state_dict()[name]) for name, value in whole.state_dict().items())


@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_dead_codes_restart_at_vectors_of_the_step(update):
    quantizer = make(codebook_update=update, restart_threshold=0.5, restart_after=2)
    z = vectors(8, 5, 4)
    z[..., 0] = 5.0  # all vectors on one side of the sphere: codewords on the other side are dead
    used = quantizer.quantize(z).codes.flatten().bincount(minlength=16)
    dead = used / 40 < 0.5 / 16
    assert 0 < dead.sum() < 16
    before = quantizer.embedding.detach().clone()
    quantizer.after_step(DRAWS)
    if update == "gradient":
        assert torch.equal(quantizer.embedding, before), "restart_after = 2: no restart at the first step"
    before = quantizer.embedding.detach().clone()
    quantizer.quantize(z)
    quantizer.after_step(DRAWS)
    rows = F.normalize(z.reshape(-1, 4), dim=-1)
    restarted = quantizer.embedding[dead].detach()
    assert all((row == rows).all(dim=1).any() for row in restarted)
    assert len(restarted.unique(dim=0)) == len(restarted), "each at a different vector"
    assert torch.allclose(quantizer.usage[dead], torch.tensor(1 / 16))
    if update == "gradient":
        assert torch.equal(quantizer.embedding[~dead], before[~dead])


def test_the_draws_decide_where_dead_codes_restart():
    def restarted(seed: int) -> torch.Tensor:
        quantizer = make(restart_threshold=0.9, restart_after=1)
        quantizer.quantize(vectors(8, 5, 4))
        quantizer.after_step(Draws.for_rows(seed, 1))
        return quantizer.embedding.detach()

    assert torch.equal(restarted(1), restarted(1))
    assert not torch.equal(restarted(1), restarted(2))


@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_training_resumes_bit_identically_from_a_saved_state(update):
    options = {"codebook_update": update, "restart_threshold": 0.5, "restart_after": 3}
    straight = make(**options)
    for step in range(2):
        straight.quantize(vectors(8, 5, 4, seed=step))
        straight.after_step(DRAWS.child(step))
    resumed = make(**options)
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    for step in range(2, 5):
        for quantizer in (straight, resumed):
            quantizer.quantize(vectors(8, 5, 4, seed=step))
            quantizer.after_step(DRAWS.child(step))
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in straight.state_dict().items())


def test_with_more_dead_codes_than_vectors_each_vector_restarts_one():
    quantizer = make(codebook_size=64, restart_threshold=0.9, restart_after=1)
    before = quantizer.embedding.detach().clone()
    quantizer.quantize(vectors(1, 3, 4))
    quantizer.after_step(DRAWS)
    assert (quantizer.embedding != before).any(dim=1).sum() == 3
