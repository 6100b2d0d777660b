"""RAE's decoders (decoders/dinov2/wReg_base/ViTXL_n08/model.pt of nyu-visionx/RAE-collections, ...), for `rae`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen, validators
from einops import rearrange
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.recipe.validators import side_range
from robustok_core.values.download import Download, local_file, named_path
from robustok_hub.discriminators import TokenizerImporter
from robustok_hub.latent_token_vits import STACK_HEADS_LEFT_OUT, stack_table
from robustok_hub.published_config import existing
from robustok_hub.published_names import (
    NameRules,
    build_with,
    count_numbered,
    drop_parts,
    heads_field,
    read_published,
    require,
    to_ours,
    to_published,
)
from robustok_toolkit.timm_networks import WEIGHTS_DOC, timm_downloads, timm_network
from robustok_toolkit.weight_files import read_weights

_TELLING = {
    "decoder_embed.weight": 2,
    "decoder_pos_embed": 3,
    "trainable_cls_token": 3,
    "decoder_layers.0.intermediate.dense.weight": 2,
    "decoder_pred.weight": 2,
}
#: What the decoder is called in checkpoints of its training, which hold the encoder, too.
_DECODER, _ENCODER = "decoder.", "encoder."
_BLOCKS = "pixel_decoder.blocks."
_THREE = ("query", "key", "value")
#: Side of the images, in pixels, for a ViT of which only the patches count.
_ANY_SIZE = 224
#: Our buffers of the latents' statistics; their shape is (N, D), that of the published ones (D, h, w).
_STATISTICS = {"mean": "statistics.mean", "var": "statistics.variance"}
#: Images that measured statistics count, so that further training does not change them: more than `rae` measures over.
_MEASURED = 50_001.0


def _names(depth: int) -> NameRules:
    """The rules from published names to ours, after queries, keys and values have become one weight."""
    parts = (
        ("attention.output.dense.", "attn.proj."),
        ("attention.attention.{query,key,value}.", "attn.qkv."),
        ("intermediate.dense.", "mlp.fc1."),
        ("output.dense.", "mlp.fc2."),
        ("layernorm_before.", "norm1."),
        ("layernorm_after.", "norm2."),
    )
    return [
        *((f"decoder_layers.{i}.{theirs}", f"{_BLOCKS}{i}.{ours}") for i in range(depth) for theirs, ours in parts),
        ("decoder_embed.", "pixel_decoder.from_latents."),
        ("decoder_pos_embed", "pixel_decoder.pos_embed"),
        ("trainable_cls_token", "pixel_decoder.cls_token"),
        ("decoder_norm.", "pixel_decoder.norm."),
        ("decoder_pred.", "pixel_decoder.to_pixels."),
    ]


@frozen(kw_only=True)
class RAEImporterConfig:
    """What the decoder's file does not hold; the defaults are those of the decoders for DINOv2-B."""

    statistics: str | None = field(
        default=None,
        metadata={
            "doc": "file with mean and variance of the latents (published: stat.pt); left out: they are not normalised"
        },
    )
    encoder: str = field(
        default="vit_base_patch14_reg4_dinov2.lvd142m", metadata={"doc": "name of the frozen ViT in timm"}
    )
    weights: str = field(default="pretrained", metadata={"doc": f"the frozen ViT's: {WEIGHTS_DOC}"})
    encoder_image_size: int | None = field(
        default=None,
        validator=validators.optional(side_range),
        metadata={
            "doc": "height and width of the images that the frozen ViT reads, in pixels; left out: those that give it "
            "one patch for each token of the decoder (224 for DINOv2 and 256 tokens)"
        },
    )
    num_heads: int | None = heads_field(STACK_HEADS_LEFT_OUT)


