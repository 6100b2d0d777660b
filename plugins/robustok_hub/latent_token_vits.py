"""Shared by the importers of ViTs, some around latent tokens: their sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robustok_hub.published_names import count_numbered, heads_by_width

#: Name prefixes that the published ViTs (timm's) share with ours.
TRUNK = ("blocks.", "norm.", "cls_token", "pos_embed")
#: The default number of heads of both ViTs, in words.
HEADS_LEFT_OUT = "one for every 64 of the ViTs' width"


def size_table(weights: Mapping[str, Tensor], num_heads: int | None) -> dict[str, Any]:
    """The sizes in a tokenizer's recipe table, from the shapes of its weights.

    Args:
        weights: weights by our names; the decoder has the encoder's size.
        num_heads: the importer's option.
    """
    _, num_latents, width = weights["encoder.latent_tokens"].shape
    patch_size = weights["encoder.patch_embed.weight"].shape[-1]
    hidden = weights.get("encoder.blocks.0.mlp.fc1.bias", torch.empty(4 * width))
    return {
        "image_size": math.isqrt(weights["encoder.pos_embed"].shape[1] - 1) * patch_size,
        "patch_size": patch_size,
        "width": width,
        "depth": max(1, count_numbered(weights, "encoder.blocks.")),
        "num_heads": num_heads or heads_by_width(width),
        "mlp_ratio": hidden.numel() / width,
        "num_latent_tokens": num_latents,
    }


#: Heads of the published width whose heads are not 64 wide: that of XL.
_HEADS = {1152: 16}
#: The default number of heads of one ViT, in words.
STACK_HEADS_LEFT_OUT = "as published: 16 for the width 1152, otherwise one for every 64 of the width"


def stack_table(weights: Mapping[str, Tensor], blocks: str, width: int, num_heads: int | None) -> dict[str, int]:
    """The size of one transformer, for a recipe table.

    Args:
        weights: any of its weights. blocks: the prefix of their numbered blocks, "encoder.blocks.".
        width: numbers per token. num_heads: the importer's option.
    """
    return {
        "width": width,
        "depth": max(1, count_numbered(weights, blocks)),
        "num_heads": num_heads or _HEADS.get(width) or heads_by_width(width),
    }
