"""The convolutional tokenizer: sizes, positions, options and errors."""

from __future__ import annotations

import pytest
import torch

from robustok_core.errors import ProblemsError
from robustok_core.recipe.registry import load_registry
from robustok_tokenizers.conv_vq import SMALL

TINY = {
    "use": "conv_vq",
    "image_size": 16,
    "channels": 8,
    "channel_multipliers": [1, 2],
    "num_res_blocks": 1,
    "norm_groups": 4,
    "z_channels": 6,
    "quantizer": {"use": "vq", "codebook_size": 16, "width": 4},
}


def make(**options: object):
    torch.manual_seed(0)
    return load_registry().build("tokenizer", {**TINY, **options})


def count(**options: object) -> int:
    with torch.device("meta"):
        tokenizer = load_registry().build("tokenizer", {"use": "conv_vq", **options})
    return sum(parameter.numel() for parameter in tokenizer.parameters())


def test_the_published_size_has_71_88_million_parameters():
    assert count() == 71_883_403


def test_the_small_size_has_0_76_million_parameters_and_64_tokens():
    quantizer = {"use": "vq", "codebook_size": 512, "width": 16}
    assert count(**SMALL, quantizer=quantizer) == 760_320
    assert make(**SMALL, quantizer=quantizer).space.grid == (8, 8)


@pytest.mark.parametrize(
    ("options", "grid"),
    [
        ({}, (8, 8)),
        ({"channel_multipliers": [2]}, (16, 16)),
        ({"stem_patch": 2}, (4, 4)),
        ({"stem_patch": 4, "channel_multipliers": [1], "attention": False, "middle": False}, (4, 4)),
        ({"channel_multipliers": [1, 1, 2], "num_res_blocks": 2, "middle": False}, (4, 4)),
    ],
)
def test_tokens_lie_on_the_grid_of_the_coarsest_level(options, grid):
    tokenizer = make(**options).eval()
    assert tokenizer.space.grid == grid
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    latents = tokenizer.encode(images)
    assert latents.vectors.shape == (2, grid[0] * grid[1], 4)
    assert tokenizer.decode(latents).shape == images.shape


def test_a_token_describes_its_position():
    tokenizer = make(attention=False, middle=False, channel_multipliers=[1], stem_patch=4, image_size=64).eval()
    # Without norms the networks are local (four 3x3 convolutions see 4 tokens far).
    for module in tokenizer.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda x: x
    images = torch.zeros(1, 3, 64, 64)
    changed = images.clone()
    changed[:, :, 8:12, 40:44] = 1.0  # token row 2, column 10
    moved = (tokenizer.encode(changed).features - tokenizer.encode(images).features).abs().sum(-1).reshape(16, 16)
    assert moved[2, 10] > 0
    rows, columns = torch.nonzero(moved, as_tuple=True)
    assert (rows - 2).abs().max() <= 4
    assert (columns - 10).abs().max() <= 4
    vectors = torch.zeros(1, 256, 4)
    changed = vectors.clone()
    changed[0, 2 * 16 + 10] = 1.0
    change = (tokenizer.decode_vectors(changed) - tokenizer.decode_vectors(vectors)).abs().sum(1)[0]
    assert change[8:12, 40:44].min() > 0
    assert change[40:].max() == 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"image_size": 15}, "image_size 15 is not a multiple of 2"),
        ({"channels": 6}, "norm_groups 4 does not divide the 6 channels"),
        ({"channel_multipliers": []}, "channel_multipliers"),
        ({"decoder_channel_multipliers": [1]}, "the encoder has 2 levels and the decoder 1"),
        ({"decoder_channel_multipliers": [1, 2], "channels": 6}, "norm_groups 4 does not divide"),
        ({"attention_levels": [2]}, "there are only 2 levels"),
        ({"attention": False, "attention_levels": [1]}, "have no effect without attention"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, complaint):
    with pytest.raises(ProblemsError, match=complaint):
        make(**options)


def test_attention_stands_at_the_levels_that_are_named():
    tokenizer = make(attention_levels=[0])
    assert [len(level.attn) for level in tokenizer.encoder.conv_blocks] == [1, 0]
    assert [len(level.attn) for level in tokenizer.pixel_decoder.conv_blocks] == [0, 2]  # coarsest first
    assert [len(level.attn) for level in make().encoder.conv_blocks] == [0, 1]


def test_the_decoder_may_be_wider_than_the_encoder():
    tokenizer = make(decoder_channel_multipliers=[2, 3])
    assert tokenizer.encoder.conv_out.in_channels == 16
    assert tokenizer.pixel_decoder.conv_in.out_channels == 24
    assert tokenizer.last_layer.shape == (3, 16, 3, 3)


def test_decoder_and_last_layer_come_after_the_quantizer():
    tokenizer = make()
    behind = {id(parameter) for parameter in tokenizer.decoder.parameters()}
    names = {name.split(".")[0] for name, p in tokenizer.named_parameters() if id(p) in behind}
    assert names == {"post_quant_conv", "pixel_decoder"}
    assert tokenizer.last_layer.shape == (3, 8, 3, 3)
    assert id(tokenizer.last_layer) in behind
