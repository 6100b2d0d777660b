"""Pixel-wise reconstruction error (paper section 3, L2)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.kinds.loss import Loss, Reconstruction

NORMS = {"l1": F.l1_loss, "l2": F.mse_loss}


@frozen(kw_only=True)
class ReconstructionConfig:
    """Options of the pixel loss."""

    weight: float = field(default=1.0, validator=validators.ge(0), metadata={"doc": "factor of the term"})
    norm: Literal["l1", "l2"] = field(
        default="l2",
        validator=validators.in_(tuple(NORMS)),
        metadata={"doc": "mean absolute (l1) or mean squared (l2) error over all pixels in [-1, 1]"},
    )


class PixelReconstruction(Loss):
    """Mean absolute or squared error over images, channels and pixels, in float32."""

    Config = ReconstructionConfig
    also_called = ("l1", "l2", "mae", "mse")
    compares_images = True

    def __init__(self, config: ReconstructionConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, step: Reconstruction) -> Tensor:
        """The unweighted term, a scalar."""
        return NORMS[self.config.norm](step.images.float(), step.batch.images.float())
