"""The RAR generators of qiuk6/RobusTok (rar_b.bin, rar_l.bin) and of yucornetto/RAR, for `rar`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.kinds.importer import Importer
from robustok_core.recipe.validators import width_range
from robustok_hub.published_names import (
    NameRules,
    code_space,
    count_numbered,
    load_generator,
    read_published,
    require,
    to_published,
)

_TELLING = {
    "embeddings.weight": 2,
    "lm_head.weight": 2,
    "pos_embed": 3,
    "target_aware_pos_embed": 3,
    "timesteps_embeddings": 3,
    "blocks.0.attn.q_norm.weight": 1,
    "blocks.0.mlp.fc1.weight": 2,
}
#: Rows of released tables beyond one per token.
_SPARE_POSITIONS, _SPARE_TIMESTEPS = 1024, 100
#: Rows of the embedding besides codes and classes: the mask and the null class.
_MASK_AND_NULL = 2


def _names(depth: int) -> NameRules:
    return [
        *((f"blocks.{i}.adaLN_modulation.1.", f"blocks.{i}.modulation.") for i in range(depth)),
        ("adaln_before_head.adaLN_modulation.1.", "head.modulation."),
        ("lm_head.", "head.to_logits."),
    ]


@frozen(kw_only=True)
class RARImporterConfig:
    """Options that do not follow from the shapes of the weights."""

    code_width: int = field(
        default=64,
        validator=width_range,
        metadata={"doc": "D of the tokenizer whose codes it samples: 64 for RobusTok's, 256 for MaskGIT-VQ's"},
    )
    num_tokens: int | None = field(
        default=None,
        validator=validators.optional(width_range),
        metadata={"doc": "N, tokens per image; left out: inferred from the tables"},
    )


class RARImporter(Importer):
    """Reads a RAR generator."""

    Config = RARImporterConfig
    makes = "generator"

    def __init__(self, config: RARImporterConfig) -> None:
        self.config = config

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_published(path)
        require(published, _TELLING, "rar", str(path))
        names = _names(count_numbered(published, "blocks."))
        codebook_size = len(published["lm_head.weight"])
        space = code_space(self._num_tokens(published, str(path)), self.config.code_width, codebook_size)
        num_classes = len(published["embeddings.weight"]) - codebook_size - _MASK_AND_NULL
        table, generator = load_generator(
            registry, self._table(published), published, names, str(path), space=space, num_classes=num_classes
        )
        report["codes"] = f"assumed to be those of a tokenizer of this space: {space.describe()}"
        return table, generator, report

    def _num_tokens(self, published: Mapping[str, Tensor], where: str) -> int:
        positions, timesteps = published["pos_embed"].shape[1], published["timesteps_embeddings"].shape[1]
        if self.config.num_tokens is not None:
            return self.config.num_tokens
        if positions - _SPARE_POSITIONS == timesteps - _SPARE_TIMESTEPS:
            return positions - _SPARE_POSITIONS
        if positions == timesteps:  # no spare rows: the tokens, the cls token and the class
            return positions - 2
        raise RobustokError(
            f"the number of tokens does not follow from tables of {positions} and {timesteps} rows",
            where=where,
            hint="set the importer's num_tokens",
        )

    def _table(self, published: Mapping[str, Tensor]) -> dict[str, Any]:
        width = published["embeddings.weight"].shape[1]
        return {
            "use": "rar",
            "width": width,
            "depth": count_numbered(published, "blocks."),
            "num_heads": max(1, width // len(published["blocks.0.attn.q_norm.weight"])),
            "mlp_width": len(published["blocks.0.mlp.fc1.weight"]),
            "position_rows": published["pos_embed"].shape[1],
            "timestep_rows": published["timesteps_embeddings"].shape[1],
        }

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `rar` under the published names."""
        weights = component.state_dict()
        if "blocks.0.modulation.weight" not in weights or "target_aware_pos_embed" not in weights:
            raise RobustokError("the published RAR format holds only rar generators")
        names = _names(count_numbered(weights, "blocks."))
        return {to_published(name, names): value for name, value in weights.items()}
