"""Autoencoders of latent diffusion in its own layout (arXiv 2112.10752), for `kl_vae`.

| file | options of the importer |
|---|---|
| VA-VAE: vavae-imagenet256-f16d32-dinov2.pt (arXiv 2501.01423) | none |
| Stable Diffusion's: vae-ft-mse-840000-ema-pruned.ckpt, kl-f8, and the autoencoder in a whole checkpoint | none |

Latents are read as they are: the factor of a diffusion model (0.18215 for Stable Diffusion's) belongs to that model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robustok_core.kinds.component import Builder
from robustok_hub.conv_files import TELLING, TamingImporter, build_networks, export_networks, read_networks

_CONVOLUTIONS = ("quant_conv.weight", "post_quant_conv.weight")
_DROPPED = {
    "foundation_model.": "the teacher of VA-VAE's loss",
    "linear_proj.": "the projection to the teacher of VA-VAE's loss",
}


class LDMVAE(TamingImporter):
    """Reads an autoencoder with a Gaussian posterior in latent diffusion's layout."""

    def load(self, path: Path, registry: Builder) -> tuple[Mapping[str, Any], nn.Module, Mapping[str, str]]:
        published, report = read_networks(path, "ldm_vae", TELLING, _DROPPED)
        z_channels = published["decoder.conv_in.weight"].shape[1]
        convolution = published.get("post_quant_conv.weight")
        width = z_channels if convolution is None else convolution.shape[1]
        table = {
            "use": "kl_vae",
            "width": width,
            "double_z": len(published["encoder.conv_out.weight"]) == 2 * z_channels,
            "latent_convs": any(name in published for name in _CONVOLUTIONS),
        }
        full_table, tokenizer = build_networks(
            registry, table, published, self.config, path, report, sizes={"embed_dim": width}
        )
        return full_table, tokenizer, report

    def export(self, component: nn.Module) -> Mapping[str, Tensor]:
        """The weights of a `kl_vae` with `double_z` under the published names."""
        fits = getattr(getattr(component, "config", None), "double_z", False)
        return export_networks(component, "kl_vae tokenizers with double_z = true", fits=fits)
