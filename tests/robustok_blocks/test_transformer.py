"""Transformer blocks match timm's."""

from __future__ import annotations

from functools import partial

import torch
from timm.models.vision_transformer import Block as TimmBlock

from robustok_blocks.transformer import Block, DropPath


def test_a_block_matches_timms_block():
    torch.manual_seed(0)
    ours = Block(width=24, num_heads=3, mlp_ratio=3.0, layer_scale=0.5, drop_path=0.0)
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    theirs = TimmBlock(24, 3, mlp_ratio=3.0, qkv_bias=True, init_values=0.5, norm_layer=norm)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-4)


def test_drop_path_drops_whole_images():
    torch.manual_seed(0)
    dropped = DropPath(0.5).train()(torch.ones(64, 3, 2)).flatten(1)
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert set(dropped[:, 0].tolist()) == {0.0, 2.0}
