"""Every registered tokenizer and generator at tiny size, for tests of all pairs. List a new one here.

Images have 32 pixels, and tokens, where they have a place in the image, a grid of 4 x 4.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from project import IMAGE_SIZE
from robustok_core import LatentSpace

_SMALL = {"width": 16, "depth": 1, "num_heads": 2}
_VQ = {"use": "vq", "codebook_size": 16, "width": 4}
_VIT = {"patch_size": 8, **_SMALL}
_LEVELS = {"channels": 8, "channel_multipliers": [1, 1, 1, 2], "num_res_blocks": 1, "norm_groups": 4}
_CONV = {**_LEVELS, "channel_multipliers": [1, 2], "z_channels": 6, "stem_patch": 4}
_TOKENIZERS: dict[str, dict[str, Any]] = {
    "conv_vq": {**_CONV, "quantizer": _VQ},
    "kl_vae": {**_CONV, "width": 4},
    "mae_tok": {**_VIT, "num_latent_tokens": 6, "latent_width": 4, "layer_scale": 0.5},
    "rae": {
        "encoder": "test_vit",
        "weights": "random",
        "encoder_image_size": 32,
        "decoder_width": 16,
        "decoder_depth": 1,
        "decoder_num_heads": 2,
    },
    "gigatok": {
        **_LEVELS,
        "z_channels": 6,
        "num_latent_tokens": 8,
        "encoder": _SMALL,
        "decoder": _SMALL,
        "quantizer": _VQ,
    },
    "titok": {
        "patch_size": 8,
        "num_latent_tokens": 6,
        "encoder": _SMALL,
        "decoder": _SMALL,
        "output": "pixels",
        "quantizer": _VQ,
    },
    "maskgit_vq": {**_LEVELS, "quantizer": _VQ},
    "open_magvit2": {**_LEVELS, "quantizer": {"use": "lfq", "width": 4}},
    "vit_kl": {"patch_size": 8, "latent_width": 4, "encoder": _SMALL, "decoder": _SMALL},
    "vit_vq": {**_VIT, "num_latent_tokens": 16, "layer_scale": 0.5, "quantizer": _VQ},
    "diffusers_vae": {},  # its `source` is a folder
}
_GENERATORS: dict[str, dict[str, Any]] = {
    "rar": _SMALL,
    "llamagen_gpt": _SMALL,
    "maskgit": _SMALL,
    "flow_transformer": _SMALL,
    "dit": _SMALL,
}
_DISCRETE = {"conv_vq", "gigatok", "maskgit_vq", "open_magvit2", "titok", "vit_vq", "rar", "llamagen_gpt", "maskgit"}

TOKENIZERS, GENERATORS = list(_TOKENIZERS), list(_GENERATORS)
#: Every tokenizer with every generator of an equal space.
PAIRS = [(t, g) for t in TOKENIZERS for g in GENERATORS if (t in _DISCRETE) == (g in _DISCRETE)]


def is_discrete(name: str) -> bool:
    """Whether a tokenizer or generator has codes."""
    return name in _DISCRETE


def save_autoencoder(folder: Path) -> None:
    """Writes an AutoencoderKL with random weights, as diffusers saves it."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    AutoencoderKL(**blocks, block_out_channels=(8, 16), norm_num_groups=4).save_pretrained(folder)


def tokenizer_table(name: str, autoencoder: Path) -> dict[str, Any]:
    """The recipe table of a tokenizer; `autoencoder` is a folder of `save_autoencoder`."""
    source = {"source": str(autoencoder)} if name == "diffusers_vae" else {}
    return {"use": name, "image_size": IMAGE_SIZE, **_TOKENIZERS[name], **source}


def generator_table(name: str, space: LatentSpace) -> dict[str, Any]:
    """The recipe table of a generator of a space."""
    positions = {"positions": "learned"} if name == "llamagen_gpt" and space.grid is None else {}
    return {"use": name, **_GENERATORS[name], **positions}
