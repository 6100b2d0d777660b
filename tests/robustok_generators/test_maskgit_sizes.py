"""MaskGIT's sizes: presets, the numbers that override them, and what is refused."""

from __future__ import annotations

import pytest
import torch

from robustok_core.errors import ProblemsError, RobustokError
from robustok_core.recipe.registry import load_registry
from robustok_core.values.latents import LatentSpace

SPACE = LatentSpace(kind="discrete", num_tokens=16, width=4, codebook_size=32, grid=(4, 4))
TINY = {"use": "maskgit", "width": 32, "depth": 2, "num_heads": 2, "mlp_width": 48}


def make(space: LatentSpace = SPACE, **options: object):
    return load_registry().build("generator", {**TINY, **options}, space, 10)


@pytest.mark.parametrize(("preset", "width", "depth"), [("B", 768, 24), ("L", 1024, 24)])
def test_presets_have_their_sizes(preset, width, depth):
    space = LatentSpace(kind="discrete", num_tokens=256, width=64, codebook_size=4096)
    with torch.device("meta"):
        model = load_registry().build("generator", {"use": "maskgit", "preset": preset}, space, 1000)
    block = 12 * width**2 + 13 * width  # qkv, proj, two layers of the MLP; biases and two norms
    tables = (4096 + 1 + 1000 + 1 + 257) * width
    assert sum(p.numel() for p in model.parameters()) == depth * block + tables + 2 * width + (width + 1) * 4096
    assert all(p.is_meta for p in model.parameters())
    logits = model(
        torch.zeros(2, 256, dtype=torch.int64, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta")
    )
    assert logits.shape == (2, 256, 4096)


def test_given_numbers_override_the_preset():
    with torch.device("meta"):
        model = make(preset="B", depth=None, mlp_width=None)
    block = model.blocks[0]
    assert (len(model.blocks), model.head.in_features, block.attn.num_heads) == (24, 32, 2)
    assert block.mlp.fc1.out_features == 128  # 4 times the given width


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ProblemsError, match="width 32 is not a multiple of num_heads 5"):
        make(num_heads=5)


def test_a_size_must_be_complete():
    with pytest.raises(ProblemsError, match="give depth, or a preset: B, L"):
        make(depth=None)


def test_a_continuous_space_is_refused():
    with pytest.raises(RobustokError, match="maskgit generates codes"):
        make(LatentSpace(kind="continuous", num_tokens=16, width=4))


def test_positions_and_tables_are_not_decayed():
    model = make()
    assert set(model.not_decayed) <= set(dict(model.named_parameters()))
