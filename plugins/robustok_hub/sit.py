"""SiT (Ma et al. 2024, arXiv 2401.08740), for `flow_transformer`.

| file | latents |
|---|---|
| SiT-XL-2-256x256.pt of willisma/SiT | images: patches of a grid |
| sit-xl_maetok-b-128, sit-xl_softvq-... of MAETok and SoftVQ | one-dimensional: tokens without a place |

The latents of images are those of Stable Diffusion's autoencoder times 0.18215, as `diffusers_vae` gives them.
Published sampling: euler_maruyama with 250 steps; SoftVQ's command samples with the path "cosine".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_hub.flow_files import (
    IMAGES,
    PATCHES,
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
)
from robustok_hub.published_config import PublishedConfig, ReadsConfig, existing
from robustok_hub.published_names import read_published, require

#: Options of the generators that the format holds.
_STYLE: dict[str, Sequence[Any]] = {"norm": ["layer"], "mlp": ["gelu_tanh"], "rope": [False], "shift": [True]}
_IMAGES: dict[str, Sequence[Any]] = {"qk_norm": [False]}
_SEQUENCES: dict[str, Sequence[Any]] = {"patch_size": [1], "learn_sigma": [False]}


@frozen(kw_only=True)
class SiTImporterConfig(FlowImporterConfig):
    """Options that do not follow from the weights."""

    statistics: str | None = field(
        default=None,
        metadata={
            "doc": "config.json of MAETok's or SoftVQ's tokenizer, whose vq_mean and vq_std are mean and deviation of "
            "the latents, instead of the options mean and std"
        },
    )

    def __attrs_post_init__(self) -> None:
        refuse_both(self, self.statistics)


class SiTImporter(ReadsConfig):
    """Reads a SiT of images, whose time points to the data, or a one-dimensional one, whose time points to noise.

    MAETok stores mean and deviation of its latents, one number each, as vq_mean and vq_std in the tokenizer's
    configuration.
    """

    Config = SiTImporterConfig
    makes = "generator"

    def __init__(self, config: SiTImporterConfig) -> None:
        self.config = config

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_published(path)
        images = PATCHES in published
        tokens = IMAGES if images else {"x_embedder.weight": 2}
        require(published, {**TELLING, **tokens, "blocks.0.mlp.fc2.weight": 2}, "sit", str(path))
        beside = PublishedConfig.beside(path)
        table = {
            "use": "flow_transformer",
            **network_table(published, self.config, beside, str(path)),
            **extras_table(published),
            "path": path_of(self.config, beside, report),
            "direction": "data" if images else "noise",
        }
        if images:
            report["model"] = "assumed to be a SiT: the weights of a DiT have the same names and shapes"
        statistics = self._statistics()
        report["statistics"] = statistics.report
        if not images and self.config.statistics is None and (self.config.mean is None or self.config.std is None):
            report["statistics"] += ": the tokenizer's config.json has them, see the option statistics"
        full_table, generator = build_network(registry, table, published, statistics=statistics, where=str(path))
        return full_table, generator, report

    def also_reads(self, path: Path) -> Sequence[Path]:
        """The configuration beside the weights and that of the tokenizer, if there are any."""
        return [*super().also_reads(path), *existing(self.config.statistics)]

    def _statistics(self) -> LatentStatistics:
        file = self.config.statistics
        if file is None:
            return given_statistics(self.config)
        config = PublishedConfig.read(Path(file))
        mean, std = config.get("vq_mean", float), config.get("vq_std", float)
        if mean is None or std is None:
            hint = "name config.json of the tokenizer, or set the importer's mean and std"
            raise RobustokError("this configuration does not have vq_mean and vq_std", where=file, hint=hint)
        report = f"vq_mean {mean} and vq_std {std} of {file}"
        return LatentStatistics(mean=[mean], std=[std], where=file, report=report)

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `flow_transformer` in SiT's style, without the statistics of its latents.

        One of direction "data" is a SiT of images, one of direction "noise" one-dimensional.
        """
        images = getattr(getattr(component, "config", None), "direction", "noise") == "data"
        holds = _STYLE | (_IMAGES if images else _SEQUENCES)
        weights, self.noted = export_network(component, "SiT", "flow_transformer", holds, images=images)
        return weights
