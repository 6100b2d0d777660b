"""The InceptionV3 of 2015-12-05 that published FIDs use, from torch-fidelity."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from einops import rearrange
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.features import Features
from robustok_core.runs.weights import not_finite
from robustok_core.values.download import Download, local_file, named_path
from robustok_core.values.draws import seeded
from robustok_metrics.frozen import FrozenFeatures, rounded
from robustok_toolkit.downloads import torch_file
from robustok_toolkit.weight_files import read_weights

#: Prefix of the published file's SHA-256; torch-fidelity and pytorch-fid publish the same bytes.
SHA256_BEGINS = "6726825d"
INPUT_SIZE = 299
_INSTEAD = 'set weights = "FILE" to a local copy, or use the features efficientnet_lite0'

#: The layers in order; those in _MAPS are returned as maps.
_LAYERS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)
_MAPS = ("MaxPool_1", "MaxPool_2", "Mixed_5d", "Mixed_6e", "Mixed_7c")


@frozen(kw_only=True)
class InceptionConfig:
    """The weights."""

    weights: str | None = field(
        default=None,
        metadata={"doc": "local weights-inception-2015-12-05-6726825d.pth; downloaded once if not given"},
    )


class Inception(FrozenFeatures):
    """The 2048 averages of the last layer ("pool_3"), and the class scores for the Inception Score.

    Images are rounded to 8 bits (straight-through for the gradient) and resized as in TensorFlow 1.
    `name` is "inception" only if the weight file is identical to the published one: only then may a
    Fréchet distance be called FID. With other weights it is "inception_other".
    """

    Config = InceptionConfig
    name = "inception"
    width = 2048
    num_logits = 1008
    net: Any
    preparation = "rounded to 8 bits; TensorFlow 1 bilinear to 299x299; (x - 128) / 128"

    def __init__(self, config: InceptionConfig) -> None:
        super().__init__()
        file = Path(_published().place if config.weights is None else config.weights).expanduser()
        if torch.empty(0).is_meta:  # only shapes and the name are asked for
            self.net = _without_weights()
            named = config.weights is not None and file.is_file()
        else:
            for download in self.downloads(config):
                download.get("features inception")
            self.net, named = _network(file), True
        if named and not is_published(file):
            self.name = f"{self.name}_other"
        self.freeze()

    @classmethod
    def downloads(cls, config: InceptionConfig) -> Iterable[Download]:
        if config.weights is None:
            return [_published()]
        local_file(config.weights, hint=_INSTEAD)
        return ()

    @classmethod
    def files(cls, config: InceptionConfig) -> Iterable[Path]:
        return named_path(config.weights)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 2048) pooled features of images (B, 3, H, W) in [-1, 1]."""
        return self.maps(images)[-1].mean(dim=(2, 3))

    def maps(self, images: Tensor) -> list[Tensor]:
        """Maps of 64, 192, 288, 768 and 2048 channels at 73, 35, 35, 17 and 8 pixels."""
        x = prepare(images)
        maps = []
        for layer in _LAYERS:
            x = self.net.get_submodule(layer)(x)
            if layer in _MAPS:
                maps.append(x)
        return maps

    def logits(self, pooled: Tensor) -> Tensor:
        """(B, 1008) class scores of pooled features (B, 2048), without the bias, as in the Inception Score."""
        return pooled @ self.net.fc.weight.T


class InceptionSpatial(Inception):
    """2,023 numbers that keep where they are: 7 channels at 17 x 17 positions, for sFID (Nash et al. 2021).

    As in ADM's evaluator, these are the first channels of "mixed_6/conv", in the order height, width, channel. Its
    name is "inception_spatial", with other weights than the published ones "inception_spatial_other".
    """

    name = "inception_spatial"
    width = 7 * 17 * 17
    num_logits = 0

    def forward(self, images: Tensor) -> Tensor:
        """(B, 2023) spatial features of images (B, 3, H, W) in [-1, 1]."""
        x = prepare(images)
        for layer in _LAYERS[: _LAYERS.index("Mixed_6d")]:
            x = self.net.get_submodule(layer)(x)
        return rearrange(self.net.Mixed_6d.branch1x1(x)[:, :7], "b c h w -> b (h w c)")

    def logits(self, pooled: Tensor) -> Tensor:
        """Raises: the classifier reads other features."""
        return Features.logits(self, pooled)


def prepare(images: Tensor) -> Tensor:
    """(B, 3, 299, 299) in about [-1, 1) of images (B, 3, H, W) in [-1, 1]."""
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    pixels = rounded((images.float().clamp(-1, 1) + 1) * 127.5)
    resized = interpolate_bilinear_2d_like_tensorflow1x(pixels, size=(INPUT_SIZE, INPUT_SIZE), align_corners=False)
    return (resized - 128) / 128


def is_published(file: Path) -> bool:
    """Whether a file has the published one's hash."""
    return hashlib.sha256(file.read_bytes()).hexdigest().startswith(SHA256_BEGINS)


def _network(file: Path) -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    weights = read_weights(file).weights  # refuses files that contain code; torch-fidelity does not check
    if broken := not_finite(weights, weights):
        raise RobustokError(f"weights are NaN or infinite: {broken}", where=str(file), hint="download it again")
    try:
        with seeded("inception"):
            return FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(file))
    except RuntimeError as error:
        raise RobustokError(
            "this file does not hold the weights of torch-fidelity's InceptionV3",
            where=str(file),
            hint="the published file is weights-inception-2015-12-05-6726825d.pth of its release v0.2.0",
        ) from error


def _without_weights() -> nn.Module:
    """The network as it is built, on the default device."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Unloaded(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: Any, **__: Any) -> None:
            """Keeps what it has."""

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    return Unloaded("inception", ["2048"], feature_extractor_weights_path=nothing)


def _published() -> Download:
    """The published file, in torch's hub folder."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    what = "the weights of Inception"
    return torch_file(URL_INCEPTION_V3, what=what, instead=_INSTEAD, hash_begins=SHA256_BEGINS)
