"""LlamaGen's generators (c2i_B_256.pt, ...) and GigaTok's (GPT_B256_e300_VQ_....pt), for `llamagen_gpt`."""

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
    code_space,
    count_numbered,
    heads_by_width,
    heads_field,
    load_generator,
    read_published,
    require,
    to_published,
)

NAMES = [("cls_embedding.embedding_table.", "class_embedding."), ("tok_embeddings.", "token_embedding.")]
_TELLING = {
    "cls_embedding.embedding_table.weight": 2,
    "tok_embeddings.weight": 2,
    "layers.0.feed_forward.w1.weight": 2,
    "output.weight": 2,
}
#: Width and heads of the 3B model, whose heads are wider than the others' 64.
_WIDTH_3B, _HEADS_3B = 3200, 32


@frozen(kw_only=True)
class LlamaGenGPTImporterConfig:
    """Options that do not follow from the shapes of the weights."""

    num_tokens: int | None = field(
        default=None,
        validator=validators.optional(width_range),
        metadata={
            "doc": "N, tokens per image; left out: 576 if the file's name ends in _384, as of files for 384 pixels, "
            "else 256"
        },
    )
    code_width: int = field(
        default=8, validator=width_range, metadata={"doc": "D of the tokenizer whose codes it samples"}
    )
    num_heads: int | None = heads_field("32 for the 3B model, otherwise one per 64 of the width")


class LlamaGenGPTImporter(Importer):
    """Reads a generator of LlamaGen, or of GigaTok if the file has a table of positions."""

    Config = LlamaGenGPTImporterConfig
    makes = "generator"

    def __init__(self, config: LlamaGenGPTImporterConfig) -> None:
        self.config = config

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_published(path)
        require(published, _TELLING, "llamagen_gpt", str(path), {"positional_embedding": 2})
        if published.pop("freqs_cis", None) is not None:
            report["freqs_cis"] = "dropped: follows from the grid of the tokens"
        positions = published.get("positional_embedding")
        num_tokens = self._num_tokens(path) if positions is None else len(positions) - 1
        space = code_space(
            num_tokens, self.config.code_width, len(published["output.weight"]), on_grid=positions is None
        )
        num_classes = len(published["cls_embedding.embedding_table.weight"]) - 1
        table, generator = load_generator(
            registry, self._table(published), published, NAMES, str(path), space=space, num_classes=num_classes
        )
        report["codes"] = f"assumed to be those of a tokenizer of this space: {space.describe()}"
        return table, generator, report

    def _num_tokens(self, path: Path) -> int:
        """The option, else by the pixels that LlamaGen's files are named after; 16 x 16 of them are a token."""
        return self.config.num_tokens or (576 if path.stem.endswith("_384") else 256)

    def _table(self, published: Mapping[str, Tensor]) -> dict[str, Any]:
        width = published["tok_embeddings.weight"].shape[1]
        published_heads = _HEADS_3B if width == _WIDTH_3B else None
        return {
            "use": "llamagen_gpt",
            "width": width,
            "depth": count_numbered(published, "layers."),
            "num_heads": self.config.num_heads or published_heads or heads_by_width(width),
            "mlp_width": len(published["layers.0.feed_forward.w1.weight"]),
            "positions": "learned" if "positional_embedding" in published else "rope",
        }

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `llamagen_gpt` under the published names."""
        weights = component.state_dict()
        if "layers.0.attention.wqkv.weight" not in weights or "class_embedding.weight" not in weights:
            raise RobustokError("the published LlamaGen format holds only llamagen_gpt generators")
        return {to_published(name, NAMES): value for name, value in weights.items()}
