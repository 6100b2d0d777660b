"""Decoding samples on one or more processes, and refusal of latents that a tokenizer cannot decode."""

from __future__ import annotations

import pytest
import torch

import robustok_toolkit.generating
from robustok_core import Latents, LatentSpace, RobustokError
from robustok_toolkit.generating import check_space, decode_and_gather, decode_to_uint8, labels_of, own_share


@pytest.fixture(scope="module")
def tokenizer(registry):
    """A `conv_vq` with 4 x 4 tokens for images of 8 x 8."""
    size = {"image_size": 8, "channels": 8, "channel_multipliers": [1, 1], "num_res_blocks": 1, "attention": False}
    quantizer = {"use": "vq", "codebook_size": 16, "width": 4}
    table = size | {"use": "conv_vq", "norm_groups": 4, "z_channels": 8, "quantizer": quantizer}
    return registry.build("tokenizer", table).eval()


def random_codes(tokenizer, count):
    shape = (count, tokenizer.space.num_tokens)
    return torch.randint(tokenizer.space.codebook_size, shape, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("batch_size", [2, 7])
def test_decoded_batches_are_gathered_in_order(tokenizer, batch_size):
    codes, labels = random_codes(tokenizer, 7), labels_of([4, 1], torch.arange(7))
    assert torch.equal(own_share(7), torch.arange(7))
    images = decode_and_gather(tokenizer, (Latents(codes=batch) for batch in codes.split(batch_size)), labels)
    expected = [decode_to_uint8(tokenizer, Latents(codes=batch)) for batch in codes.split(batch_size)]
    assert torch.equal(images.pixels, torch.cat(expected))
    assert images.pixels.dtype == torch.uint8
    assert images.labels.tolist() == [4, 1, 4, 1, 4, 1, 4]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_shares_of_all_processes_cover_all_samples_in_order(monkeypatch, count):
    monkeypatch.setattr(robustok_toolkit.generating, "world_size", lambda: 3)
    shares = []
    for process in range(3):
        monkeypatch.setattr(robustok_toolkit.generating, "rank", lambda process=process: process)
        shares.append(own_share(count))
    assert torch.cat(shares).tolist() == list(range(count))


def test_a_process_without_samples_has_images_of_the_right_shape(tokenizer, monkeypatch):
    def gather(own, sizes):
        assert own.shape == (0, 3, 8, 8)
        assert sizes == [1, 0]
        return own

    monkeypatch.setattr(robustok_toolkit.generating, "world_size", lambda: 2)
    monkeypatch.setattr(robustok_toolkit.generating, "gather_shares", gather)
    assert decode_and_gather(tokenizer, [], labels_of([0], torch.arange(1))).pixels.dtype == torch.uint8


def test_spaces_that_differ_only_in_their_grid_are_distinguished():
    row, grid = (LatentSpace(kind="continuous", num_tokens=16, width=4, grid=grid) for grid in (None, (4, 4)))
    with pytest.raises(
        RobustokError, match=r"a different space \(no grid\) from what the .* decodes \(a grid of 4 x 4\)"
    ):
        check_space("flow_transformer", row, grid, "here")
