"""Convolutional blocks against their definitions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from robustok_blocks.conv import Downsample, ResidualBlock, SpatialAttention, Upsample


def test_attention_mixes_all_positions_by_the_softmax_of_scaled_products():
    torch.manual_seed(0)
    attention = SpatialAttention(8, groups=2)
    x = torch.randn(2, 8, 3, 5)
    normed = attention.norm(x)
    q, k, v = (project(normed).flatten(2) for project in (attention.q, attention.k, attention.v))  # (B, C, h*w)
    weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / math.sqrt(8), dim=-1)
    mixed = torch.einsum("bij,bcj->bci", weights, v).unflatten(2, (3, 5))
    torch.testing.assert_close(attention(x), x + attention.proj_out(mixed), atol=1e-5, rtol=1e-4)


def test_a_residual_block_without_weights_is_its_shortcut():
    for channels_out in (8, 12):
        block = ResidualBlock(8, channels_out, groups=4)
        torch.nn.init.zeros_(block.conv2.weight)
        torch.nn.init.zeros_(block.conv2.bias)
        x = torch.randn(2, 8, 4, 4)
        assert torch.equal(block(x), x if channels_out == 8 else block.nin_shortcut(x))


def test_downsampling_reads_each_pair_of_pixels_and_the_next_one():
    block = Downsample(1)
    torch.nn.init.ones_(block.conv.weight)
    torch.nn.init.zeros_(block.conv.bias)
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    padded = F.pad(x, (0, 1, 0, 1))[0, 0]
    expected = [[padded[2 * r : 2 * r + 3, 2 * c : 2 * c + 3].sum() for c in range(2)] for r in range(2)]
    assert torch.equal(block(x)[0, 0], torch.tensor(expected))


def test_upsampling_repeats_each_pixel_before_its_convolution():
    block = Upsample(1)
    torch.nn.init.zeros_(block.conv.weight)
    block.conv.weight.data[0, 0, 1, 1] = 1.0
    torch.nn.init.zeros_(block.conv.bias)
    x = torch.arange(4.0).reshape(1, 1, 2, 2)
    assert torch.equal(block(x), x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
