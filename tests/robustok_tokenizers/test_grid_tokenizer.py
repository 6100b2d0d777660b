"""Tokens are the positions of a latent map, row by row; the decoder is all that comes after it."""

from __future__ import annotations

import torch
from torch import nn

from robustok_core import Latents, LatentSpace
from robustok_tokenizers.grid_tokenizer import GridTokenizer


class Unchanged(nn.Module):
    """Returns a latent map unchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_out = nn.Conv2d(3, 3, 1, bias=False)
        self.conv_out.weight.data = torch.eye(3)[:, :, None, None]

    def forward(self, x):
        return self.conv_out(x)


class Tiny(GridTokenizer):
    quantizer = None

    def __init__(self) -> None:
        super().__init__()
        self.side, self.image_size = 2, 2
        self.post_quant_conv, self.pixel_decoder = nn.Identity(), Unchanged()
        self.space = LatentSpace(kind="continuous", num_tokens=4, width=3, grid=(2, 2))

    def encode(self, images):
        return Latents(vectors=images.flatten(2).transpose(1, 2))


@torch.no_grad()
def test_tokens_lie_on_the_map_in_raster_order():
    images = torch.arange(12.0).view(1, 3, 2, 2)
    tokenizer = Tiny()
    assert torch.equal(tokenizer.decode(tokenizer.encode(images)), images)


def test_the_decoder_is_all_after_the_latents_and_ends_with_its_last_layer():
    tokenizer = Tiny()
    assert list(tokenizer.decoder) == [tokenizer.post_quant_conv, tokenizer.pixel_decoder]
    assert tokenizer.last_layer is tokenizer.pixel_decoder.conv_out.weight
