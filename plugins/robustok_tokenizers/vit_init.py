"""Random weights of ViTs."""

from __future__ import annotations

import math

from torch import nn

#: timm's deviation, which published ViTs of every size were trained from, and the width it was chosen for (ViT-B).
_STD, _WIDTH = 0.02, 768


def initialise_linear_layers(network: nn.Module, width: int) -> None:
    """Timm's scheme for ViTs: weights of a truncated normal of deviation 0.02, biases 0.

    A ViT narrower than ViT-B gets weights larger by sqrt(768 / width), so that what a layer puts out is as large as
    in ViT-B: with 0.02 the branches of narrow blocks start near nothing, and learn late. Wider ones keep 0.02.

    Args:
        network: whose linear layers. width: numbers per token.
    """
    std = _STD * max(1.0, math.sqrt(_WIDTH / width))
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
