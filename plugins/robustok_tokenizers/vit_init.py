"""Initialisation of ViTs."""

from __future__ import annotations

import math

from torch import nn

#: timm's standard deviation, and the width of ViT-B.
_STD, _WIDTH = 0.02, 768


def initialise_linear_layers(network: nn.Module, width: int) -> None:
    """Initialises as timm's ViTs: weights from a truncated normal of standard deviation 0.02, biases 0.

    A ViT narrower than ViT-B gets weights larger by sqrt(768 / width), so that the outputs of a layer that reads
    `width` numbers are as large as in ViT-B: with 0.02 the branches of narrow blocks start near 0 and learn late.

    Args:
        network: the module whose linear layers are initialised. width: numbers per token.
    """
    std = _STD * max(1.0, math.sqrt(_WIDTH / width))
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
