"""LlamaGen's tokenizers (vq_ds16_c2i.pt, vq_ds8_c2i.pt, vq_ds16_t2i.pt), for `conv_vq`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_hub.conv_files import ConvFileConfig, level_weights, multiplier_options
from robustok_hub.discriminators import TokenizerImporter
from robustok_hub.published_names import (
    build_with,
    count_numbered,
    l2_normalise_field,
    read_published,
    require,
    to_ours,
    to_published,
    vq_table,
)
from robustok_hub.vq_files import CODEBOOK, start_usage, without_usage

#: A buffer of the codes of the last tokens, from which LlamaGen counts how many are in use, and its length.
_WINDOW, _WINDOW_LENGTH = "quantize.codebook_used", 65536
NAMES = [CODEBOOK, ("decoder.", "pixel_decoder.")]
_TELLING = {
    "encoder.conv_in.weight": 4,
    "encoder.conv_blocks.0.res.0.conv1.weight": 4,
    "encoder.conv_out.weight": 4,
    "quantize.embedding.weight": 2,
}


@frozen(kw_only=True)
class LlamaGenVQConfig(ConvFileConfig):
    """Options that do not follow from the shapes of the weights."""

    l2_normalise: bool = l2_normalise_field()
    usage_window: bool = field(
        default=False,
        metadata={
            "doc": f"export {_WINDOW}, as empty as before training: LlamaGen's code loads no file without it, unless "
            "its codebook_show_usage is false; imports ignore it"
        },
    )


class LlamaGenVQ(TokenizerImporter):
    """Reads a LlamaGen tokenizer."""

    Config = LlamaGenVQConfig

    def __init__(self, config: LlamaGenVQConfig) -> None:
        self.config = config

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_published(path)
        require(published, _TELLING, "llamagen_vq", str(path))
        weights = {to_ours(name, NAMES): value for name, value in published.items()}
        if weights.pop(_WINDOW, None) is not None:
            report[_WINDOW] = "dropped: a window of recent codes, still with initial zeros"
        start_usage(weights)
        table, tokenizer = build_with(registry, self._table(weights), weights, NAMES, str(path))
        return table, tokenizer, report

    def _table(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        channels = len(weights["encoder.conv_in.weight"])
        encoder = level_weights(weights, "encoder.conv_blocks.", ".res.0.conv1.weight")
        decoder = level_weights(weights, "pixel_decoder.conv_blocks.", ".res.0.conv1.weight")[::-1]
        return {
            "use": "conv_vq",
            "image_size": self.config.image_size,
            "channels": channels,
            **multiplier_options(encoder, decoder, channels),
            "num_res_blocks": count_numbered(weights, "encoder.conv_blocks.0.res."),
            "norm_groups": self.config.norm_groups,
            "z_channels": len(weights["encoder.conv_out.weight"]),
            "quantizer": vq_table(weights, l2_normalise=self.config.l2_normalise),
        }

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `conv_vq` with a `vq` under the published names."""
        weights, config = component.state_dict(), getattr(component, "config", None)
        conv_in, middle = weights.get("encoder.conv_in.weight"), "encoder.mid.1.q.weight"
        whole = conv_in is not None and conv_in.shape[1] == 3 and {middle, "quantizer.usage"} <= weights.keys()
        coarsest = count_numbered(weights, "encoder.conv_blocks.") - 1
        if not whole or getattr(config, "attention_levels", None) not in (None, (coarsest,)):
            raise RobustokError(
                "the published LlamaGen format holds only conv_vq tokenizers with a vq quantizer, "
                "stem_patch 1, middle, and attention at the coarsest level"
            )
        window = {_WINDOW: torch.zeros(_WINDOW_LENGTH)} if self.config.usage_window else {}
        return {to_published(name, NAMES): value for name, value in without_usage(weights).items()} | window
