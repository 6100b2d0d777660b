"""Initialisation of ViTs: timm's from ViT-B's width up, and outputs of the same size in narrower ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from robustok_core.recipe.registry import load_registry

IMAGE = {"image_size": 32, "patch_size": 8}


def _pair(use: str, width: int) -> dict[str, object]:
    return {"use": use, **IMAGE, "width": width, "depth": 1, "num_heads": 4, "num_latent_tokens": 16}


TABLES: dict[str, Callable[[int], dict[str, object]]] = {
    "mae_tok": lambda width: _pair("mae_tok", width),
    "vit_vq": lambda width: {**_pair("vit_vq", width), "quantizer": {"use": "vq", "codebook_size": 8, "width": 4}},
    "vit_kl": lambda width: {
        "use": "vit_kl",
        **IMAGE,
        **{part: {"width": width, "depth": 1, "num_heads": 4} for part in ("encoder", "decoder")},
    },
    "rae": lambda width: {
        "use": "rae",
        "image_size": 16,
        "encoder": "test_vit",
        "weights": "random",
        "encoder_image_size": 32,
        "decoder_width": width,
        "decoder_depth": 1,
        "decoder_num_heads": 4,
    },
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(("width", "std"), [(48, 0.08), (768, 0.02), (1024, 0.02)])
def test_weights_deviate_by_timms_0_02_and_in_vits_narrower_than_b_by_more(name: str, width: int, std: float):
    torch.manual_seed(0)
    decoder = load_registry().build("tokenizer", TABLES[name](width)).decoder
    layers = [part for part in decoder.modules() if isinstance(part, nn.Linear) and part.in_features >= width]
    assert len(layers) >= 4  # queries, keys and values; projection; MLP
    for layer in layers:
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
        assert layer.bias is None or not layer.bias.any()
