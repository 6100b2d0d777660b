"""Parity with the paper's released perturbation; tests/parity/perturb_*.json describes the tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file

from robustok_core import Draws, Latents
from robustok_perturbations.top_delta import top_delta
from robustok_quantizers.vq import VQ, VQConfig

PARITY = Path(__file__).parents[1] / "parity"
RELEASED: dict[str, Any] = {"neighbours": "latent", "images": "first", "tokens": "bernoulli"}


class Case:
    def __init__(self, name: str) -> None:
        self.tensors = load_file(PARITY / f"{name}.safetensors")
        config = json.loads((PARITY / f"{name}.json").read_text())["config"]
        self.strength = {symbol: config[symbol] for symbol in ("beta", "alpha", "delta")}
        self.quantizer = VQ(VQConfig(codebook_size=config["codebook_size"], width=config["dim"])).eval()
        self.quantizer.load_state_dict({**self.quantizer.state_dict(), "embedding": self.tensors["w.codebook.weight"]})
        self.latents = self.quantizer.quantize(rearrange(self.tensors["in.z"], "b d h w -> b (h w) d"))

    def perturbed(self, seed: int, **options: Any) -> tuple[Latents, torch.Tensor]:
        draws = Draws.for_rows(seed, len(self.latents))
        return top_delta(self.latents, self.quantizer, draws, **self.strength, **options)


@pytest.fixture(scope="module", params=["perturb_a", "perturb_alpha_a"])
def case(request) -> Case:
    return Case(request.param)


def test_the_clean_latents_are_the_released_ones(case):
    assert torch.equal(case.latents.codes, case.tensors["out.indices_clean"])
    expected = rearrange(case.tensors["in.z_q"], "b d h w -> b (h w) d")
    torch.testing.assert_close(case.latents.vectors.detach(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("options", "table"), [({}, "out.topdelta_of_code"), (RELEASED, "out.topdelta_of_z")])
def test_the_draws_reach_exactly_the_released_neighbours(case, options, table):
    allowed = case.tensors[table].long()
    met, ever = torch.zeros(allowed.shape, dtype=torch.bool), torch.zeros(allowed.shape[:2], dtype=torch.bool)
    for seed in range(400):
        perturbed, mask = case.perturbed(seed, **options)
        same = (perturbed.codes[..., None] == allowed) & mask[..., None]  # (B, N, delta)
        assert torch.equal(same.any(dim=-1), mask)
        met, ever = met | same, ever | mask
    assert met[ever].all()


def test_the_papers_shares_are_exact(case):
    _, mask = case.perturbed(0)
    images, tokens = mask.shape
    replaced = mask.sum(dim=1)
    assert (replaced > 0).sum() == round(case.strength["beta"] * images)
    assert set(replaced[replaced > 0].tolist()) == {round(case.strength["alpha"] * tokens)}


def test_the_released_options_perturb_the_released_images(case):
    masks = torch.stack([case.perturbed(seed, **RELEASED)[1] for seed in range(20)])
    assert torch.equal(masks.any(dim=2).any(dim=0), case.tensors["out.perturbed_image_mask"].bool())
    share = masks[:, case.tensors["out.perturbed_image_mask"].bool()].float().mean()
    assert share == pytest.approx(case.strength["alpha"], abs=0.05)


@pytest.mark.parametrize("options", [{}, RELEASED])
def test_tokens_that_are_not_replaced_match_the_released_code(case, options):
    perturbed, mask = case.perturbed(3, **options)
    assert torch.equal(perturbed.codes[~mask], case.tensors["out.indices_clean"][~mask])
    assert torch.equal(perturbed.vectors[~mask], case.latents.vectors[~mask])


def test_the_released_random_numbers_give_the_released_codes_and_vectors(case):
    """Their ranks in our order of the neighbours give the same code for every token, so the same vectors."""
    codes = case.latents.codes
    near = case.quantizer.nearest(case.latents.features.flatten(0, 1), case.strength["delta"])
    drawn = near.gather(1, case.tensors["out.rand_rank"].reshape(-1, 1)).reshape(codes.shape)
    perturbed_images = case.tensors["out.perturbed_image_mask"].bool()[:, None]
    codes = torch.where(perturbed_images & (case.tensors["out.rand_prob"] <= case.strength["alpha"]), drawn, codes)
    assert torch.equal(codes, case.tensors["out.indices_upstream"])
    expected = rearrange(case.tensors["out.z_q_perturbed"], "b d h w -> b (h w) d")
    torch.testing.assert_close(case.quantizer.lookup(codes).detach(), expected, atol=1e-5, rtol=0)
