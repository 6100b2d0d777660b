"""Metric `lpips`: learned perceptual distance (Zhang et al. 2018), with the `lpips` package."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.metric import Evaluation, EvaluationContext
from robustok_core.values.download import Download, named_path
from robustok_core.values.draws import seeded
from robustok_core.values.full_precision import full_precision
from robustok_core.values.latents import LatentSpace
from robustok_toolkit.checked_files import check_once
from robustok_toolkit.lpips_network import SMALLEST, Trunk, lpips_downloads, lpips_network
from robustok_toolkit.mean_of_images import MeanOfImages

_OTHERWISE = "remove the metric"


@frozen(kw_only=True)
class LPIPSConfig:
    """The network and its weights."""

    network: Trunk = field(
        default="vgg",
        validator=validators.in_(("vgg", "alex")),
        metadata={"doc": "network under the learned weights; losses use vgg, many papers report alex"},
    )
    weights: str | None = field(
        default=None, metadata={"doc": "file with torchvision's weights of that network; downloaded once if not given"}
    )


class LPIPS(MeanOfImages):
    """Mean over the images, lower is better. The result is `lpips_vgg` or `lpips_alex`."""

    Config = LPIPSConfig
    higher_is_better = False

    def __init__(self, config: LPIPSConfig) -> None:
        super().__init__(config)
        self.name = f"lpips_{config.network}"  # type: ignore[misc]

    @classmethod
    def downloads(cls, config: LPIPSConfig) -> Iterable[Download]:
        return lpips_downloads(config.network, config.weights, otherwise=_OTHERWISE)

    @classmethod
    def files(cls, config: LPIPSConfig) -> Iterable[Path]:
        return named_path(config.weights)

    def check(self, space: LatentSpace) -> None:
        """Raises RobustokError if the file of `weights` is here and does not hold those of the network."""
        files = [file for file in self.files(self.config) if file.is_file()]
        if files:
            check_once(("lpips", self.config.network), files, self._built)

    def check_image_size(self, size: int) -> None:
        """Raises RobustokError if the images are too small for the network."""
        trunk = self.config.network
        if size < SMALLEST[trunk]:
            others = [name for name, smallest in SMALLEST.items() if size >= smallest]
            hint = f'set network = "{others[0]}"' if others else _OTHERWISE
            what = f"LPIPS with {trunk} takes images of at least {SMALLEST[trunk]} pixels, but these have {size}"
            raise RobustokError(what, where="metric lpips", hint=hint)

    def start(self, context: EvaluationContext) -> None:
        """Raises RobustokError as the checks do, or if the weights cannot be downloaded."""
        self.check_image_size(context.tokenizer.image_size)
        super().start(context)
        self.network = self._built().to(context.device)

    def _built(self) -> nn.Module:
        trunk, weights = self.config.network, self.config.weights
        with seeded("lpips", trunk):  # restores torch's global generator
            return lpips_network(trunk, weights, where="metric lpips", otherwise=_OTHERWISE)

    def per_image(self, step: Evaluation) -> Tensor:
        with full_precision(step.images.device):
            return self.network(step.images, step.batch.images).flatten()
