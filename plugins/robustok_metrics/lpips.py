"""Metric `lpips`: learned perceptual distance (Zhang et al. 2018) through the `lpips` package."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_blocks.full_precision import full_precision
from robustok_core.errors import RobustokError
from robustok_core.kinds.metric import Evaluation, EvaluationContext
from robustok_core.values.draws import seeded
from robustok_toolkit.mean_of_images import MeanOfImages
from robustok_toolkit.weight_files import read_weights

_FILES = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}


@frozen(kw_only=True)
class LPIPSConfig:
    """Which network, and where its weights are."""

    network: Literal["vgg", "alex"] = field(
        default="vgg",
        validator=validators.in_(("vgg", "alex")),
        metadata={"doc": "the network under the learned weights; losses use vgg, many papers report alex"},
    )
    weights: str | None = field(
        default=None, metadata={"doc": "a file of torchvision's weights of that network; left out: downloaded once"}
    )


class LPIPS(MeanOfImages):
    """Mean over the images, lower is better. The result is `lpips_vgg` or `lpips_alex`."""

    Config = LPIPSConfig
    higher_is_better = False

    def __init__(self, config: LPIPSConfig) -> None:
        super().__init__(config)
        self.name = f"lpips_{config.network}"  # type: ignore[misc]

    def start(self, context: EvaluationContext) -> None:
        super().start(context)
        self.network = lpips_network(self.config).to(context.device)

    def per_image(self, step: Evaluation) -> Tensor:
        with full_precision(step.images.device):
            return self.network(step.images, step.batch.images).flatten()


def lpips_network(config: LPIPSConfig) -> nn.Module:
    """LPIPS in eval mode: (B, 1, 1, 1) distances of images (B, 3, H, W) in [-1, 1].

    Raises:
        RobustokError: where the weights cannot be had, or the file holds others.
    """
    if config.weights is None:
        network = _downloaded(config)
    else:
        network = _lpips(config.network, random_trunk=True)
        _load_trunk(network.net, Path(config.weights).expanduser(), config.network)
    return network.eval().requires_grad_(False)


def _downloaded(config: LPIPSConfig) -> Any:
    try:
        return _lpips(config.network, random_trunk=False)
    except OSError as error:
        raise RobustokError(
            f"the weights of LPIPS cannot be downloaded: {error}",
            where="metric lpips",
            hint=f'set weights = "FILE" to a local {_FILES[config.network]}, or leave the metric out',
        ) from error


def _lpips(network: str, *, random_trunk: bool) -> Any:
    import lpips

    with seeded("lpips", network), warnings.catch_warnings():
        # lpips calls torchvision in its older way
        warnings.filterwarnings("ignore", message=".*deprecated since 0.13", category=UserWarning)
        return lpips.LPIPS(net=network, pnet_rand=random_trunk, verbose=False)


def _load_trunk(trunk: nn.Module, file: Path, network: str) -> None:
    state = read_weights(file).weights
    names = {name: f"features.{name.partition('.')[2]}" for name in trunk.state_dict()}  # "slice1.0.weight"
    try:
        trunk.load_state_dict({name: state[key] for name, key in names.items()})
    except (KeyError, RuntimeError) as error:
        raise RobustokError(
            f"this file does not hold the weights of {network}", where=str(file), hint=f"it should be {_FILES[network]}"
        ) from error
