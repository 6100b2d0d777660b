"""Features of any image network of timm with published weights: ConvNeXt, DINOv2, MAE, CLIP, SigLIP, ..."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.recipe.validators import LARGEST_SIDE, in_range
from robustok_core.values.download import Download, named_path
from robustok_core.values.wording import reason_of
from robustok_metrics.frozen import FrozenFeatures
from robustok_toolkit.timm_networks import WEIGHTS_DOC, timm_downloads, timm_network

_NUM_MAPS = 4
_OTHERS = "use a VisionTransformer or Eva of timm, or a network whose maps have the channels first"


class FrozenTimm(FrozenFeatures):
    """A timm network, whose images are resized (bicubic) and normalised as it was trained.

    Pooled features are those of a Fréchet distance in arXiv 2604.28190: the class token after the last norm, without
    one what the attention pools, else the mean over positions.

    Args:
        name: for metric keys; "_random" or "_other" is appended if the weights are not the published ones.
        architecture: timm's name, with the tag of its weights.
        weights: "pretrained", "random", or a file.
        image_size: side, in pixels, that images are resized to; None for the network's own.
        options: further ones of `timm.create_model`.
    """

    #: How images become squares; part of `preparation`.
    resizing = "bicubic, antialiased"

    def __init__(self, name: str, architecture: str, weights: str, image_size: int | None, **options: Any) -> None:
        super().__init__()
        published = _published(architecture)
        self.name = name + {"pretrained": "", "random": "_random"}.get(weights, "_other")
        self.mean, self.std = published.mean, published.std
        self._own_size: int = published.input_size[-1]
        self.image_size = image_size or self._own_size
        self.net = timm_network(architecture, weights, None, "features", **_sizes(architecture), **options)
        self.width = self.net.num_features
        self.freeze()

    @classmethod
    def files(cls, config: Any) -> Iterable[Path]:
        return named_path(config.weights, "pretrained", "random")

    @property
    def preparation(self) -> str:
        return f"to {self.image_size}x{self.image_size}, {self.resizing}; mean {self.mean}, deviation {self.std}"

    def forward(self, images: Tensor) -> Tensor:
        """(B, F) pooled features of images (B, 3, H, W) in [-1, 1].

        Raises:
            RobustokError: if it gives neither maps nor tokens of which it is known how they are pooled, or not at this
                size.
        """
        prepared = self._prepare(images)
        try:
            features = self.net.forward_features(prepared)
        except NotImplementedError:  # of an operation that needs the values of images
            raise
        except Exception as error:
            if prepared.is_meta or isinstance(error, AssertionError):  # without values, the shape is what can be wrong
                what = f"it does not take {self.image_size} pixels: {reason_of(error)}"
                own = "leave image_size out" if self.image_size != self._own_size else _OTHERS
                raise self._refusal(what, own) from error
            raise
        return self._pooled(features)

    def _pooled(self, features: Any) -> Tensor:
        if not isinstance(features, Tensor) or features.ndim not in (3, 4):
            raise self._refusal("it gives neither maps nor tokens")
        if features.ndim == 4:  # (B, F, h, w)
            if features.shape[1] != self.width:
                raise self._refusal(f"its maps are {tuple(features.shape[1:])}, with the channels last")
            return features.mean(dim=(2, 3))
        if getattr(self.net, "num_prefix_tokens", 0):  # (B, 1 + h*w, F)
            return features[:, 0]
        if not hasattr(self.net, "attn_pool"):
            raise self._refusal("it is not known which of its tokens are pooled")
        pooled: Tensor = features.mean(dim=1) if self.net.attn_pool is None else self.net.attn_pool(features)
        return pooled

    def _refusal(self, reason: str, hint: str = _OTHERS) -> RobustokError:
        return RobustokError(f"{self.name} cannot be a feature network: {reason}", hint=hint)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The last four maps (B, C, h, w): of blocks of a transformer, of stages of a convolutional network."""
        prepared = self._prepare(images)
        maps: list[Tensor] = self.net.forward_intermediates(prepared, indices=_NUM_MAPS, intermediates_only=True)
        return maps

    def _prepare(self, images: Tensor) -> Tensor:
        x = self._resized(images)
        return (x - x.new_tensor(self.mean)[:, None, None]) / x.new_tensor(self.std)[:, None, None]

    def _resized(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) about in [0, 1], as `resizing` says."""
        size = (self.image_size, self.image_size)
        x = (images + 1) / 2
        return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bicubic", antialias=True)


@frozen(kw_only=True)
class TimmConfig:
    """The network, its weights and the input size."""

    network: str = field(
        validator=validators.min_len(1),
        metadata={"doc": "timm's name with the tag of its weights, such as convnextv2_base.fcmae_ft_in22k_in1k"},
    )
    weights: str = field(default="pretrained", metadata={"doc": WEIGHTS_DOC})
    image_size: int | None = field(
        default=None,
        validator=validators.optional(in_range(32, LARGEST_SIDE)),
        metadata={"doc": "side, in pixels, that images are resized to; default: the network's own"},
    )


class TimmFeatures(FrozenTimm):
    """Any network of timm that returns maps (C, h, w), or is a VisionTransformer or Eva.

    Results are named after the network.

    A side that is not a whole number of patches is padded.
    """

    Config = TimmConfig

    def __init__(self, config: TimmConfig) -> None:
        size = "" if config.image_size is None else f"_at_{config.image_size}"
        name = re.sub(r"[^A-Za-z0-9]+", "_", config.network) + size
        super().__init__(name, config.network, config.weights, config.image_size)

    @classmethod
    def downloads(cls, config: TimmConfig) -> Iterable[Download]:
        published = _published(config.network)
        if config.weights == "pretrained" and not published.has_weights:
            what = f"timm has no weights of a network {config.network!r}"
            raise RobustokError(what, where="features timm", hint='set weights = "FILE"')
        return timm_downloads(config.network, config.weights)


def _published(architecture: str) -> Any:
    """What timm knows of a network and its weights.

    Raises:
        RobustokError: it does not know the network or the tag of the weights.
    """
    from timm.models import get_pretrained_cfg, list_pretrained

    try:
        return get_pretrained_cfg(architecture, allow_unregistered=False)
    except RuntimeError as error:
        near = list_pretrained(f"*{_without_tag(architecture)}*")[:3]
        hint = f"such as {', '.join(near)}" if near else "`timm.list_pretrained()` lists what it has"
        what = f"timm has no weights of a network {architecture!r}"
        raise RobustokError(what, where="features timm", hint=hint) from error


def _without_tag(architecture: str) -> str:
    return architecture.split(".", maxsplit=1)[0]


def _sizes(architecture: str) -> dict[str, bool]:
    """Options with which a transformer takes images of any size; others take them anyway."""
    from timm.models import is_model_in_modules

    dynamic = is_model_in_modules(_without_tag(architecture), {"vision_transformer"})
    return {"dynamic_img_size": True, "dynamic_img_pad": True} if dynamic else {}
