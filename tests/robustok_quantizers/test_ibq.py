"""Index backpropagation quantization: choice by dot product, and a gradient to every codeword."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robustok_core.recipe.registry import load_registry

K, D = 16, 4


def make(**options: float):
    torch.manual_seed(0)
    table = {"use": "ibq", "codebook_size": K, "width": D, **options}
    return load_registry().build("quantizer", table)


def tokens() -> Tensor:
    return torch.randn(2, 5, D, generator=torch.Generator().manual_seed(1))


def test_a_code_is_the_codeword_with_the_largest_dot_product():
    quantizer, z = make().eval(), tokens()
    with torch.no_grad():
        latents = quantizer.quantize(z)
        assert torch.equal(latents.codes, (z @ quantizer.embedding.T).argmax(-1))
        assert torch.equal(latents.vectors, quantizer.embedding[latents.codes])
    distances = torch.cdist(z.flatten(0, 1), quantizer.embedding)
    assert not torch.equal(latents.codes.flatten(), distances.argmin(1)), "which is not always the nearest"


def test_neighbours_are_in_the_order_of_the_dot_product():
    quantizer, z = make(), tokens().flatten(0, 1)
    expected = (z @ quantizer.embedding.T).argsort(dim=1, descending=True)
    assert torch.equal(quantizer.nearest(z, K), expected)


def test_values_and_gradients_are_those_of_a_straight_through_choice():
    quantizer, z = make().train(), tokens().requires_grad_()
    latents = quantizer.quantize(z)
    weights = torch.randn(latents.vectors.shape)
    (latents.vectors * weights).sum().backward()
    table, again = quantizer.embedding.detach().clone().requires_grad_(), tokens().requires_grad_()
    soft = (again @ table.T).softmax(-1)
    hard = F.one_hot(soft.argmax(-1), K).float()
    chosen = hard - soft.detach() + soft
    ((chosen @ table) * weights).sum().backward()
    torch.testing.assert_close(latents.vectors, chosen @ table)
    torch.testing.assert_close(z.grad, again.grad)
    torch.testing.assert_close(quantizer.embedding.grad, table.grad)
    assert (quantizer.embedding.grad.abs().sum(1) > 0).all(), "every codeword gets a gradient"


def test_the_losses_have_their_published_weights():
    quantizer, z = make().train(), tokens()
    latents = quantizer.quantize(z)
    error = (quantizer.embedding[latents.codes] - z).square().mean()
    losses = latents.losses
    torch.testing.assert_close(losses["joint"], error)
    torch.testing.assert_close(losses["commitment"], error)
    torch.testing.assert_close(losses["codebook"], 0.25 * error)
    shares = ((z.flatten(0, 1) @ quantizer.embedding.T) / 0.01).softmax(1)
    each, usage = torch.special.entr(shares).sum(1).mean(), torch.special.entr(shares.mean(0)).sum()
    torch.testing.assert_close(losses["entropy"], 0.05 * (each - usage))


def test_evaluation_without_gradients_takes_no_memory_for_the_softmax(monkeypatch):
    quantizer = make().eval()
    monkeypatch.setattr(Tensor, "softmax", None)
    with torch.no_grad():
        assert quantizer.quantize(tokens()).codes.shape == (2, 5)
