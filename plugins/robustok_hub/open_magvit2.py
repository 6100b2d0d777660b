"""The tokenizers of Open-MAGVIT2 (TencentARC/Open-MAGVIT2-Tokenizer-...: imagenet_256_L.ckpt), for `open_magvit2`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_hub.conv_files import ConvFileConfig, level_weights, multipliers, read_networks
from robustok_hub.discriminators import TokenizerImporter
from robustok_hub.published_config import PublishedConfig, ReadsConfig
from robustok_hub.published_names import build_with, count_numbered, to_ours, to_published

NAMES = [("decoder.", "pixel_decoder.")]
_STYLE = "decoder.adaptive.0.gamma.weight"
_TELLING = {
    "encoder.conv_in.weight": 4,
    "encoder.down.0.block.0.conv1.weight": 4,
    "encoder.mid_block.0.conv1.weight": 4,
    "encoder.conv_out.weight": 4,
    _STYLE: 2,
}


class OpenMAGVIT2Importer(ReadsConfig, TokenizerImporter):
    """Reads an Open-MAGVIT2 tokenizer: the averaged weights if the file has them, as in the published numbers.

    Its quantizer has no weights: a code's bits are the signs of the encoder's output. The resolution in a published
    configuration is not that of its images, so it is not read.
    """

    Config = ConvFileConfig

    def __init__(self, config: ConvFileConfig) -> None:
        self.config = config

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_networks(path, "open_magvit2", _TELLING)
        table = self._table(published)
        PublishedConfig.beside(path).must_agree(_published_sizes(table))
        weights = {to_ours(name, NAMES): value for name, value in published.items()}
        full_table, tokenizer = build_with(registry, table, weights, NAMES, str(path), brings=("quantizer.",))
        return full_table, tokenizer, report

    def _table(self, published: Mapping[str, Tensor]) -> dict[str, Any]:
        channels = len(published["encoder.conv_in.weight"])
        levels = level_weights(published, "encoder.down.", ".block.0.conv1.weight")
        return {
            "use": "open_magvit2",
            "image_size": self.config.image_size,
            "channels": channels,
            "channel_multipliers": multipliers(levels, channels),
            "num_res_blocks": count_numbered(published, "encoder.down.0.block."),
            "norm_groups": self.config.norm_groups,
            "quantizer": {"use": "lfq", "width": len(published["encoder.conv_out.weight"]), "lowest_bit_first": True},
        }

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of an `open_magvit2` with an `lfq` of the published order of bits, under the published names."""
        weights, options = component.state_dict(), getattr(getattr(component, "quantizer", None), "config", None)
        in_order = getattr(options, "lowest_bit_first", False) and not getattr(options, "spherical", True)
        if to_ours(_STYLE, NAMES) not in weights or not in_order:
            raise RobustokError(
                "the published Open-MAGVIT2 format holds only open_magvit2 tokenizers with an lfq quantizer, "
                "lowest_bit_first = true"
            )
        published = {name: value for name, value in weights.items() if not name.startswith("quantizer.")}
        return {to_published(name, NAMES): value for name, value in published.items()}


def _published_sizes(table: Mapping[str, Any]) -> dict[str, int | list[int]]:
    """The sizes of a tokenizer by their names in a published configuration."""
    width = table["quantizer"]["width"]
    return {
        "ch": table["channels"],
        "ch_mult": table["channel_multipliers"],
        "num_res_blocks": table["num_res_blocks"],
        "z_channels": width,
        "embed_dim": width,
        "n_embed": 2**width,
    }
