"""A frozen network's features of each patch, as a target of training."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from robustok_core.values.draws import seeded
from robustok_core.values.spec import Spec


class PatchFeatures:
    """The deepest feature map of a frozen network, resized to the grid of patches.

    The network is built when it is first needed and is not a submodule, so that neither checkpoints nor
    artifacts contain it.
    """

    def __init__(self, network: Spec, side: int) -> None:
        self.side, self.spec = side, network
        self._network: tuple[Any, ...] = ()  # a tuple keeps it out of the module tree

    def width(self, image_size: int) -> int:
        """C, numbers per patch for images of this size."""
        with torch.device("meta"):
            maps = self.spec.build().maps(torch.zeros(1, 3, image_size, image_size))
        return int(maps[-1].shape[1])

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, P, C) of images (B, 3, H, W) in [-1, 1]."""
        if not self._network:
            with seeded("target", self.spec.name):
                built = self.spec.sketch() if images.is_meta else self.spec.build()
            self._network = (built.to(images.device).requires_grad_(False),)
        features = self._network[0].maps(images)[-1]
        if features.shape[-2:] != (self.side, self.side):
            features = F.interpolate(features.float(), size=(self.side, self.side), mode="bilinear", antialias=True)
        return rearrange(features, "b c h w -> b (h w) c")
