"""LlamaGen's GPT: its positions and sizes."""

from __future__ import annotations

import pytest
import torch

from robustok_core import load_registry
from robustok_core.errors import ProblemsError, RobustokError
from robustok_core.values.draws import Draws
from robustok_core.values.latents import LatentSpace
from robustok_generators.llamagen_gpt import LlamaGenGPT, LlamaGenGPTConfig

FLAT = LatentSpace(kind="discrete", num_tokens=12, width=4, codebook_size=20)
#: Parameters of the published models, in millions.
PUBLISHED = [("B", 110.9), ("L", 342.9), ("XL", 774.7), ("XXL", 1411.0), ("3B", 3096.7)]


def meta(**options: object) -> LlamaGenGPT:
    space = LatentSpace(kind="discrete", num_tokens=256, width=8, codebook_size=16384, grid=(16, 16))
    with torch.device("meta"):
        return LlamaGenGPT(LlamaGenGPTConfig(**options), space, 1000)


@pytest.mark.parametrize(("preset", "millions"), PUBLISHED)
def test_published_sizes_have_the_published_number_of_parameters(preset, millions):
    assert round(sum(p.numel() for p in meta(preset=preset).parameters()) / 1e6, 1) == millions


def test_gigatok_has_its_published_number_of_parameters():
    count = sum(p.numel() for p in meta(preset="B", positions="learned").parameters())
    assert round(count / 1e6, 2) == 111.09


def test_rotary_positions_need_a_grid(make):
    with pytest.raises(RobustokError, match="tokens on a grid") as caught:
        make("llamagen_gpt", FLAT)
    assert "learned" in caught.value.hint
    assert make("gigatok_gpt", FLAT).rotations() is None


def test_the_class_token_has_attention_score_0_or_is_unrotated(make):
    zero, identity = make("llamagen_gpt"), make("llamagen_gpt", class_rope="identity")
    assert zero.rotations()[0].eq(0).all()
    assert torch.equal(identity.rotations()[0], torch.tensor([[1.0, 0.0]]).expand(6, 2))
    assert torch.equal(zero.rotations()[1:], identity.rotations()[1:])
    codes, labels = Draws.for_rows(4, 3).integers(20, 12), torch.tensor([0, 1, 2])
    with torch.no_grad():
        ours, other = zero(codes, labels), identity(codes, labels)
    torch.testing.assert_close(ours[:, 0], other[:, 0])  # the class sees only itself
    assert not torch.allclose(ours[:, 1:], other[:, 1:], atol=1e-3)


def test_a_new_model_predicts_uniformly_and_all_weights_decay():
    space = LatentSpace(kind="discrete", num_tokens=4, width=4, codebook_size=6, grid=(2, 2))
    table = {"use": "llamagen_gpt", "width": 16, "depth": 1, "num_heads": 2}
    generator = load_registry().build("generator", table, space, 3).eval()
    assert generator(torch.zeros(1, 4, dtype=torch.int64), torch.tensor([0])).eq(0).all()
    assert generator.token_embedding.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert generator.not_decayed == ()


@pytest.mark.parametrize("option", ["token_dropout", "residual_dropout", "mlp_dropout"])
def test_each_dropout_acts_only_in_training(make, option):
    silent = {"token_dropout": 0.0, "residual_dropout": 0.0, "mlp_dropout": 0.0}
    generator = make("llamagen_gpt", **{**silent, option: 0.5})
    codes, labels = Draws.for_rows(4, 3).integers(20, 12), torch.tensor([0, 1, 2])
    with torch.no_grad():
        assert torch.equal(generator(codes, labels), generator(codes, labels))
        generator.train()
        assert not torch.equal(generator(codes, labels), generator(codes, labels))


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({}, "give width, or a preset: B, L, XL, XXL, 3B"),
        ({"width": 20, "depth": 1, "num_heads": 2}, "multiple of 4, not 10"),
    ],
)
def test_mistakes_are_named(table, complaint):
    with pytest.raises(ProblemsError, match=complaint):
        load_registry().spec("generator", {"use": "llamagen_gpt", **table})
