"""Random weights of ViTs."""

from __future__ import annotations

import math

from torch import nn

#: timm's deviation, and the width of ViT-B.
_STD, _WIDTH = 0.02, 768


def initialise_linear_layers(network: nn.Module, width: int) -> None:
    """Timm's scheme for ViTs: weights of a truncated normal of deviation 0.02, biases 0.

    A ViT narrower than ViT-B gets weights larger by sqrt(768 / width), so that a layer that reads `width` numbers puts
    out as much as in ViT-B: with 0.02 the branches of narrow blocks start near nothing, and learn late.

    Args:
        network: whose linear layers. width: numbers per token.
    """
    std = _STD * max(1.0, math.sqrt(_WIDTH / width))
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
