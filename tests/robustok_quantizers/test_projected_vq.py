"""A frozen table behind a learned linear layer."""

from __future__ import annotations

import torch
from torch import Tensor

from robustok_core.recipe.registry import load_registry


def make():
    torch.manual_seed(0)
    return load_registry().build(
        "quantizer", {"use": "projected_vq", "codebook_size": 16, "width": 3, "table_width": 6}
    )


def tokens() -> Tensor:
    return torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))


def test_codewords_are_a_linear_map_of_the_table_and_the_nearest_is_chosen():
    quantizer, z = make().eval(), tokens()
    codewords = quantizer.table @ quantizer.projection.weight.T + quantizer.projection.bias
    torch.testing.assert_close(quantizer.codebook, codewords)
    latents = quantizer.quantize(z)
    assert torch.equal(latents.codes, torch.cdist(z, codewords).argmin(-1))


def test_all_codewords_move_together_and_the_table_stays():
    quantizer, z = make().train(), tokens().requires_grad_()
    assert "table" not in dict(quantizer.named_parameters())
    before, table = quantizer.codebook.detach().clone(), quantizer.table.clone()
    quantizer.quantize(z).losses["codebook"].backward()
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter -= 0.1 * parameter.grad
    assert torch.equal(quantizer.table, table)
    assert ((quantizer.codebook - before).abs().sum(1) > 0).all()


def test_the_losses_have_their_published_weights():
    quantizer, z = make().train(), tokens()
    latents = quantizer.quantize(z)
    error = (quantizer.codebook[latents.codes] - z).square().mean()
    torch.testing.assert_close(latents.losses["commitment"], error)
    torch.testing.assert_close(latents.losses["codebook"], 0.33 * error)
