"""Autoencoders in the layout of diffusers (diffusion_pytorch_model.safetensors), for `kl_vae` and `conv_vq`.

| class of diffusers | ours |
|---|---|
| AutoencoderKL | `kl_vae` with double_z, z_channels = width |
| VQModel | `conv_vq` with a `vq`, l2_normalise = false |

`export` writes config.json beside the weights, so that diffusers' `from_pretrained` reads the folder and its pipelines
can use a decoder that was trained here. It also writes a `diffusers_vae`, in the layout that it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.recipe.validators import width_range
from robustok_hub.conv_files import NORM_GROUPS, image_size_field, level_weights, multiplier_options
from robustok_hub.discriminators import TokenizerImporter
from robustok_hub.published_config import PublishedConfig, ReadsConfig
from robustok_hub.published_names import (
    NameRules,
    build_with,
    count_numbered,
    read_published,
    require,
    to_ours,
    to_published,
    vq_table,
)
from robustok_hub.vq_files import CODEBOOK, as_convolution, as_linear, start_usage, without_usage

_TELLING = {
    "encoder.conv_in.weight": 4,
    "encoder.down_blocks.0.resnets.0.conv1.weight": 4,
    "encoder.mid_block.resnets.0.conv1.weight": 4,
    "encoder.conv_out.weight": 4,
    "decoder.conv_in.weight": 4,
}
#: Names within an attention, theirs and ours; then those of older versions, which are only read.
_ATTENTION = {"group_norm.": "norm.", "to_q.": "q.", "to_k.": "k.", "to_v.": "v.", "to_out.0.": "proj_out."}
_OLD_ATTENTION = {"query.": "q.", "key.": "k.", "value.": "v.", "proj_attn.": "proj_out."}
_WHAT = (
    "kl_vae tokenizers with double_z and z_channels = width, conv_vq tokenizers with a vq quantizer, l2_normalise = "
    "false, and diffusers_vae; with stem_patch 1, middle blocks, a first multiplier of 1, and the same "
    "channel_multipliers in the decoder"
)


def _names(levels: int, blocks: int) -> NameRules:
    """The rules from published names to ours, for so many levels of so many residual blocks in the decoder."""
    rules = [CODEBOOK]
    for theirs, ours, sampler in (("encoder.", "encoder.", "down"), ("decoder.", "pixel_decoder.", "up")):
        for level in range(levels):
            block, target = f"{theirs}{sampler}_blocks.{level}.", f"{ours}conv_blocks.{level}."
            for number in range(blocks):
                rules += _residual(f"{block}resnets.{number}.", f"{target}res.{number}.")
                rules += _attention(f"{block}attentions.{number}.", f"{target}attn.{number}.")
            rules.append((f"{block}{sampler}samplers.0.", f"{target}{sampler}sample."))
        middle, target = f"{theirs}mid_block.", f"{ours}mid."
        rules += [*_residual(f"{middle}resnets.0.", f"{target}0."), *_residual(f"{middle}resnets.1.", f"{target}2.")]
        rules += _attention(f"{middle}attentions.0.", f"{target}1.")
        rules.append((f"{theirs}conv_norm_out.", f"{ours}norm_out."))
    return [*rules, ("decoder.", "pixel_decoder.")]


def _residual(theirs: str, ours: str) -> list[tuple[str, str]]:
    return [(f"{theirs}conv_shortcut.", f"{ours}nin_shortcut."), (theirs, ours)]


def _attention(theirs: str, ours: str) -> list[tuple[str, str]]:
    return [(theirs + name, ours + mine) for name, mine in (_ATTENTION | _OLD_ATTENTION).items()]


@frozen(kw_only=True)
class DiffusersLayoutConfig:
    """Options that do not follow from the shapes of the weights."""

    image_size: int = image_size_field()
    norm_groups: int | None = field(
        default=None,
        validator=validators.optional(width_range),
        metadata={
            "doc": "groups of the GroupNorms; left out: norm_num_groups in config.json beside the weights, or "
            f"{NORM_GROUPS}"
        },
    )
    scaling_factor: float = field(
        default=1.0,
        validator=validators.gt(0.0),
        metadata={"doc": "what diffusion models multiply latents by, for an exported config.json; imports ignore it"},
    )


class DiffusersLayout(ReadsConfig, TokenizerImporter):
    """Reads and writes an AutoencoderKL or a VQModel of diffusers.

    Latents are those of the networks, not scaled as `diffusers_vae` does it. A config.json beside the weights gives the
    groups of the GroupNorms.
    """

    Config = DiffusersLayoutConfig

    def __init__(self, config: DiffusersLayoutConfig) -> None:
        self.config = config

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_published(path)
        require(published, _TELLING, "diffusers", str(path))
        rules = _rules(published, "encoder.down_blocks.", ".resnets.")
        weights = {to_ours(name, rules): value for name, value in published.items()}
        as_convolution(weights, [name for name in _projections(weights) if weights[name].ndim == 2])
        table = self._table(weights)
        beside = PublishedConfig.beside(path)
        beside.must_agree({"latent_channels": table["z_channels"], "layers_per_block": table["num_res_blocks"]})
        table["norm_groups"] = self.config.norm_groups or beside.get("norm_num_groups", int) or NORM_GROUPS
        if "quantizer" in table:
            start_usage(weights)
        full_table, tokenizer = build_with(registry, table, weights, rules, str(path))
        report["scaling_factor"] = "not applied: latents are those of the network"
        return full_table, tokenizer, report

    def _table(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        channels, levels = len(weights["encoder.conv_in.weight"]), count_numbered(weights, "encoder.conv_blocks.")
        encoder = level_weights(weights, "encoder.conv_blocks.", ".res.0.conv1.weight")
        decoder = level_weights(weights, "pixel_decoder.conv_blocks.", ".res.0.conv1.weight")[::-1]
        z_channels = weights["pixel_decoder.conv_in.weight"].shape[1]
        networks = {
            "image_size": self.config.image_size,
            "channels": channels,
            **multiplier_options(encoder, decoder, channels),
            "num_res_blocks": count_numbered(weights, "encoder.conv_blocks.0.res."),
            "attention": "encoder.mid.1.q.weight" in weights,
            "attention_levels": [i for i in range(levels) if f"encoder.conv_blocks.{i}.attn.0.q.weight" in weights],
            "z_channels": z_channels,
        }
        if CODEBOOK[1] in weights:
            return {"use": "conv_vq", **networks, "quantizer": vq_table(weights, l2_normalise=False)}
        bare = not any(name.startswith(("quant_conv.", "post_quant_conv.")) for name in weights)
        return {"use": "kl_vae", **networks, "width": z_channels, "double_z": True, "latent_convs": not bare}

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `kl_vae`, a `conv_vq` with a `vq`, or a `diffusers_vae`, under the names of diffusers."""
        weights = without_usage(component.state_dict())
        if _own_configuration(component) is not None:
            rules: NameRules = [CODEBOOK, ("decoder.", "pixel_decoder.")]
        else:
            _check(component, weights)
            rules = _rules(weights, "encoder.conv_blocks.", ".res.")
            as_linear(weights, _projections(weights))
        return {to_published(name, rules): value for name, value in weights.items()}

    def configuration(self, component: nn.Module) -> Mapping[str, Any]:
        """The config.json of an exported autoencoder."""
        own = _own_configuration(component)
        if own is not None:
            return own
        _check(component, component.state_dict())
        config: Any = component.config
        levels = range(len(config.channel_multipliers))
        table = {
            "act_fn": "silu",
            "block_out_channels": config.level_channels,
            "down_block_types": [f"{'Attn' * config.attends(level)}DownEncoderBlock2D" for level in levels],
            "up_block_types": [f"{'Attn' * config.attends(level)}UpDecoderBlock2D" for level in reversed(levels)],
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": config.z_channels,
            "layers_per_block": config.num_res_blocks,
            "mid_block_add_attention": config.attention,
            "norm_num_groups": config.norm_groups,
            "sample_size": config.image_size,
            "scaling_factor": self.config.scaling_factor,
        }
        quantizer: Any = component.quantizer
        if quantizer is not None:
            sizes = {"num_vq_embeddings": quantizer.codebook_size, "vq_embed_dim": quantizer.width}
            return {"_class_name": "VQModel", **table, **sizes}
        convolutions = {f"use_{name}quant_conv": config.latent_convs for name in ("", "post_")}
        return {"_class_name": "AutoencoderKL", **table, **convolutions, "force_upcast": False}


