"""LightningDiT (lightningdit-xl-imagenet256-800ep.pt and others of hustvl), for `flow_transformer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_hub.flow_files import (
    IMAGES,
    TELLING,
    FlowImporterConfig,
    LatentStatistics,
    build_network,
    export_network,
    extras_table,
    given_statistics,
    network_table,
    path_of,
    refuse_both,
    style_table,
)
from robustok_hub.known_files import better_importers
from robustok_hub.published_config import PublishedConfig, ReadsConfig, existing
from robustok_hub.published_names import read_published, require
from robustok_toolkit.weight_files import read_weights

_COSINES, _SINES = "feat_rope.freqs_cos", "feat_rope.freqs_sin"
_GATED = {"blocks.0.mlp.w12.weight": 2, "blocks.0.mlp.w3.weight": 2}
_PLAIN = {"blocks.0.mlp.fc2.weight": 2}


@frozen(kw_only=True)
class LightningDiTImporterConfig(FlowImporterConfig):
    """Options that do not follow from the weights."""

    statistics: str | None = field(
        default=None,
        metadata={"doc": "file latents_stats.pt with mean and std per channel, instead of the options mean and std"},
    )

    def __attrs_post_init__(self) -> None:
        refuse_both(self, self.statistics)


class LightningDiTImporter(ReadsConfig):
    """Reads a LightningDiT, whose time points to the data; in ours t = 1 is noise.

    Its weights show whether it has RMS norms or layer norms, a gated MLP or a plain one, rotary positions, normalised
    queries and keys, modulations without shifts (`wo_shift`), and patches.
    """

    Config = LightningDiTImporterConfig
    makes = "generator"

    def __init__(self, config: LightningDiTImporterConfig) -> None:
        self.config = config

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_published(path)
        mlp = _PLAIN if "blocks.0.mlp.fc2.weight" in published else _GATED
        rope = dict.fromkeys((_COSINES, _SINES), 2) if {_COSINES, _SINES} & published.keys() else {}
        require(published, {**TELLING, **IMAGES, **mlp, **rope}, "lightningdit", str(path))
        beside, statistics, style = PublishedConfig.beside(path), self._statistics(), style_table(published)
        table = {
            "use": "flow_transformer",
            **network_table(published, self.config, beside, str(path)),
            **style,
            **extras_table(published, style["norm"]),
            "times": "logit_normal",
            "cosine_weight": 1.0,
            "path": path_of(self.config, beside, report),
            "direction": "data",
        }
        if better_importers("lightningdit", published):
            report["model"] = "assumed to be a LightningDiT: the weights of a SiT and of a DiT have the same names"
        report["positions"] = "fixed and rotary" if rope else "fixed only: the file has no tables of rotary ones"
        report["statistics"] = statistics.report
        weights = _rotations_once(published, str(path)) if rope else published
        full_table, generator = build_network(registry, table, weights, statistics=statistics, where=str(path))
        return full_table, generator, report

    def also_reads(self, path: Path) -> Sequence[Path]:
        """The configuration beside the weights and the file of statistics, if there are any."""
        return [*super().also_reads(path), *existing(self.config.statistics)]

    def _statistics(self) -> LatentStatistics:
        file = self.config.statistics
        if file is None:
            return given_statistics(self.config)
        weights = read_weights(Path(file)).weights
        require(weights, {"mean": None, "std": None}, "a file of latent statistics", file)
        return LatentStatistics(mean=weights["mean"], std=weights["std"], where=file, report=f"mean and std of {file}")

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `flow_transformer` of direction "data", without the statistics of its latents."""
        holds = {"direction": ["data"]}
        weights, self.noted = export_network(component, "LightningDiT", "flow_transformer", holds, images=True)
        if "rotations" not in weights:
            return weights
        cosines, sines = weights.pop("rotations").repeat_interleave(2, dim=1).unbind(-1)
        return {**weights, _COSINES: cosines.contiguous(), _SINES: sines.contiguous()}


def _rotations_once(published: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Keeps the rotation of each pair of channels once."""
    weights = dict(published)
    cosines, sines = weights.pop(_COSINES), weights.pop(_SINES)
    if cosines.shape != sines.shape:
        raise RobustokError(f"{_COSINES} and {_SINES} must have the same shape", where=where)
    weights["rotations"] = torch.stack([cosines, sines], dim=-1)[:, ::2].contiguous()
    return weights
