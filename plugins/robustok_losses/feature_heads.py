"""The paper's discriminator: small heads on the feature maps of a frozen network (StyleGAN-T, Sauer et al. 2023)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from attrs import field, frozen
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from robustok_core.errors import RobustokError
from robustok_core.recipe.validators import side_range, width_range
from robustok_core.values.full_precision import full_precision
from robustok_core.values.spec import Spec, component
from robustok_losses.frozen import FrozenMaps


def _odd(_: object, __: object, value: int) -> None:
    if value % 2 == 0:
        raise ValueError("must be odd, so that the kernel has a centre")


@frozen(kw_only=True)
class HeadsConfig:
    """Options of the discriminator on frozen features."""

    features: Spec = component("features", doc="frozen network under the heads", default={"use": "dino"})
    layers: tuple[int, ...] | None = field(
        default=None, metadata={"doc": "which of its maps get a head, 0 the shallowest; all if not given"}
    )
    kernel: int = field(
        default=9,
        validator=[side_range, _odd],
        metadata={"doc": "kernel size of the residual convolution; odd"},
    )
    virtual_batch: int = field(
        default=8, validator=width_range, metadata={"doc": "largest number of images normalised together"}
    )


class FeatureHeads(nn.Module):
    """One head on each map; a map is read row by row as a circular sequence.

    With DINO ViT-S/16 (width 384) and 5 maps, the heads have the paper's 7,386,245 parameters. Use
    batches of a multiple of `virtual_batch` images: then the groups that are normalised together do
    not depend on the micro-batch size.
    """

    def __init__(self, config: HeadsConfig) -> None:
        super().__init__()
        self.config = config
        self.maps = FrozenMaps(config.features.build(), config.layers)
        self.heads = nn.ModuleList(_head(channels, config) for channels in self.maps.channels)

    def check_size(self, size: int) -> None:
        """Checks, where the heads are sketched, that a kernel is not wrapped around a map of such images twice.

        Raises:
            RobustokError: if a map has fewer positions than half of the kernel.
        """
        reach = self.config.kernel // 2
        if not next(self.parameters()).is_meta:
            return
        for features in self.maps(torch.zeros(1, 3, size, size, device="meta")):
            height, width = features.shape[-2:]
            if height * width < reach:
                what = f"heads.kernel = {self.config.kernel} is too large for maps of {width} x {height} positions"
                hint = "use a smaller kernel, fewer heads.layers, or larger images"
                raise RobustokError(what, where="loss adversarial", hint=hint)

    def forward(self, images: Tensor) -> list[Tensor]:
        """One (B, positions) tensor of logits from each head for images (B, 3, H, W) in [-1, 1]."""
        maps = self.maps(images)
        with parametrize.cached():
            self._normalise_weights(images.device)
            pairs = zip(self.heads, maps, strict=True)
            return [head(rearrange(features, "b c h w -> b c (h w)")).squeeze(1) for head, features in pairs]

    def _normalise_weights(self, device: torch.device) -> None:
        # In float32, even under autocast: the power iteration does not converge in bfloat16. The values
        # stay in parametrize's cache for the rest of the block.
        with full_precision(device):
            for module in self.modules():
                if isinstance(module, nn.Conv1d):
                    _ = module.weight


def _head(channels: int, config: HeadsConfig) -> nn.Sequential:
    return nn.Sequential(
        _block(channels, 1, config.virtual_batch),
        Residual(_block(channels, config.kernel, config.virtual_batch)),
        _convolution(channels, 1, 1),
    )


def _block(channels: int, kernel: int, virtual_batch: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(channels, channels, kernel), LocalBatchNorm(channels, virtual_batch), nn.LeakyReLU(0.2)
    )


def _convolution(channels_in: int, channels_out: int, kernel: int) -> nn.Module:
    return spectral_norm(nn.Conv1d(channels_in, channels_out, kernel, padding=kernel // 2, padding_mode="circular"))


class Residual(nn.Module):
    """(x + f(x)) / sqrt(2): preserves the variance if f(x) has the variance of x."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as x."""
        return (x + self.fn(x)) * math.sqrt(0.5)


class LocalBatchNorm(nn.Module):
    """Batch normalisation over groups of neighbouring images, without running averages: eval mode changes nothing.

    B images form ceil(B / virtual_batch) groups whose sizes differ by at most one.
    """

    def __init__(self, channels: int, virtual_batch: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.virtual_batch = virtual_batch
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, L) to (B, C, L), float32."""
        groups = math.ceil(len(x) / self.virtual_batch)
        size, larger = divmod(len(x), groups)  # the first `larger` groups hold one more image
        parts = x.float().split([larger * (size + 1), (groups - larger) * size])
        counts = (larger, groups - larger)
        normal = torch.cat([self._standardise(part, n) for part, n in zip(parts, counts, strict=True) if n])
        return normal * self.weight[:, None] + self.bias[:, None]

    def _standardise(self, x: Tensor, groups: int) -> Tensor:
        grouped = rearrange(x, "(g n) c l -> g c (n l)", g=groups)
        normal = F.layer_norm(grouped, grouped.shape[-1:], eps=self.eps)
        return rearrange(normal, "g c (n l) -> (g n) c l", l=x.shape[-1])
