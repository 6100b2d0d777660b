"""The size of a published tokenizer follows from the shapes of its weights."""

from __future__ import annotations

import pytest
import torch

from published import Case
from robustok_core import RobustokError
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


#: Files of a width at which the number of heads is unknown, with an option for all heads but those that it names.
UNKNOWN = [
    ("robustok", "robustok_tokenizer_a", {}, "num_heads"),
    ("maetok", "maetok_a", {}, "num_heads"),
    ("softvq", "softvq_a", {}, "num_heads"),
    ("titok", "titok_rgb_a", {"encoder_num_heads": 4}, "decoder_num_heads"),
    ("gigatok", "gigatok_a", {"decoder_num_heads": 3, "norm_groups": 4}, "encoder_num_heads"),
    ("ldetok", "ldetok_a", {"encoder_num_heads": 3}, "decoder_num_heads"),
    ("rae", "rae_a", {"encoder": "test_vit", "weights": "random"}, "num_heads"),
    ("llamagen_gpt", "llamagen_gpt_a", {"num_tokens": 16}, "num_heads"),
]


@pytest.mark.parametrize(("importer", "name", "options", "wanted"), UNKNOWN, ids=[case[0] for case in UNKNOWN])
def test_the_number_of_heads_of_an_unpublished_width_is_not_guessed(importer, name, options, wanted, tmp_path):
    with pytest.raises(RobustokError, match=r"heads of a model of width \d+ does not follow") as caught:
        Case(name).load(importer, tmp_path, **options)
    assert caught.value.hint == f"set the importer's {wanted}"
