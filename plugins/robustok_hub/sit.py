"""The one-dimensional SiT of MAETok and SoftVQ (sit-xl_maetok-b-128 and others), for `flow_transformer`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robustok_core.kinds.component import Builder
from robustok_core.kinds.importer import Importer
from robustok_hub.flow_files import TELLING, FlowImporterConfig, build_flow, export_flow, given_statistics, size_table
from robustok_hub.published_names import read_published, require

_HIDDEN = "blocks.0.mlp.fc2.weight"


class SiTImporter(Importer):
    """Reads a SiT trained on the linear path. With another path, which the weights do not show, it samples nonsense.

    MAETok stores mean and deviation of its latents, one number each, as vq_mean and vq_std in the tokenizer's
    configuration.
    """

    Config = FlowImporterConfig
    makes = "generator"

    def __init__(self, config: FlowImporterConfig) -> None:
        self.config = config

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_published(path)
        require(published, {**TELLING, "x_embedder.weight": 2, _HIDDEN: 2}, "one-dimensional SiT", str(path))
        table = size_table(published, self.config.num_heads, _HIDDEN, str(path))
        report["path"] = 'assumed to be "linear": check the configuration beside the weights'
        statistics = given_statistics(self.config)
        report["statistics"] = statistics.report
        full_table, generator = build_flow(
            registry, table, published, grid=None, statistics=statistics, where=str(path)
        )
        return full_table, generator, report

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `flow_transformer` in SiT's style, without the statistics of its latents."""
        return export_flow(
            component,
            "SiT",
            {"blocks.0.mlp.fc1.weight": True, "blocks.0.norm1.weight": False, "rotations": False},
        )
