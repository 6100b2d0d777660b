"""Shared by the importers of the VQGAN family's files: convolutional networks in the layout of taming-transformers.

Latent diffusion, VA-VAE, VQGAN-LC and IBQ use the same names. A level is `encoder.down.I` and `decoder.up.I`, and 0 is
the finest in both; our decoder counts from the coarsest. The size of both networks follows from the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.recipe.validators import side_range, width_range
from robustok_core.runs.weights import part
from robustok_hub.discriminators import TokenizerImporter
from robustok_hub.published_config import PublishedConfig, ReadsConfig
from robustok_hub.published_names import (
    NameRules,
    build_with,
    count_numbered,
    drop_parts,
    read_averaged,
    read_published,
    require,
    to_ours,
    to_published,
)
from robustok_hub.vq_files import start_usage, without_usage

#: Weights that tell the layout of taming-transformers, and their numbers of dimensions.
TELLING = {
    "encoder.conv_in.weight": 4,
    "encoder.down.0.block.0.conv1.weight": 4,
    "encoder.mid.block_1.conv1.weight": 4,
    "encoder.conv_out.weight": 4,
    "decoder.conv_in.weight": 4,
    "decoder.up.0.block.0.conv1.weight": 4,
}
#: Prefixes of weights that only training needs, and what they are.
_LOSSES = {"loss.": "the losses of its training"}
#: The prefix of the tokenizer in the checkpoints of latent diffusion and taming-transformers.
_FIRST_STAGE = "first_stage_model."
#: Side of the images of published files, in pixels, and groups of their GroupNorms.
_IMAGE_SIZE, NORM_GROUPS = 256, 32
#: The blocks in the middle, theirs and ours.
_MIDDLE = {"block_1": "0", "attn_1": "1", "block_2": "2"}
#: Weights that every component has whose networks the layout can hold, by our names.
_OURS = ("encoder.conv_in.weight", "encoder.mid.0.conv1.weight", "pixel_decoder.conv_blocks.0.res.0.conv1.weight")


def norm_groups_field() -> Any:
    """The importer's option norm_groups, which does not follow from the weights."""
    return field(default=NORM_GROUPS, validator=width_range, metadata={"doc": "groups of the GroupNorms"})


def image_size_field() -> Any:
    """The importer's option image_size, which does not follow from the weights of a convolutional network."""
    return field(
        default=_IMAGE_SIZE, validator=side_range, metadata={"doc": "height and width of the images, in pixels"}
    )


@frozen(kw_only=True)
class ConvFileConfig:
    """Options that do not follow from the shapes of the weights."""

    image_size: int = image_size_field()
    norm_groups: int = norm_groups_field()


@frozen(kw_only=True)
class TamingFileConfig:
    """Options that do not follow from the shapes of the weights."""

    image_size: int | None = field(
        default=None,
        validator=validators.optional(side_range),
        metadata={
            "doc": "height and width of the images, in pixels; left out: resolution in the configuration beside the "
            "weights (config.json, or NAME.yaml, model.yaml, config.yaml), or 256"
        },
    )
    norm_groups: int = norm_groups_field()


class TamingImporter(ReadsConfig, TokenizerImporter):
    """An importer of networks in the layout of taming-transformers."""

    Config = TamingFileConfig

    def __init__(self, config: TamingFileConfig) -> None:
        self.config = config


def names(levels: int) -> NameRules:
    """The rules from published names of both networks to ours, for so many levels."""
    rules: list[tuple[str, str]] = []
    for theirs, ours, kind in (("encoder.", "encoder.", "down"), ("decoder.", "pixel_decoder.", "up")):
        for level in range(levels):
            number = level if kind == "down" else levels - 1 - level
            block, target = f"{theirs}{kind}.{level}.", f"{ours}conv_blocks.{number}."
            rules += [(f"{block}block.", f"{target}res."), (block, target)]
        rules += [(f"{theirs}mid.{name}.", f"{ours}mid.{number}.") for name, number in _MIDDLE.items()]
    return [*rules, ("decoder.", "pixel_decoder.")]


