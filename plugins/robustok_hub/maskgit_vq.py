"""MaskGIT's VQGAN as 1d-tokenizer publishes it (maskgit-vqgan-imagenet-f16-256.bin), for `maskgit_vq`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_hub.conv_files import ConvFileConfig, level_weights, multipliers
from robustok_hub.discriminators import TokenizerImporter
from robustok_hub.published_names import (
    build_with,
    count_numbered,
    read_published,
    require,
    to_ours,
    to_published,
    vq_table,
)
from robustok_hub.vq_files import CODEBOOK, start_usage, without_usage

NAMES = [CODEBOOK, ("decoder.", "pixel_decoder.")]
_TELLING = {
    "encoder.conv_in.weight": 4,
    "encoder.down.0.block.0.conv1.weight": 4,
    "encoder.mid.0.conv1.weight": 4,
    "encoder.conv_out.weight": 4,
    "decoder.up.0.block.0.conv1.weight": 4,
    CODEBOOK[0]: 2,
}


class MaskGITVQImporter(TokenizerImporter):
    """Reads MaskGIT's VQGAN."""

    Config = ConvFileConfig

    def __init__(self, config: ConvFileConfig) -> None:
        self.config = config

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_published(path)
        require(published, _TELLING, "maskgit_vq", str(path))
        weights = {to_ours(name, NAMES): value for name, value in published.items()}
        start_usage(weights)
        table, tokenizer = build_with(registry, self._table(weights), weights, NAMES, str(path))
        return table, tokenizer, report

    def _table(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        channels = len(weights["encoder.conv_in.weight"])
        levels = level_weights(weights, "encoder.down.", ".block.0.conv1.weight")
        return {
            "use": "maskgit_vq",
            "image_size": self.config.image_size,
            "channels": channels,
            "channel_multipliers": multipliers(levels, channels),
            "num_res_blocks": count_numbered(weights, "encoder.mid."),
            "norm_groups": self.config.norm_groups,
            "quantizer": vq_table(weights, l2_normalise=False),
        }

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `maskgit_vq` with a `vq` that does not normalise, under the published names."""
        weights = component.state_dict()
        normalised = getattr(getattr(getattr(component, "quantizer", None), "config", None), "l2_normalise", None)
        if "pixel_decoder.up.0.block.0.conv1.weight" not in weights or normalised is not False:
            raise RobustokError(
                "the published MaskGIT format holds only maskgit_vq tokenizers with a vq quantizer, "
                "l2_normalise = false"
            )
        return {to_published(name, NAMES): value for name, value in without_usage(weights).items()}
