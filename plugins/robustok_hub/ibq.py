"""The tokenizers of IBQ (imagenet256_16384.ckpt and others, TencentARC/IBQ-Tokenizer-16384), for `conv_vq`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robustok_core.kinds.component import Builder
from robustok_hub.conv_files import TELLING, TamingImporter, build_networks, export_networks, read_networks
from robustok_hub.vq_files import CODEBOOK


class IBQImporter(TamingImporter):
    """Reads an IBQ tokenizer: the averaged weights if the file has them, as in the published numbers."""

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_networks(path, "ibq", {**TELLING, CODEBOOK[0]: 2})
        codebook_size, width = published[CODEBOOK[0]].shape
        table = {"use": "conv_vq", "quantizer": {"use": "ibq", "codebook_size": codebook_size, "width": width}}
        sizes = {"n_embed": codebook_size, "embed_dim": width}
        full_table, tokenizer = build_networks(
            registry, table, published, self.config, path, report, rules=[CODEBOOK], sizes=sizes
        )
        report["lookup"] = "assumed to be the largest dot product: VQGAN's files, which look the same, have another one"
        return full_table, tokenizer, report

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `conv_vq` with an `ibq` under the published names."""
        fits = getattr(getattr(component, "quantizer", None), "nearest_by", None) == "dot product"
        return export_networks(component, "conv_vq tokenizers with an ibq quantizer", fits=fits, rules=[CODEBOOK])