def _rules(weights: Mapping[str, Tensor], levels: str, blocks: str) -> NameRules:
    """The rules for weights, whose levels and residual blocks have these parts of names."""
    return _names(count_numbered(weights, levels), count_numbered(weights, f"{levels}0{blocks}") + 1)


def _projections(weights: Mapping[str, Tensor]) -> list[str]:
    """Our names of weights that are 1x1 convolutions in our attentions and linear layers in theirs."""
    ends = tuple(f".{mine}weight" for mine in ("q.", "k.", "v.", "proj_out."))
    return [name for name in weights if name.endswith(ends)]


def _own_configuration(component: nn.Module) -> Mapping[str, Any] | None:
    """The configuration of a tokenizer that is a model of diffusers itself; None for others."""
    configuration: Mapping[str, Any] | None = getattr(component, "published_configuration", None)
    return configuration


def _check(component: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raises RobustokError unless diffusers has the architecture of a tokenizer of ours."""
    config: Any = getattr(component, "config", None)
    quantizer: Any = getattr(component, "quantizer", None)
    if quantizer is None:
        fits = getattr(config, "double_z", False) and config.z_channels == config.width
    else:
        fits = getattr(quantizer.config, "l2_normalise", None) is False and CODEBOOK[1] in weights
    networks = getattr(config, "stem_patch", 0) == 1 and config.middle and config.channel_multipliers[0] == 1
    if not (fits and networks and config.decoder_channel_multipliers is None):
        raise RobustokError(f"diffusers has the architectures of {_WHAT}")
