"""SoftVQ's tokenizers (SoftVQVAE/softvq-l-64, ...: model.safetensors), for `mae_tok` with a soft codebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_hub.maetok import MAETokImporter, MAETokImporterConfig, export_mae_tok, telling
from robustok_hub.published_names import l2_normalise_field, require


@frozen(kw_only=True)
class SoftVQImporterConfig(MAETokImporterConfig):
    """Options that do not follow from the weights but from the published config.json."""

    temperature: float = field(
        default=0.07, validator=validators.gt(0.0), metadata={"doc": "tau: temperature of the softmax over codewords"}
    )
    l2_normalise: bool = l2_normalise_field()


class SoftVQImporter(MAETokImporter):
    """Reads a SoftVQ tokenizer, whose networks are MAETok's."""

    Config = SoftVQImporterConfig
    config: SoftVQImporterConfig

    def _require(self, published: Mapping[str, Tensor], where: str) -> None:
        wanted = telling() | {"quantize.embedding": 3}
        require(published, wanted, "SoftVQ tokenizer", where, {"decoder.model.pos_embed": 3})

    def _table(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        num_tables, size, _ = weights["soft_codebook.embedding"].shape
        soft = {"num_tables": num_tables, "size": size, "temperature": self.config.temperature}
        return super()._table(weights) | {"soft_codebook": soft | {"l2_normalise": self.config.l2_normalise}}

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `mae_tok` with a soft codebook under the published names, without the targets."""
        weights = component.state_dict()
        if not {"soft_codebook.embedding", "encoder.latent_pos_embed"} <= weights.keys():
            raise RobustokError("the published SoftVQ format holds only mae_tok tokenizers with a soft_codebook")
        return export_mae_tok(weights)
