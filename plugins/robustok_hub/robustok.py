"""RobusTok's tokenizers (main-train.pt, post-train.pt) and XQGAN's (XQGAN-4096.pt, XQGAN-8192.pt), for `vit_vq`.

XQGAN (Li et al. 2024, arXiv 2412.01762) has the same networks and was trained without the perturbation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_hub.discriminators import TokenizerImporter
from robustok_hub.latent_token_vits import HEADS_LEFT_OUT, TRUNK, size_table
from robustok_hub.published_names import (
    build_with,
    drop_parts,
    heads_field,
    l2_normalise_field,
    read_published,
    require,
    to_ours,
    to_published,
    vq_table,
)

NAMES = [
    ("quantize.embedding.weight", "quantizer.embedding"),
    ("quantize.ema_vocab_hit_SV", "quantizer.usage"),
    ("encoder.model.patch_embed.proj.", "encoder.patch_embed."),
    ("encoder.lvl_embed.", "encoder.level_embed."),
    *((f"encoder.model.{part}", f"encoder.{part}") for part in TRUNK),
    ("decoder.to_pixel.model.", "pixel_decoder.to_pixel."),
    ("decoder.lvl_embed.", "pixel_decoder.level_embed."),
    *((f"decoder.model.{part}", f"pixel_decoder.{part}") for part in TRUNK),
    ("decoder.", "pixel_decoder."),
]
#: Published as 1x1 convolutions; ours are linear layers.
_AS_CONVOLUTION = ("quant_conv.weight", "post_quant_conv.weight")
#: Weights that tell the format, by our names, and their numbers of dimensions.
_TELLING = {
    "encoder.latent_tokens": 3,
    "encoder.pos_embed": 3,
    "encoder.patch_embed.weight": 4,
    "quantizer.embedding": 2,
}
#: Steps to assume, past the warm-up of the usage average.
_STEPS_KNOWN = 101


@frozen(kw_only=True)
class RobusTokConfig:
    """Options that do not follow from the shapes of the weights."""

    num_heads: int | None = heads_field(HEADS_LEFT_OUT)
    l2_normalise: bool = l2_normalise_field()


class RobusTok(TokenizerImporter):
    """Reads a RobusTok or XQGAN tokenizer: the averaged weights if the file has them, without its DINOv2 teacher."""

    Config = RobusTokConfig

    def __init__(self, config: RobusTokConfig) -> None:
        self.config = config

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_published(path)
        weights = self._ours(published, report, str(path))
        table, tokenizer = build_with(registry, self._table(weights), weights, NAMES, str(path))
        return table, tokenizer, report

    def _ours(self, published: Mapping[str, Tensor], report: dict[str, str], where: str) -> dict[str, Tensor]:
        dims = {to_published(name, NAMES): count for name, count in _TELLING.items()}
        require(published, dims, "robustok", where, {"quantize.ema_vocab_hit_SV": 1})
        weights = {to_ours(name, NAMES): value for name, value in published.items()}
        for name in _AS_CONVOLUTION:
            if name in weights and weights[name].ndim == 4:
                weights[name] = weights[name].flatten(1)
        drop_parts(weights, report, {"semantic_model.": "the teacher of the semantic loss"})
        self._drop_levels(weights, report, where)
        hits = weights.pop("quantizer.usage", torch.zeros(len(weights["quantizer.embedding"])))
        weights["quantizer.usage"] = hits / hits.sum().clamp(min=1e-12)  # published as hits per step
        weights["quantizer.steps"] = torch.tensor(_STEPS_KNOWN if hits.any() else 0)
        return weights

    def _drop_levels(self, weights: dict[str, Tensor], report: dict[str, str], where: str) -> None:
        """Removes the tables that mark image tokens, which follow from the sizes."""
        num_latents = weights["encoder.latent_tokens"].shape[1]
        for name, extra in (("encoder.lvl1LC", 0), ("pixel_decoder.lvl1LC", 1)):
            levels = weights.pop(name, None)
            if levels is None:
                continue
            if not torch.equal(levels, _levels(weights["encoder.pos_embed"].shape[1], num_latents + extra)):
                raise RobustokError("its tokens are in an order that vit_vq does not support", where=where)
            report[to_published(name, NAMES)] = "dropped: follows from the number of tokens"

    def _table(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        return {
            "use": "vit_vq",
            **size_table(weights, self.config.num_heads),
            "absolute_positions": "encoder.level_embed.weight" in weights,
            "quantizer": vq_table(weights, l2_normalise=self.config.l2_normalise),
        }

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `vit_vq` with a `vq` under the published names; usage as shares instead of hits."""
        weights = component.state_dict()
        if not {*_TELLING, "quantizer.usage", "pixel_decoder.mask_token"} <= weights.keys():
            raise RobustokError("the published RobusTok format holds only vit_vq tokenizers with a vq quantizer")
        for name in ("steps", "cluster_size", "cluster_sum"):
            weights.pop(f"quantizer.{name}", None)
        for name in _AS_CONVOLUTION:
            weights[name] = weights[name][..., None, None]
        if "encoder.level_embed.weight" in weights:
            num_image, num_latents = weights["encoder.pos_embed"].shape[1], weights["encoder.latent_tokens"].shape[1]
            weights["encoder.lvl1LC"] = _levels(num_image, num_latents)
            weights["pixel_decoder.lvl1LC"] = _levels(num_image, num_latents + 1)
        return {to_published(name, NAMES): value for name, value in weights.items()}


def _levels(num_image: int, num_latents: int) -> Tensor:
    return torch.tensor([[0] * num_image + [1] * num_latents])
