"""What the files of MAETok and RobusTok have in common: ViTs that read and draw an image through latent tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robustok_hub.published_names import count_numbered

#: Beginnings of the names that the published ViTs, timm's, share with ours.
TRUNK = ("blocks.", "norm.", "cls_token", "pos_embed")
#: Of both ViTs, where the importer is not told the number of heads.
HEADS_LEFT_OUT = "one for every 64 of the ViTs' width"


def size_table(weights: Mapping[str, Tensor], num_heads: int | None) -> dict[str, Any]:
    """The part of a tokenizer's recipe table that says how large it is, from the shapes of its weights.

    Args:
        weights: by our names; both ViTs are as large as the encoder.
        num_heads: of the importer's options.
    """
    _, num_latents, width = weights["encoder.latent_tokens"].shape
    patch_size = weights["encoder.patch_embed.weight"].shape[-1]
    hidden = weights.get("encoder.blocks.0.mlp.fc1.bias", torch.empty(4 * width))
    return {
        "image_size": math.isqrt(weights["encoder.pos_embed"].shape[1] - 1) * patch_size,
        "patch_size": patch_size,
        "width": width,
        "depth": max(1, count_numbered(weights, "encoder.blocks.")),
        "num_heads": num_heads or max(1, width // 64),
        "mlp_ratio": len(hidden) / width,
        "num_latent_tokens": num_latents,
    }
