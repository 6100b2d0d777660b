"""l-DeTok's tokenizers (detok-BB-gamm3.0-m0.7.pth and its decoder_tuned twin), for `vit_kl` in its style "detok"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_hub.discriminators import TokenizerImporter
from robustok_hub.latent_token_vits import STACK_HEADS_LEFT_OUT, stack_table
from robustok_hub.published_names import (
    build_with,
    heads_field,
    read_published,
    require,
    to_ours,
    to_published,
)
from robustok_hub.vq_files import as_convolution, as_linear

NAMES = [
    ("encoder.positional_embedding", "encoder.pos_embed"),
    ("encoder.patch_embed.0.", "encoder.patch_embed."),
    ("encoder.ln_pre.", "encoder.norm_in."),
    ("encoder.transformer.", "encoder.blocks."),
    ("encoder.ln_post.", "encoder.norm_out."),
    ("encoder.latent_head.", "encoder.to_moments."),
    ("decoder.positional_embedding", "pixel_decoder.pos_embed"),
    ("decoder.decoder_embed.", "pixel_decoder.from_latents."),
    ("decoder.ln_pre.", "pixel_decoder.norm_in."),
    ("decoder.transformer.", "pixel_decoder.blocks."),
    ("decoder.ln_post.", "pixel_decoder.norm_out."),
    ("decoder.ffn.1.", "pixel_decoder.to_pixels."),
    ("decoder.conv_out.", "pixel_decoder.smooth."),
    ("decoder.mask_token", "mask_token"),
]
_TELLING = {
    "encoder.positional_embedding": 3,
    "encoder.patch_embed.0.weight": 4,
    "encoder.latent_head.weight": 2,
    "encoder.transformer.0.mlp.w12.weight": 2,
    "decoder.positional_embedding": 3,
    "decoder.decoder_embed.weight": 2,
    "decoder.mask_token": 3,
}
_AS_CONVOLUTION = ("pixel_decoder.to_pixels.weight",)


@frozen(kw_only=True)
class LDeTokImporterConfig:
    """Options that do not follow from the weights."""

    encoder_num_heads: int | None = heads_field(STACK_HEADS_LEFT_OUT)
    decoder_num_heads: int | None = heads_field(STACK_HEADS_LEFT_OUT)


class LDeTokImporter(TokenizerImporter):
    """Reads an l-DeTok tokenizer: the averaged weights if the file has them.

    Latents are not normalised: generators of ours measure their mean and deviation.
    """

    Config = LDeTokImporterConfig

    def __init__(self, config: LDeTokImporterConfig) -> None:
        self.config = config

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_published(path)
        require(published, _TELLING, "ldetok", str(path))
        weights = {to_ours(name, NAMES): value for name, value in published.items()}
        as_linear(weights, _AS_CONVOLUTION)
        table, tokenizer = build_with(registry, self._table(weights), weights, NAMES, str(path))
        report["statistics"] = (
            "not in the file: the mean and deviation of latents by which its generators normalise them"
        )
        return table, tokenizer, report

    def _table(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        patch_size = weights["encoder.patch_embed.weight"].shape[-1]
        return {
            "use": "vit_kl",
            "style": "detok",
            "image_size": max(1, math.isqrt(weights["encoder.pos_embed"].shape[1])) * patch_size,
            "patch_size": patch_size,
            "latent_width": weights["pixel_decoder.from_latents.weight"].shape[1],
            "encoder": _stack(weights, "encoder", self.config.encoder_num_heads),
            "decoder": _stack(weights, "pixel_decoder", self.config.decoder_num_heads),
        }

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `vit_kl` in the style "detok" under the published names."""
        weights = component.state_dict()
        if not {"encoder.to_moments.weight", "mask_token"} <= weights.keys():
            raise RobustokError('the published l-DeTok format holds only vit_kl tokenizers of the style "detok"')
        as_convolution(weights, _AS_CONVOLUTION)
        return {to_published(name, NAMES): value for name, value in weights.items()}


def _stack(weights: Mapping[str, Tensor], network: str, num_heads: int | None) -> dict[str, int]:
    return stack_table(weights, f"{network}.blocks.", weights[f"{network}.pos_embed"].shape[2], num_heads)
