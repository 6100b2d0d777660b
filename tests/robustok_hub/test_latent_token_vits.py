"""The size of a published tokenizer follows from the shapes of its weights."""

from __future__ import annotations

import pytest
import torch

from robustok_hub.latent_token_vits import size_table
from robustok_hub.published_names import vq_table


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    """Weights of 3 blocks of width 192 with 5 latent tokens, for images of 4 x 4 patches of 8 pixels."""
    shapes = {
        "encoder.latent_tokens": (1, 5, 192),
        "encoder.pos_embed": (1, 1 + 16, 192),
        "encoder.patch_embed.weight": (192, 3, 8, 8),
        "encoder.blocks.0.mlp.fc1.bias": (384,),
        "encoder.blocks.1.mlp.fc1.bias": (384,),
        "encoder.blocks.2.mlp.fc1.bias": (384,),
    }
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def test_the_shapes_give_the_size(weights):
    expected = {"image_size": 32, "patch_size": 8, "width": 192, "depth": 3, "mlp_ratio": 2.0, "num_latent_tokens": 5}
    assert size_table(weights, None) == expected | {"num_heads": 3}
    assert size_table(weights, 6) == expected | {"num_heads": 6}


def test_a_file_without_blocks_gets_the_usual_hidden_width(weights):
    shapes = {name: value for name, value in weights.items() if ".blocks." not in name}
    assert size_table(shapes, None)["mlp_ratio"] == 4.0


def test_the_codebook_gives_its_size_and_width():
    codebook = {"quantizer.embedding": torch.zeros(16, 4)}
    expected = {"use": "vq", "codebook_size": 16, "width": 4, "l2_normalise": False}
    assert vq_table(codebook, l2_normalise=False) == expected
