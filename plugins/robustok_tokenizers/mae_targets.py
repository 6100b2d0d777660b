"""MAETok's auxiliary targets: gradients, or a frozen network's features, of the hidden patches.

For each target a small decoder reads the clean latents; its loss counts hidden patches only. It shapes the
latent space in training and is not used afterwards.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.recipe.validators import depth_range, require_multiple, width_range
from robustok_core.values.spec import component
from robustok_tokenizers.mae_networks import MaeDecoder, MaeShape
from robustok_tokenizers.oriented_gradients import NUM_BINS, patch_gradients
from robustok_tokenizers.patch_features import PatchFeatures


@frozen(kw_only=True)
class TargetConfig:
    """A target's decoder; the published size is not known, so the default is our choice."""

    weight: float = field(default=1.0, validator=validators.ge(0.0), metadata={"doc": "weight of the loss"})
    width: int = field(default=384, validator=width_range, metadata={"doc": "width of the decoder's tokens"})
    depth: int = field(default=3, validator=depth_range, metadata={"doc": "blocks of the decoder"})
    num_heads: int = field(default=6, validator=width_range, metadata={"doc": "attention heads of the decoder"})

    def __attrs_post_init__(self) -> None:
        require_multiple(self, "width", "num_heads")


@frozen(kw_only=True)
class FeatureTargetConfig(TargetConfig):
    """A target that is the deepest feature map of a frozen network."""

    network: Any = component("features", doc="the frozen network", default={"use": "dinov2"})


class Target(nn.Module):
    """A decoder from latents (B, N, D) to a target per patch, and its loss."""

    def __init__(self, config: TargetConfig, latent_width: int, side: int, num_latents: int, outputs: int) -> None:
        super().__init__()
        self.weight = config.weight
        shape = MaeShape(
            width=config.width,
            depth=config.depth,
            num_heads=config.num_heads,
            mlp_ratio=4.0,
            layer_scale=1.0,
            drop_path=0.0,
            side=side,
            num_latents=num_latents,
            rotary="none",
            base=1.0,
            cls_token=True,
            absolute=True,
        )
        self.post_quant_conv = nn.Linear(latent_width, config.width)
        self.decoder = MaeDecoder(shape, outputs)

    def forward(self, latents: Tensor, images: Tensor, mask: Tensor | None) -> Tensor:
        """The weighted mean error over the patches in mask (B, P); over all patches without a mask."""
        with torch.no_grad():
            wanted = self.wanted(images)
        errors = self.errors(self.decoder(self.post_quant_conv(latents)).float(), wanted.float())  # (B, P)
        if mask is None:
            return self.weight * errors.mean()
        return self.weight * (errors * mask).sum() / mask.sum().clamp(min=1)

    def wanted(self, images: Tensor) -> Tensor:
        """The targets (B, P, C) of images (B, 3, H, W)."""
        raise NotImplementedError

    def errors(self, predicted: Tensor, wanted: Tensor) -> Tensor:
        """The error (B, P) of each patch, from predictions and targets (B, P, C)."""
        raise NotImplementedError


class GradientTarget(Target):
    """Histograms of oriented gradients, 108 numbers per patch; mean squared error."""

    def __init__(self, config: TargetConfig, latent_width: int, side: int, num_latents: int, patch_size: int) -> None:
        super().__init__(config, latent_width, side, num_latents, outputs=3 * 4 * NUM_BINS)
        self.patch_size = patch_size

    def wanted(self, images: Tensor) -> Tensor:
        return patch_gradients(images, self.patch_size)

    def errors(self, predicted: Tensor, wanted: Tensor) -> Tensor:
        return (predicted - wanted).square().mean(-1)


class FeatureTarget(Target):
    """A frozen network's features at each patch; 1 - cosine similarity."""

    def __init__(
        self, config: FeatureTargetConfig, latent_width: int, side: int, num_latents: int, image_size: int
    ) -> None:
        features = PatchFeatures(config.network, side)
        super().__init__(config, latent_width, side, num_latents, outputs=features.width(image_size))
        self.features = features

    def wanted(self, images: Tensor) -> Tensor:
        return self.features(images)

    def errors(self, predicted: Tensor, wanted: Tensor) -> Tensor:
        return 1.0 - F.cosine_similarity(predicted, wanted, dim=-1)
