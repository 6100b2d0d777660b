"""SoftVQ's tokenizers (SoftVQVAE/softvq-l-64, ...: model.safetensors), for `mae_tok` with a soft codebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_hub.maetok import MAETokImporter, MAETokImporterConfig, export_mae_tok, telling
from robustok_hub.published_config import PublishedConfig
from robustok_hub.published_names import require

#: What released files have.
_TEMPERATURE, _L2_NORMALISE = 0.07, True


@frozen(kw_only=True)
class SoftVQImporterConfig(MAETokImporterConfig):
    """Options that do not follow from the weights.

    Left out, they are as the published config.json beside the weights says, if it is there.
    """

    temperature: float | None = field(
        default=None,
        validator=validators.optional(validators.gt(0.0)),
        metadata={"doc": f"tau: temperature of the softmax over codewords; left out: {_TEMPERATURE}"},
    )
    l2_normalise: bool | None = field(
        default=None,
        validator=validators.optional(validators.instance_of(bool)),
        metadata={"doc": "codebook_l2_norm: compare on the unit sphere; left out: true, as in all released files"},
    )


class SoftVQImporter(MAETokImporter):
    """Reads a SoftVQ tokenizer, whose networks are MAETok's."""

    Config = SoftVQImporterConfig

    def _require(self, published: Mapping[str, Tensor], where: str) -> None:
        wanted = telling() | {"quantize.embedding": 3}
        require(published, wanted, "softvq", where, {"decoder.model.pos_embed": 3})

    def _options(self, weights: Mapping[str, Tensor], config: PublishedConfig, report: dict[str, str]) -> Any:
        num_tables, size, _ = weights["soft_codebook.embedding"].shape
        config.must_agree({"num_codebooks": num_tables, "codebook_size": size})
        return super()._options(weights, config, report)

    def _published(self, config: PublishedConfig, mixed: bool) -> dict[str, Any]:
        codebook = {"temperature": config.get("tau", float), "l2_normalise": config.get("codebook_l2_norm", bool)}
        return super()._published(config, mixed) | codebook

    def _table(self, weights: Mapping[str, Tensor], options: Any) -> dict[str, Any]:
        num_tables, size, _ = weights["soft_codebook.embedding"].shape
        soft = {
            "num_tables": num_tables,
            "size": size,
            "temperature": options.temperature or _TEMPERATURE,
            "l2_normalise": _L2_NORMALISE if options.l2_normalise is None else options.l2_normalise,
        }
        return super()._table(weights, options) | {"soft_codebook": soft}

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `mae_tok` with a soft codebook under the published names, without the targets."""
        weights = component.state_dict()
        if not {"soft_codebook.embedding", "encoder.latent_pos_embed"} <= weights.keys():
            raise RobustokError("the published SoftVQ format holds only mae_tok tokenizers with a soft_codebook")
        return export_mae_tok(weights)
