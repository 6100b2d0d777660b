"""The tokenizers of VQGAN-LC (vqgan-lc-100K-f16-dim8.pth), for `conv_vq` with `projected_vq`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_hub.conv_files import TELLING, TamingImporter, build_networks, export_networks, read_networks

_TABLE, _PROJECTION = "tok_embeddings.weight", "codebook_projection.weight"
_RULES = [(_TABLE, "quantizer.table"), ("codebook_projection.", "quantizer.projection.")]
_DROPPED = {"discriminator.": "the discriminator of its training", "perceptual_loss.": "the network of a loss"}
#: The published code normalises vectors of this width, and only of this one.
_NORMALISED_WIDTH = 768


class VQGANLC(TamingImporter):
    """Reads a VQGAN-LC tokenizer: a frozen table of CLIP features, and the linear layer that makes codewords of it."""

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        telling = {**TELLING, _TABLE: 2, _PROJECTION: 2}
        published, report = read_networks(path, "vqgan_lc", telling, _DROPPED)
        (codebook_size, table_width), width = published[_TABLE].shape, len(published[_PROJECTION])
        if width == _NORMALISED_WIDTH:
            what = f"a VQGAN-LC tokenizer of width {width} normalises its vectors, which projected_vq does not"
            raise RobustokError(what, where=str(path))
        quantizer = {
            "use": "projected_vq",
            "codebook_size": codebook_size,
            "width": width,
            "table_width": table_width,
        }
        table = {"use": "conv_vq", "quantizer": quantizer}
        sizes = {"n_embed": codebook_size, "embed_dim": width}
        full_table, tokenizer = build_networks(
            registry, table, published, self.config, path, report, rules=_RULES, sizes=sizes
        )
        return full_table, tokenizer, report

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `conv_vq` with a `projected_vq` under the published names."""
        fits = "quantizer.table" in component.state_dict()
        what = "conv_vq tokenizers with a projected_vq quantizer"
        return export_networks(component, what, fits=fits, rules=_RULES)
