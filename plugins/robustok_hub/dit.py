"""DiT (DiT-XL-2-256x256.pt, DiT-XL-2-512x512.pt; Peebles & Xie 2022, arXiv 2212.09748), for `dit`.

Its latents are those of Stable Diffusion's autoencoder times 0.18215, as `diffusers_vae` gives them. Published
sampling: 250 steps of ddpm, guidance of scale 1.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robustok_core.kinds.component import Builder
from robustok_hub.flow_files import (
    IMAGES,
    TELLING,
    NetworkImporterConfig,
    build_network,
    export_network,
    given_statistics,
    network_table,
)
from robustok_hub.published_config import PublishedConfig, ReadsConfig
from robustok_hub.published_names import read_published, require


class DiTImporter(ReadsConfig):
    """Reads a DiT with learned variances, as all released ones."""

    Config = NetworkImporterConfig
    makes = "generator"

    def __init__(self, config: NetworkImporterConfig) -> None:
        self.config = config

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_published(path)
        require(published, {**TELLING, **IMAGES, "blocks.0.mlp.fc2.weight": 2}, "dit", str(path))
        beside, statistics = PublishedConfig.beside(path), given_statistics(self.config)
        table = {"use": "dit", **network_table(published, self.config, beside, str(path))}
        report["model"] = "assumed to be a DiT: the weights of a SiT of images have the same names and shapes"
        report["statistics"] = statistics.report
        full_table, generator = build_network(registry, table, published, statistics=statistics, where=str(path))
        return full_table, generator, report

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `dit` under the published names, without the statistics of its latents."""
        weights, self.noted = export_network(component, "DiT", "dit", {}, images=True)
        return weights