class RAEImporter(TokenizerImporter):
    """Reads an RAE's decoder, and puts its frozen encoder, which comes from timm, before it."""

    Config = RAEImporterConfig

    def __init__(self, config: RAEImporterConfig) -> None:
        self.config = config

    @classmethod
    def downloads(cls, config: RAEImporterConfig) -> Iterable[Download]:
        if config.statistics is not None:
            local_file(config.statistics, hint="set statistics to the published stat.pt, or leave it out")
        return timm_downloads(config.encoder, config.weights)

    @classmethod
    def files(cls, config: RAEImporterConfig) -> Iterable[Path]:
        return [*named_path(config.weights, "pretrained", "random"), *named_path(config.statistics)]

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_published(path)
        if any(name.startswith(_DECODER) for name in published):
            drop_parts(published, report, {_ENCODER: "the frozen encoder, which comes from timm"})
            published = {name.removeprefix(_DECODER): value for name, value in published.items()}
        require(published, _TELLING, "rae", str(path))
        depth = count_numbered(published, "decoder_layers.")
        table = self._table(published)
        names = _names(depth)
        weights = {to_ours(name, names): value for name, value in _joined(published, depth).items()}
        weights |= self._statistics(weights, report)
        brings = ("encoder.",) if self.config.statistics else ("encoder.", "statistics.")
        full_table, tokenizer = build_with(registry, table, weights, names, str(path), brings=brings)
        report["encoder"] = f"{self.config.encoder}, not in the file: taken from timm ({self.config.weights})"
        return full_table, tokenizer, report

    def also_reads(self, path: Path) -> Sequence[Path]:
        """The file of statistics, if there is one."""
        return existing(self.config.statistics)

    def _table(self, published: Mapping[str, Tensor]) -> dict[str, Any]:
        size = stack_table(published, "decoder_layers.", len(published["decoder_embed.weight"]), self.config.num_heads)
        side = math.isqrt(max(1, published["decoder_pos_embed"].shape[1] - 1))
        return {
            "use": "rae",
            "image_size": side * math.isqrt(len(published["decoder_pred.weight"]) // 3),
            "encoder": self.config.encoder,
            "weights": self.config.weights,
            "encoder_image_size": self.config.encoder_image_size or side * self._patch_size(),
            "decoder_style": "mae",
            **{f"decoder_{name}": value for name, value in size.items()},
            "decoder_mlp_width": len(published["decoder_layers.0.intermediate.dense.weight"]),
            **({} if self.config.statistics else {"statistics_images": 0}),
        }

    def _patch_size(self) -> int:
        """Side of the frozen ViT's patches, in pixels."""
        with torch.device("meta"):
            network = timm_network(self.config.encoder, self.config.weights, _ANY_SIZE, where="importer.encoder")
        patches: Any = getattr(network, "patch_embed", None)
        side: int = getattr(patches, "patch_size", (1,))[0]  # of what is not a ViT, which `rae` refuses, any
        return side

    def _statistics(self, weights: Mapping[str, Tensor], report: dict[str, str]) -> dict[str, Tensor]:
        file = self.config.statistics
        if file is None:
            report["statistics"] = "none: latents are not normalised"
            return {}
        held = read_weights(Path(file)).weights
        channels = weights["pixel_decoder.from_latents.weight"].shape[1]
        side = math.isqrt(max(1, weights["pixel_decoder.pos_embed"].shape[1] - 1))
        require(held, dict.fromkeys(_STATISTICS, 3), "a file of latent statistics", file)
        for name in _STATISTICS:
            if held[name].shape != (channels, side, side):
                what = f"its {name} has shape {tuple(held[name].shape)}, the decoder's latents {(channels, side, side)}"
                raise RobustokError(what, where=file)
        if not bool((held["var"] >= 0).all()):
            raise RobustokError("its var holds negative or invalid numbers", where=file)
        report["statistics"] = f"mean and var of {file}"
        ours = {ours: rearrange(held[name], "d h w -> (h w) d") for name, ours in _STATISTICS.items()}
        return {**ours, "statistics.count": torch.tensor(_MEASURED)}

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of the decoder of a `rae` in the style "mae" under the published names."""
        weights = component.state_dict()
        if not {"pixel_decoder.cls_token", "statistics.variance"} <= weights.keys():
            raise RobustokError('the published RAE format holds only decoders of rae tokenizers of the style "mae"')
        depth = count_numbered(weights, _BLOCKS)
        names = _names(depth)
        exported = {}
        for name, value in weights.items():
            if ".attn.qkv." in name and name.startswith(_BLOCKS):
                for part, third in zip(_THREE, value.chunk(3), strict=True):
                    exported[to_published(name, names).replace("{query,key,value}", part)] = third
            elif name.startswith("pixel_decoder."):
                exported[to_published(name, names)] = value
        return exported


def _joined(published: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The weights with those of queries, keys and values in one, where all three are there and of one shape."""
    weights = dict(published)
    for i in range(depth):
        for kind in ("weight", "bias"):
            before = f"decoder_layers.{i}.attention.attention."
            parts = [weights.get(f"{before}{part}.{kind}") for part in _THREE]
            held = [part for part in parts if part is not None]
            if len(held) == len(_THREE) and len({part.shape for part in held}) == 1:
                weights[f"{before}{{query,key,value}}.{kind}"] = torch.cat(held)
                for part in _THREE:
                    del weights[f"{before}{part}.{kind}"]
    return weights
