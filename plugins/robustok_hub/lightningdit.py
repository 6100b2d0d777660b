"""LightningDiT (lightningdit-xl-imagenet256-800ep.pt and others of hustvl), for `flow_transformer`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.kinds.importer import Importer
from robustok_core.recipe.validators import width_range
from robustok_hub.flow_files import (
    TELLING,
    FlowImporterConfig,
    LatentStatistics,
    build_flow,
    export_flow,
    given_statistics,
    size_table,
)
from robustok_hub.published_names import read_published, require
from robustok_toolkit.weight_files import read_weights

_TOKENS, _HIDDEN = "x_embedder.proj.weight", "blocks.0.mlp.w3.weight"
_COSINES, _SINES = "feat_rope.freqs_cos", "feat_rope.freqs_sin"
_BIAS = "x_embedder.proj.bias"
_TELLING = {_TOKENS: 4, _BIAS: 1, _HIDDEN: 2, _COSINES: 2, _SINES: 2}
_STYLE = {"norm": "rms", "mlp": "swiglu", "rope": True, "times": "logit_normal", "cosine_weight": 1.0}


@frozen(kw_only=True)
class LightningDiTImporterConfig(FlowImporterConfig):
    """Options that do not follow from the weights."""

    statistics: str | None = field(
        default=None,
        metadata={"doc": "file latents_stats.pt with mean and std per channel, instead of the options mean and std"},
    )
    guided_channels: int = field(
        default=3,
        validator=width_range,
        metadata={"doc": "number of first channels of a token to guide; the published scales are for 3"},
    )

    def __attrs_post_init__(self) -> None:
        if self.statistics is not None and (self.mean, self.std) != (None, None):
            raise ValueError("statistics already gives mean and std: set either statistics or mean and std")


class LightningDiTImporter(Importer):
    """Reads a LightningDiT, whose time points to the data; in ours t = 1 is noise."""

    Config = LightningDiTImporterConfig
    makes = "generator"

    def __init__(self, config: LightningDiTImporterConfig) -> None:
        self.config = config

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_published(path)
        require(published, {**TELLING, **_TELLING}, "LightningDiT", str(path))
        table = {
            **size_table(published, self.config.num_heads, _HIDDEN, str(path)),
            **_STYLE,
            "direction": "data",
            "guided_channels": self.config.guided_channels,
        }
        statistics, grid = self._statistics(), _grid(published, path)
        report["statistics"] = statistics.report
        full_table, generator = build_flow(
            registry, table, _in_our_shapes(published), grid=grid, statistics=statistics, where=str(path)
        )
        return full_table, generator, report

    def also_reads(self, path: Path) -> Sequence[Path]:
        """The file of statistics, if there is one."""
        return [Path(file) for file in (self.config.statistics,) if file is not None and Path(file).is_file()]

    def _statistics(self) -> LatentStatistics:
        file = self.config.statistics
        if file is None:
            return given_statistics(self.config)
        weights = read_weights(Path(file)).weights
        require(weights, {"mean": None, "std": None}, "file of latent statistics", file)
        return LatentStatistics(mean=weights["mean"], std=weights["std"], where=file, report=f"mean and std of {file}")

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `flow_transformer` in LightningDiT's style, without the statistics of its latents."""
        weights = export_flow(component, "LightningDiT", {"blocks.0.mlp.w3.weight": True, "rotations": True})
        config: Any = component.config
        if config.direction != "data":
            raise RobustokError('the published LightningDiT format holds only generators of direction "data"')
        weights[_TOKENS] = weights.pop("x_embedder.weight")[:, :, None, None]
        weights[_BIAS] = weights.pop("x_embedder.bias")
        cosines, sines = weights.pop("rotations").repeat_interleave(2, dim=1).unbind(-1)
        return {**weights, _COSINES: cosines.contiguous(), _SINES: sines.contiguous()}


def _in_our_shapes(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turns the 1 x 1 convolution into a linear layer and keeps each channel pair's rotation once."""
    weights = dict(published)
    weights["x_embedder.weight"] = weights.pop(_TOKENS).flatten(1)
    weights["x_embedder.bias"] = weights.pop(_BIAS)
    weights["rotations"] = torch.stack([weights.pop(_COSINES), weights.pop(_SINES)], dim=-1)[:, ::2].contiguous()
    return weights


def _grid(published: Mapping[str, Tensor], path: Path) -> tuple[int, int]:
    if published[_COSINES].shape != published[_SINES].shape:
        raise RobustokError(f"{_COSINES} and {_SINES} must have the same shape", where=str(path))
    num_tokens = published["pos_embed"].shape[1]
    side = math.isqrt(num_tokens)
    if side * side != num_tokens or published[_TOKENS].shape[2:] != (1, 1):
        raise RobustokError("only square grids with one token per position can be read", where=str(path))
    return side, side
