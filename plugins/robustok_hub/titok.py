"""TiTok's tokenizers (tokenizer_titok_l32.bin, ..., and model.safetensors of yucornetto's copies), for `titok`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.recipe.validators import width_range
from robustok_hub.conv_files import level_weights, multipliers
from robustok_hub.discriminators import TokenizerImporter
from robustok_hub.latent_token_vits import stack_table
from robustok_hub.published_config import PublishedConfig, ReadsConfig
from robustok_hub.published_names import (
    NameRules,
    build_with,
    count_numbered,
    heads_field,
    read_published,
    require,
    to_ours,
    to_published,
    vq_table,
)
from robustok_hub.vq_files import CODEBOOK, as_convolution, as_linear, start_usage, without_usage

_TELLING = {
    "latent_tokens": 2,
    "encoder.latent_token_positional_embedding": 2,
    "encoder.positional_embedding": 2,
    "encoder.patch_embed.weight": 4,
    "decoder.positional_embedding": 2,
    "decoder.ffn.0.weight": 4,
    "quantize.embedding.weight": 2,
}
#: Weights of the decoder of codes, which a file has or lacks as a whole.
_CODES = {"decoder.ffn.2.weight": 4, "pixel_quantize.embedding.weight": 2, "pixel_decoder.conv_in.weight": 4}
_AS_CONVOLUTION = ("encoder.to_latents.weight", "token_decoder.ffn.0.weight", "token_decoder.ffn.2.weight")
#: Width of the codewords of SL-256-VQ8k, the published file whose codebook is not on the unit sphere.
_WIDTH_OF_PLAIN_CODES = 64


def _names(depths: Mapping[str, int]) -> NameRules:
    """The rules from published names to ours, for a number of blocks by our name of the network."""
    blocks = [
        (f"{theirs}.transformer.{i}.{part}", f"{ours}.transformer.{i}.{our_part}")
        for theirs, ours in (("encoder", "encoder"), ("decoder", "token_decoder"))
        for i in range(depths[ours])
        for part, our_part in (
            ("ln_1.", "norm1."),
            ("ln_2.", "norm2."),
            ("attn.in_proj_", "attn.qkv."),
            ("attn.out_proj.", "attn.proj."),
            ("mlp.c_fc.", "mlp.fc1."),
            ("mlp.c_proj.", "mlp.fc2."),
        )
    ]
    return [
        *blocks,
        CODEBOOK,
        ("latent_tokens", "encoder.latent_tokens"),
        ("encoder.conv_out.", "encoder.to_latents."),
        ("decoder.decoder_embed.", "token_decoder.from_latents."),
        ("decoder.", "token_decoder."),
        ("pixel_quantize.embedding.weight", "code_decoder.embedding"),
        ("pixel_decoder.", "code_decoder.pixel_decoder."),
    ]


@frozen(kw_only=True)
class TiTokImporterConfig:
    """Options that do not follow from the weights."""

    encoder_num_heads: int | None = heads_field("one for every 64 of the encoder's width")
    decoder_num_heads: int | None = heads_field("one for every 64 of the decoder's width")
    l2_normalise: bool | None = field(
        default=None,
        validator=validators.optional(validators.instance_of(bool)),
        metadata={
            "doc": "use_l2_norm: the codebook is on the unit sphere; left out: as config.json beside the weights says, "
            "else as in the released files, true unless codewords are 64 wide"
        },
    )
    norm_groups: int = field(
        default=32, validator=width_range, metadata={"doc": "groups of the GroupNorms of the decoder of codes"}
    )


class TiTokImporter(ReadsConfig, TokenizerImporter):
    """Reads a TiTok tokenizer with either decoder."""

    Config = TiTokImporterConfig

    def __init__(self, config: TiTokImporterConfig) -> None:
        self.config = config

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_published(path)
        has_codes = any(name in published for name in _CODES)
        require(published, {**_TELLING, **(_CODES if has_codes else {})}, "titok", str(path))
        names = _names(
            {
                "encoder": count_numbered(published, "encoder.transformer."),
                "token_decoder": count_numbered(published, "decoder.transformer."),
            }
        )
        weights = {to_ours(name, names): value for name, value in published.items()}
        as_linear(weights, _AS_CONVOLUTION)
        start_usage(weights)
        normalise = self._normalise(weights, PublishedConfig.beside(path), report)
        table = self._table(weights, str(path)) | {"quantizer": vq_table(weights, l2_normalise=normalise)}
        full_table, tokenizer = build_with(registry, table, weights, names, str(path))
        return full_table, tokenizer, report

    def _normalise(self, weights: Mapping[str, Tensor], config: PublishedConfig, report: dict[str, str]) -> bool:
        """Whether the codebook is on the unit sphere; reports why."""
        codebook_size, width = weights["quantizer.embedding"].shape
        num_tokens = len(weights["encoder.latent_tokens"])
        patch_size = weights["encoder.patch_embed.weight"].shape[-1]
        config.must_agree(
            {
                "codebook_size": codebook_size,
                "token_size": width,
                "num_latent_tokens": num_tokens,
                "vit_enc_patch_size": patch_size,
                "crop_size": _side(weights) * patch_size,
            }
        )
        reasons = {
            "the importer's option": self.config.l2_normalise,
            f"as {config.file.name} says": config.get("use_l2_norm", bool),
            "as in released files, for it does not follow from the weights": width != _WIDTH_OF_PLAIN_CODES,
        }
        reason, normalise = next((reason, value) for reason, value in reasons.items() if value is not None)
        report["l2_normalise"] = f"{str(normalise).lower()}: {reason}"
        return normalise

    def _table(self, weights: Mapping[str, Tensor], where: str) -> dict[str, Any]:
        patch_size = weights["encoder.patch_embed.weight"].shape[-1]
        table = {
            "use": "titok",
            "image_size": _side(weights) * patch_size,
            "patch_size": patch_size,
            "num_latent_tokens": len(weights["encoder.latent_tokens"]),
            "encoder": self._stack(weights, "encoder", self.config.encoder_num_heads),
            "decoder": self._stack(weights, "token_decoder", self.config.decoder_num_heads),
        }
        if "code_decoder.embedding" not in weights:
            return {**table, "output": "pixels"}
        codes, z_channels = weights["code_decoder.embedding"].shape
        decoder = self._pixel_decoder(weights, where) | {"z_channels": z_channels}
        return {**table, "output": "codes", "inner_codes": codes, "pixel_decoder": decoder}

    @staticmethod
    def _stack(weights: Mapping[str, Tensor], network: str, num_heads: int | None) -> dict[str, int]:
        width = weights[f"{network}.positional_embedding"].shape[1]
        return stack_table(weights, f"{network}.transformer.", width, num_heads)

    def _pixel_decoder(self, weights: Mapping[str, Tensor], where: str) -> dict[str, Any]:
        prefix = "code_decoder.pixel_decoder."
        first = level_weights(weights, f"{prefix}up.", ".block.0.conv1.weight")
        widths = [len(weight) for weight in first if weight is not None]
        if not first or len(widths) < len(first):
            raise RobustokError("this is not a TiTok tokenizer: its pixel_decoder lacks levels (up.*)", where=where)
        channels = math.gcd(*widths)  # multipliers are integers
        return {
            "channels": channels,
            "channel_multipliers": multipliers(first, channels),
            "num_res_blocks": max(1, count_numbered(weights, f"{prefix}up.0.block.")),
            "norm_groups": self.config.norm_groups,
        }

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `titok` with a `vq` under the published names."""
        weights = component.state_dict()
        if not {"token_decoder.mask_token", "quantizer.usage"} <= weights.keys():
            raise RobustokError("the published TiTok format holds only titok tokenizers with a vq quantizer")
        weights = without_usage(weights)
        as_convolution(weights, _AS_CONVOLUTION)
        names = _names(
            {network: count_numbered(weights, f"{network}.transformer.") for network in ("encoder", "token_decoder")}
        )
        return {to_published(name, names): value for name, value in weights.items()}


def _side(weights: Mapping[str, Tensor]) -> int:
    """Patches along a side of the images."""
    return math.isqrt(max(1, len(weights["encoder.positional_embedding"]) - 1))
