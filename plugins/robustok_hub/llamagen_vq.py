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
from robustok_core.kinds.importer import Importer
from robustok_core.recipe.validators import side_range, width_range
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

NAMES = [("quantize.embedding.weight", "quantizer.embedding"), ("decoder.", "pixel_decoder.")]
_TELLING = (
    "encoder.conv_in.weight",
    "encoder.conv_blocks.0.res.0.conv1.weight",
    "encoder.conv_out.weight",
    "quantize.embedding.weight",
)


@frozen(kw_only=True)
class LlamaGenVQConfig:
    """Options that do not follow from the shapes of the weights."""

    image_size: int = field(
        default=256, validator=side_range, metadata={"doc": "height and width of the images, in pixels"}
    )
    norm_groups: int = field(default=32, validator=width_range, metadata={"doc": "groups of the GroupNorms"})
    l2_normalise: bool = l2_normalise_field()


class LlamaGenVQ(Importer):
    """Reads a LlamaGen tokenizer."""

    Config = LlamaGenVQConfig
    makes = "tokenizer"

    def __init__(self, config: LlamaGenVQConfig) -> None:
        self.config = config

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_published(path)
        require(published, _TELLING, "LlamaGen tokenizer", str(path))
        weights = {to_ours(name, NAMES): value for name, value in published.items()}
        if weights.pop("quantize.codebook_used", None) is not None:
            report["quantize.codebook_used"] = "dropped: a window of recent codes, still with initial zeros"
        weights["quantizer.usage"] = torch.zeros(len(weights["quantizer.embedding"]))
        weights["quantizer.steps"] = torch.tensor(0)
        table, tokenizer = build_with(registry, self._table(weights), weights, NAMES, str(path))
        return table, tokenizer, report

    def _table(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        channels = len(weights["encoder.conv_in.weight"])
        first_convolutions = [
            weights.get(f"encoder.conv_blocks.{level}.res.0.conv1.weight", torch.empty(channels))
            for level in range(count_numbered(weights, "encoder.conv_blocks."))
        ]
        return {
            "use": "conv_vq",
            "image_size": self.config.image_size,
            "channels": channels,
            "channel_multipliers": [max(1, len(weight) // channels) for weight in first_convolutions],
            "num_res_blocks": count_numbered(weights, "encoder.conv_blocks.0.res."),
            "norm_groups": self.config.norm_groups,
            "z_channels": len(weights["encoder.conv_out.weight"]),
            "quantizer": vq_table(weights, l2_normalise=self.config.l2_normalise),
        }

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `conv_vq` with a `vq` under the published names."""
        weights = component.state_dict()
        conv_in, middle = weights.get("encoder.conv_in.weight"), "encoder.mid.1.q.weight"
        if conv_in is None or conv_in.shape[1] != 3 or middle not in weights or "quantizer.usage" not in weights:
            raise RobustokError(
                "the published LlamaGen format holds only conv_vq tokenizers with a vq quantizer, "
                "stem_patch 1, middle and attention"
            )
        not_published = [name for name in weights if name.startswith("quantizer.") and name != "quantizer.embedding"]
        return {to_published(name, NAMES): value for name, value in weights.items() if name not in not_published}
