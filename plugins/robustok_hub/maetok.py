"""MAETok's tokenizers (MAETok/maetok-b-128, ...: model.safetensors), for `mae_tok`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_hub.discriminators import TokenizerImporter
from robustok_hub.latent_token_vits import HEADS_LEFT_OUT, TRUNK, size_table
from robustok_hub.published_config import PublishedConfig, ReadsConfig
from robustok_hub.published_names import (
    build_with,
    count_numbered,
    drop_parts,
    heads_by_width,
    heads_field,
    read_published,
    require,
    to_ours,
    to_published,
)

NAMES = [
    ("quantize.embedding", "soft_codebook.embedding"),
    ("encoder.model.patch_embed.proj.", "encoder.patch_embed."),
    *((f"encoder.model.{part}", f"encoder.{part}") for part in TRUNK),
    ("decoder.to_pixel.model.", "pixel_decoder.to_patch."),
    *((f"decoder.model.{part}", f"pixel_decoder.{part}") for part in TRUNK),
    ("decoder.", "pixel_decoder."),
]
#: Weights that tell the format, by our names, and their numbers of dimensions.
_TELLING = {
    "encoder.latent_tokens": 3,
    "encoder.latent_pos_embed": 3,
    "encoder.pos_embed": 3,
    "encoder.patch_embed.weight": 4,
    "pixel_decoder.to_patch.weight": 2,
    "quant_conv.weight": 2,
    "post_quant_conv.weight": 2,
    "pixel_decoder.latent_pos_embed": 3,
}
#: Prefixes of published names that only training needs, and what they are.
_TARGET_PARTS = ("decoder", "post_quant_conv", "to_pixel")
_DROPPED = {
    **{f"{part}_{name}.": f"the target {name}" for part in _TARGET_PARTS for name in ("hog", "dino", "clip")},
    "repa_model.": "a teacher",
    "dino_model.": "a teacher",
    "clip_model.": "a teacher",
    "projection.": "the projection to a teacher",
    "quantize.codebook_used": "a window of recent codes",
}
_UNUSED = "dropped: its decoder does not use it"
_POSITION_TABLES = ("freqs_t_x", "freqs_t_y")
_ROTARY_BASE = 10.0


@frozen(kw_only=True)
class MAETokImporterConfig:
    """Options that do not follow from the weights.

    Left out, those of positions are as the published config.json beside the weights says, if it is there.
    """

    num_heads: int | None = heads_field(HEADS_LEFT_OUT)
    decoder_num_heads: int | None = heads_field("num_heads, or one for every 64 of the decoder's width if that differs")
    axial_rotary: bool = field(
        default=False,
        metadata={
            "doc": "use_rope without rope_mixed: rotary positions along the axes",
            "says": ("rotary", "axial"),
        },
    )
    rotary_base: float | None = field(
        default=None,
        validator=validators.optional(validators.gt(1.0)),
        metadata={"doc": "rope_theta, used for positions along the axes; left out: 10"},
    )
    decoder_absolute_positions: bool | None = field(
        default=None, metadata={"doc": "use_ape; left out: true if there are no rotary positions"}
    )
    mask: tuple[float, float] | None = field(
        default=None,
        metadata={
            "doc": "range of the share of hidden patches in further training, if the file has a mask token; "
            "left out: 0.4, 0.6"
        },
    )


class MAETokImporter(ReadsConfig, TokenizerImporter):
    """Reads a MAETok tokenizer, deterministic or with a Gaussian posterior, without its training-only decoders."""

    Config = MAETokImporterConfig

    def __init__(self, config: MAETokImporterConfig) -> None:
        self.config = config

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_published(path)
        drop_parts(published, report, _DROPPED)
        self._require(published, str(path))
        weights = {to_ours(name, NAMES): value for name, value in published.items()}
        config = PublishedConfig.beside(path)
        options = self._options(weights, config, report)
        report["latents"] = _latent_statistics(config)
        _check_options(options, weights, str(path))
        table = self._table(weights, options)
        _drop_position_tables(weights, report, table["image_size"] // table["patch_size"], str(path))
        _drop_unused(weights, report, table)
        full_table, tokenizer = build_with(registry, table, weights, NAMES, str(path))
        return full_table, tokenizer, report

    def _options(self, weights: Mapping[str, Tensor], config: PublishedConfig, report: dict[str, str]) -> Any:
        """The importer's options, and where they are left out those of the published configuration."""
        num_tokens, latent_width = weights["encoder.latent_tokens"].shape[1], weights["post_quant_conv.weight"].shape[1]
        config.must_agree({"num_latent_tokens": num_tokens, "codebook_embed_dim": latent_width})
        published = self._published(config, "encoder.freqs" in weights)
        taken = {
            name: value
            for name, value in published.items()
            if value is not None and (getattr(self.config, name) is None or name == "axial_rotary")
        }
        if taken:
            report[config.file.name] = ", ".join(f"{name} = {value}" for name, value in taken.items())
        return attrs.evolve(self.config, **taken)

    def _published(self, config: PublishedConfig, mixed: bool) -> dict[str, Any]:
        """Values of the importer's options by name, as far as the published configuration gives them.

        Raises:
            RobustokError: it contradicts the weights, which have rotary positions in learned directions if `mixed`.
        """
        rotary, in_directions = config.get("use_rope", bool), config.get("rope_mixed", bool)
        known = rotary is not None and (in_directions is not None or not rotary)
        if known and mixed != (rotary and in_directions):
            what = f"use_rope {rotary} and rope_mixed {in_directions} do not fit the weights, which have "
            hint = "get the configuration that belongs to the weights, or take this one away"
            raise RobustokError(f"{what}{'' if mixed else 'no '}encoder.freqs", where=str(config.file), hint=hint)
        axial = bool(rotary) and in_directions is False
        return {
            "axial_rotary": axial or None,
            "rotary_base": config.get("rope_theta", float) if axial or self.config.axial_rotary else None,
            "decoder_absolute_positions": config.get("use_ape", bool),
        }

    def _require(self, published: Mapping[str, Tensor], where: str) -> None:
        """Raises RobustokError unless this is a file of the importer's format."""
        require(published, telling(), "maetok", where, {"decoder.model.pos_embed": 3})

    def _table(self, weights: Mapping[str, Tensor], options: Any) -> dict[str, Any]:
        latent_width = weights["post_quant_conv.weight"].shape[1]
        rotary = "mixed" if "encoder.freqs" in weights else "axial" if options.axial_rotary else "none"
        absolute = options.decoder_absolute_positions
        smallest, largest = (options.mask or (0.4, 0.6)) if "encoder.mask_token" in weights else (0.0, 0.0)
        table = {
            "use": "mae_tok",
            **size_table(weights, options.num_heads),
            **self._decoder_size(weights),
            "latent_width": latent_width,
            "rotary": rotary,
            "rotary_base": options.rotary_base or _ROTARY_BASE,
            "decoder_absolute_positions": rotary == "none" if absolute is None else absolute,
            "decoder_cls_token": "pixel_decoder.cls_token" in weights,
            "mask_smallest": smallest,
            "mask_largest": largest,
        }
        if len(weights["quant_conv.weight"]) == 2 * latent_width:
            table["kl_weight"] = 1e-6
        return table

    def _decoder_size(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """The sizes of a decoder that is not the encoder's twin."""
        encoder, decoder = (
            (weights[f"{network}.latent_pos_embed"].shape[-1], max(1, count_numbered(weights, f"{network}.blocks.")))
            for network in ("encoder", "pixel_decoder")
        )
        heads = self.config.decoder_num_heads
        if encoder == decoder and heads is None:
            return {}
        if heads is None and encoder[0] != decoder[0]:
            heads = heads_by_width(decoder[0])
        return {
            "decoder_width": decoder[0],
            "decoder_depth": decoder[1],
            **({} if heads is None else {"decoder_num_heads": heads}),
        }

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `mae_tok` without a soft codebook under the published names, without the targets."""
        weights = component.state_dict()
        if not _TELLING.keys() <= weights.keys() or "soft_codebook.embedding" in weights:
            raise RobustokError("the published MAETok format holds only mae_tok tokenizers without a soft_codebook")
        return export_mae_tok(weights)


def _latent_statistics(config: PublishedConfig) -> str:
    """What is known of the statistics of the latents, for the report."""
    mean, std = config.get("vq_mean", float), config.get("vq_std", float)
    if mean is None or std is None:
        unknown = f"not normalised; their mean and deviation are unknown (no vq_mean and vq_std in {config.file.name})"
        return f"{unknown}: training a generator measures those of each channel"
    return f"not normalised; a published SiT takes vq_mean {mean} and vq_std {std}: its importer's option statistics"


def _check_options(options: MAETokImporterConfig, weights: Mapping[str, Tensor], where: str) -> None:
    """Raises RobustokError for options that have no effect for this file."""
    mixed = "encoder.freqs" in weights
    axial = options.axial_rotary and not mixed
    other_base, other_mask = options.rotary_base not in (None, _ROTARY_BASE), options.mask not in (None, (0.0, 0.0))
    reasons = {
        "axial_rotary": mixed and options.axial_rotary and "its rotary positions are mixed (encoder.freqs)",
        "rotary_base": other_base and not axial and "it has no rotary positions along the axes",
        "mask": other_mask and "encoder.mask_token" not in weights and "it has no mask token",
    }
    for option, reason in reasons.items():
        if reason:
            what = f"the importer's {option} has no effect for this file: {reason}"
            raise RobustokError(what, where=where, hint=f"leave out {option}")


def telling() -> dict[str, int]:
    """The weights that tell the format, by their published names, and their numbers of dimensions."""
    return {to_published(name, NAMES): count for name, count in _TELLING.items()}


def export_mae_tok(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a `mae_tok` under the published names, without the targets."""
    positions = weights.get("pixel_decoder.pos_embed")
    if positions is not None and "pixel_decoder.cls_token" not in weights:
        # published positions have a row for the class token even if there is none
        weights["pixel_decoder.pos_embed"] = F.pad(positions, (0, 0, 1, 0))
    return {to_published(n, NAMES): value for n, value in weights.items() if not n.startswith("targets.")}


def _drop_position_tables(weights: dict[str, Tensor], report: dict[str, str], side: int, where: str) -> None:
    """Removes the tables of the patches' columns and rows, which follow from the grid."""
    positions = torch.arange(side * side)
    expected = {"freqs_t_x": positions % side, "freqs_t_y": positions // side}
    for network in ("encoder.", "pixel_decoder."):
        for name in _POSITION_TABLES:
            table = weights.pop(network + name, None)
            if table is None:
                continue
            if not torch.equal(table, expected[name].to(table.dtype)):
                raise RobustokError("its patches are in an order that mae_tok does not support", where=where)
            report[to_published(network + name, NAMES)] = "dropped: follows from the size of the images"


def _drop_unused(weights: dict[str, Tensor], report: dict[str, str], table: Mapping[str, Any]) -> None:
    """Removes unused weights of the published decoder."""
    unused = [f"pixel_decoder.model.patch_embed.proj.{kind}" for kind in ("weight", "bias")]
    if not table["decoder_absolute_positions"]:
        unused.append("pixel_decoder.pos_embed")
    elif not table["decoder_cls_token"] and "pixel_decoder.pos_embed" in weights:
        weights["pixel_decoder.pos_embed"] = weights["pixel_decoder.pos_embed"][:, 1:]
    for name in unused:
        if weights.pop(name, None) is not None:
            report[to_published(name, NAMES)] = _UNUSED