def read_networks(
    path: Path, importer: str, telling: Mapping[str, int], dropped: Mapping[str, str] = MappingProxyType({})
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights in a published file by their names, averaged ones if it has them, and the importer's report.

    Args:
        path: the file. importer: the name of the importer.
        telling: weights that identify its format, and their numbers of dimensions.
        dropped: prefixes of weights that only training needs, besides "loss.", and what they are.

    Raises:
        RobustokError: the file is not of this format.
    """
    published, report = read_published(path)
    published = _first_stage(published, report)
    read_averaged(published, report)
    drop_parts(published, report, {**_LOSSES, **dropped})
    require(published, telling, importer, str(path))
    return published, report


def _first_stage(published: dict[str, Tensor], report: dict[str, str]) -> dict[str, Tensor]:
    """The tokenizer within the checkpoint of a whole diffusion model or transformer; other files as they are."""
    inner = part(published, _FIRST_STAGE)
    if not inner:
        return published
    report["weights"] += f", those of {_FIRST_STAGE}*"
    report["the others"] = f"dropped {len(published) - len(inner)} weights: the model of the latents"
    return inner


def build_networks(
    registry: Builder,
    table: Mapping[str, Any],
    published: Mapping[str, Tensor],
    config: TamingFileConfig,
    path: Path,
    report: dict[str, str],
    *,
    rules: NameRules = (),
    sizes: Mapping[str, int] = MappingProxyType({}),
) -> tuple[dict[str, Any], nn.Module]:
    """Builds a tokenizer with published weights; returns its full table and the tokenizer, in eval mode.

    Args:
        registry: builds it. table: its recipe table without the options of the networks, which follow from the weights.
        published: weights by published names. config: the importer's options.
        path: the file. report: the importer's report.
        rules: from published names to ours, besides those of the networks.
        sizes: what the configuration beside the file must say, if it does, besides the sizes of the networks.

    Raises:
        RobustokError: the weights do not fit, or contradict the configuration beside them.
    """
    networks, beside = network_table(published), PublishedConfig.beside(path)
    resolution = beside.get("resolution", int)
    beside.must_agree({**_published_sizes(networks, beside), **sizes})
    if config.image_size is None and resolution is not None:
        report[beside.file.name] = f"image_size = {resolution}"
    networks["image_size"] = config.image_size or resolution or _IMAGE_SIZE
    networks["norm_groups"] = config.norm_groups
    all_rules = [*rules, *names(count_numbered(published, "encoder.down."))]
    weights = {to_ours(name, all_rules): value for name, value in published.items()}
    if table.get("quantizer", {}).get("use") == "vq":
        start_usage(weights)
    return build_with(registry, {**table, **networks}, weights, all_rules, str(path))


def _published_sizes(networks: Mapping[str, Any], beside: PublishedConfig) -> dict[str, int | list[int]]:
    """The sizes of both networks by their names in a published configuration (ddconfig).

    A level has attention if the side of its maps, `resolution` halved at each level, is among `attn_resolutions`.
    """
    sizes = {
        "ch": networks["channels"],
        "ch_mult": networks["channel_multipliers"],
        "num_res_blocks": networks["num_res_blocks"],
        "z_channels": networks["z_channels"],
    }
    resolution, attended = beside.get("resolution", int), beside.values.get("attn_resolutions")
    if resolution is not None and isinstance(attended, list):
        sides = [resolution // 2**level for level in range(len(networks["channel_multipliers"]))]
        found = [sides[level] for level in networks["attention_levels"]]
        if found != [side for side in sides if side in attended]:
            sizes["attn_resolutions"] = found
    return sizes


def network_table(published: Mapping[str, Tensor]) -> dict[str, Any]:
    """The options of both networks that follow from weights by published names, for a recipe table."""
    channels, levels = len(published["encoder.conv_in.weight"]), count_numbered(published, "encoder.down.")
    encoder = level_weights(published, "encoder.down.", ".block.0.conv1.weight")
    decoder = level_weights(published, "decoder.up.", ".block.0.conv1.weight")
    return {
        "channels": channels,
        **multiplier_options(encoder, decoder, channels),
        "num_res_blocks": count_numbered(published, "encoder.down.0.block."),
        "attention": "encoder.mid.attn_1.q.weight" in published,
        "attention_levels": [level for level in range(levels) if f"encoder.down.{level}.attn.0.q.weight" in published],
        "z_channels": published["decoder.conv_in.weight"].shape[1],
    }


def level_weights(weights: Mapping[str, Tensor], prefix: str, name: str) -> list[Tensor | None]:
    """The convolutions called PREFIX LEVEL NAME, in the order of the numbers of the levels.

    None where one is missing, or is not the weight of a convolution.
    """
    found = (weights.get(f"{prefix}{level}{name}") for level in range(count_numbered(weights, prefix)))
    return [weight if weight is not None and weight.ndim == 4 and weight.numel() else None for weight in found]


def multipliers(levels: Sequence[Tensor | None], channels: int) -> list[int]:
    """The multiplier of each level; a missing weight counts as 1.

    Args:
        levels: a weight of each level, whose rows are the level's channels. channels: those at multiplier 1.
    """
    return [1 if weight is None else max(1, weight.shape[:1].numel() // channels) for weight in levels]


def multiplier_options(
    encoder: Sequence[Tensor | None], decoder: Sequence[Tensor | None], channels: int
) -> dict[str, list[int]]:
    """The options channel_multipliers and, where it differs, decoder_channel_multipliers, finest level first.

    For the arguments see `multipliers`. A weight that only the decoder lacks counts as the encoder's.
    """
    ours, theirs = multipliers(encoder, channels), multipliers(decoder, channels)
    theirs = [
        ours[level] if decoder[level] is None and level < len(ours) else factor for level, factor in enumerate(theirs)
    ]
    return {"channel_multipliers": ours} | ({} if theirs == ours else {"decoder_channel_multipliers": theirs})


def export_networks(component: nn.Module, what: str, *, fits: bool, rules: NameRules = ()) -> dict[str, Tensor]:
    """The weights of a tokenizer under published names.

    Args:
        component: the tokenizer. what: which ones the format holds, for the message.
        fits: whether it is one of them, as far as its networks do not matter.
        rules: from published names to ours, besides those of the networks.

    Raises:
        RobustokError: the format cannot hold this tokenizer.
    """
    weights, config = component.state_dict(), getattr(component, "config", None)
    conv_in = weights.get("encoder.conv_in.weight")
    whole = conv_in is not None and conv_in.shape[1] == 3 and weights.keys() >= set(_OURS)
    if not (fits and whole and getattr(config, "decoder_channel_multipliers", None) is None):
        limits = "stem_patch 1, middle blocks, and an encoder and decoder of the same channel_multipliers"
        raise RobustokError(f"this published format holds only {what}, with {limits}")
    all_rules = [*rules, *names(count_numbered(weights, "encoder.conv_blocks."))]
    return {to_published(name, all_rules): value for name, value in without_usage(weights).items()}
