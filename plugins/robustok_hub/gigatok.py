"""GigaTok's tokenizers (VQ_SS256_e100.pt, VQ_SB256_e200.pt, VQ_BL256_e200.pt, VQ_XLXXL256_e300.pt), for `gigatok`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.recipe.validators import depth_range, width_range
from robustok_hub.conv_files import level_weights, multiplier_options
from robustok_hub.discriminators import TokenizerImporter
from robustok_hub.latent_token_vits import stack_table
from robustok_hub.published_names import (
    NameRules,
    build_with,
    count_numbered,
    heads_field,
    l2_normalise_field,
    read_published,
    require,
    to_ours,
    to_published,
    vq_table,
)
from robustok_hub.vq_files import CODEBOOK, as_convolution, as_linear, start_usage, without_usage

_TELLING = {
    "encoder.conv_in.weight": 4,
    "encoder.conv_out.weight": 4,
    "s2to1encoder.encoder_embed.weight": 2,
    "s2to1encoder.positional_embedding": 3,
    "s2to1encoder.latent_token_positional_embedding": 3,
    "s1to2decoder.decoder_embed.weight": 2,
    "decoder.conv_in.weight": 4,
    "quantize.embedding.weight": 2,
}
_MLP = {"s1to2decoder.distill_mlp.4.weight": 2}
#: The weight of a level whose rows are the level's channels.
_FIRST = ".res.0.conv1.weight"
_AS_CONVOLUTION = ("map_encoder.conv_out.weight", "quant_conv.weight", "post_quant_conv.weight")
#: Published with an axis for the batch, which is the second.
_POSITIONS = tuple(
    f"{network}.{name}"
    for network in ("map_encoder", "map_decoder")
    for name in ("positional_embedding", "latent_token_positional_embedding")
)


def _names(weights: Mapping[str, Tensor]) -> NameRules:
    """The rules from published names to ours, for weights by either."""
    networks = (("s2to1encoder", "map_encoder"), ("s1to2decoder", "map_decoder"))
    attention = [
        (f"{theirs}.transformer.{i}.{part}.in_proj_", f"{ours}.transformer.{i}.{part}.in_proj.")
        for theirs, ours in networks
        for i in range(max(count_numbered(weights, f"{name}.transformer.") for name in (theirs, ours)))
        for part in ("self_attn", "multihead_attn")
    ]
    return [
        *attention,
        CODEBOOK,
        ("encoder.mid.1.", "encoder.mid.2."),  # ours has a place for attention between the two blocks
        ("s1to2decoder.distill_mlp.", "semantic_mlp."),
        *((f"{theirs}.", f"{ours}.") for theirs, ours in networks),
        ("decoder.", "pixel_decoder."),
    ]


@frozen(kw_only=True)
class GigaTokImporterConfig:
    """Options that do not follow from the weights."""

    encoder_num_heads: int | None = heads_field("one for every 64 of the width of the transformer behind the encoder")
    decoder_num_heads: int | None = heads_field("one for every 64 of the width of the transformer before the decoder")
    norm_groups: int = field(default=32, validator=width_range, metadata={"doc": "groups of the GroupNorms"})
    semantic_depth: int = field(
        default=3,
        validator=depth_range,
        metadata={"doc": "distill_depth: layers of the decoder before the MLP that predicts features"},
    )
    l2_normalise: bool = l2_normalise_field()


class GigaTokImporter(TokenizerImporter):
    """Reads a GigaTok tokenizer: the averaged weights if the file has them. Its semantic MLP is kept, not trained."""

    Config = GigaTokImporterConfig

    def __init__(self, config: GigaTokImporterConfig) -> None:
        self.config = config

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_published(path)
        require(published, _TELLING, "gigatok", str(path), _MLP)
        if published.pop("quantize.codebook_used", None) is not None:
            report["quantize.codebook_used"] = "dropped: a window of recent codes"
        names = _names(published)
        weights = {to_ours(name, names): value for name, value in published.items()}
        as_linear(weights, _AS_CONVOLUTION)
        for name in _POSITIONS:
            if name in weights and weights[name].ndim == 3 and weights[name].shape[1] == 1:
                weights[name] = weights[name][:, 0]
        start_usage(weights)
        table, tokenizer = build_with(registry, self._table(weights), weights, names, str(path))
        return table, tokenizer, report

    def _table(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        channels = len(weights["encoder.conv_in.weight"])
        encoder = level_weights(weights, "encoder.conv_blocks.", _FIRST)
        decoder = level_weights(weights, "pixel_decoder.conv_blocks.", _FIRST)[::-1]
        side = math.isqrt(len(weights["map_encoder.positional_embedding"]))
        table = {
            "use": "gigatok",
            "image_size": max(1, side) * 2 ** (max(1, len(encoder)) - 1),
            "channels": channels,
            **multiplier_options(encoder, decoder, channels),
            "num_res_blocks": max(1, count_numbered(weights, "encoder.conv_blocks.0.res.")),
            "norm_groups": self.config.norm_groups,
            "z_channels": len(weights["encoder.conv_out.weight"]),
            "num_latent_tokens": len(weights["map_encoder.latent_token_positional_embedding"]),
            "encoder": _size(weights, "map_encoder", "encoder_embed", self.config.encoder_num_heads),
            "decoder": _size(weights, "map_decoder", "decoder_embed", self.config.decoder_num_heads),
            "quantizer": vq_table(weights, l2_normalise=self.config.l2_normalise),
        }
        mlp = weights.get("semantic_mlp.4.weight")
        if mlp is not None:
            depth = min(self.config.semantic_depth, table["decoder"]["depth"])
            table["semantic"] = {"outputs": len(mlp), "depth": depth}
        return table

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `gigatok` with a `vq` under the published names."""
        weights = component.state_dict()
        if not {"map_decoder.decoder_embed.weight", "quantizer.usage"} <= weights.keys():
            raise RobustokError("the published GigaTok format holds only gigatok tokenizers with a vq quantizer")
        weights = without_usage(weights)
        as_convolution(weights, _AS_CONVOLUTION)
        for name in _POSITIONS:
            weights[name] = weights[name][:, None]
        names = _names(weights)
        return {to_published(name, names): value for name, value in weights.items()}


def _size(weights: Mapping[str, Tensor], network: str, embedding: str, num_heads: int | None) -> dict[str, int]:
    """The table of a transformer's size; `network` and `embedding` are our names."""
    width = len(weights[f"{network}.{embedding}.weight"])
    return stack_table(weights, f"{network}.transformer.", width, num_heads)
