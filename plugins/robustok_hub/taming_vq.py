"""The VQGANs of CompVis/taming-transformers (vqgan_imagenet_f16_1024, vqgan_imagenet_f16_16384), for `conv_vq`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robustok_core.kinds.component import Builder
from robustok_hub.conv_files import TELLING, TamingImporter, build_networks, export_networks, read_networks
from robustok_hub.vq_files import CODEBOOK

#: The published loss: its 0.25 is the codebook term's (`legacy`), and the commitment term has weight 1.
_VQ = {"use": "vq", "l2_normalise": False, "commitment": 1.0, "codebook_weight": 0.25}


class TamingVQ(TamingImporter):
    """Reads a VQGAN of taming-transformers, whose codes are the nearest codewords, without any normalisation.

    IBQ's files have the same names but another lookup: the importer `ibq` reads them.
    """

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_networks(path, "taming_vq", {**TELLING, CODEBOOK[0]: 2})
        codebook_size, width = published[CODEBOOK[0]].shape
        table = {"use": "conv_vq", "quantizer": {**_VQ, "codebook_size": codebook_size, "width": width}}
        sizes = {"n_embed": codebook_size, "embed_dim": width}
        full_table, tokenizer = build_networks(
            registry, table, published, self.config, path, report, rules=[CODEBOOK], sizes=sizes
        )
        report["lookup"] = "assumed to be the nearest codeword: IBQ's files, which look the same, have another one"
        return full_table, tokenizer, report

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `conv_vq` with a `vq` that does not normalise, under the published names."""
        what = "conv_vq tokenizers with a vq quantizer, l2_normalise = false"
        quantizer = getattr(component, "quantizer", None)
        fits = getattr(getattr(quantizer, "config", None), "l2_normalise", None) is False
        return export_networks(component, what, fits=fits, rules=[CODEBOOK])
