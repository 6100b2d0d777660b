"""Pretrained autoencoders of the diffusers library, continuous and discrete.

| class | latents | examples |
|---|---|---|
| AutoencoderKL | a Gaussian posterior, (z - shift_factor) * scaling_factor | Stable Diffusion's and FLUX's |
| AutoencoderDC | deterministic, z * scaling_factor | DC-AE (arXiv 2410.10733) |
| AutoencoderRAE | frozen features, normalised, times scaling_factor | RAE (arXiv 2510.11690); needs transformers |
| VQModel | its unscaled codewords; it keeps its own codebook, trained by gradient only | LDM's |

So latents are scaled as the diffusion models of an autoencoder read them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attrs import field, frozen
from torch import Tensor, nn

from robustok_blocks.straight_through import straight_through
from robustok_core.errors import RobustokError
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.recipe.validators import side_range
from robustok_core.values.download import Download
from robustok_core.values.latents import Latents, LatentSpace
from robustok_tokenizers.diffusers_models import load_model, locate, repository_files, saved_files
from robustok_tokenizers.diffusers_rae import RAEDecoder, RAEEncoder
from robustok_tokenizers.gaussian_posterior import kl_weight_field, posterior_latents
from robustok_tokenizers.grid_tokenizer import GridTokenizer

_COMMITMENT = 0.25


@frozen(kw_only=True)
class DiffusersVAEConfig:
    """Options of `diffusers_vae`."""

    source: str = field(
        metadata={
            "doc": "a folder saved by diffusers, or a repository on the hub; config.json is read whenever the "
            "tokenizer is built, the weights only the first time"
        }
    )
    subfolder: str = field(default="", metadata={"doc": 'subfolder of a pipeline that holds the model, such as "vae"'})
    image_size: int = field(
        default=256, validator=side_range, metadata={"doc": "height and width of the images, in pixels"}
    )
    kl_weight: float = kl_weight_field()


@frozen(kw_only=True, eq=False)
class Parts:
    """A diffusers model in parts.

    Attributes:
        encoder: images to maps. quant_conv, post_quant_conv: on both sides of the latents. decoder: maps to images.
        last: the name of the decoder's last weight. side: of a token in pixels. width: of a token.
        scale, shift: latents are (z - shift) * scale. quantizer: of a discrete model.
        posterior: whether the encoder gives moments of a Gaussian. image_size: the only one possible, or None.
    """

    encoder: nn.Module
    decoder: nn.Module
    width: int
    side: int
    quant_conv: nn.Module = field(factory=nn.Identity)
    post_quant_conv: nn.Module = field(factory=nn.Identity)
    last: str = "conv_out.weight"
    scale: float = 1.0
    shift: float = 0.0
    quantizer: OwnCodebook | None = None
    posterior: bool = False
    image_size: int | None = None


def parts_of(model: Any) -> Parts:
    """The parts of a diffusers model of a kind that is supported."""
    kind, options = type(model).__name__, model.config
    if kind == "AutoencoderDC":
        return Parts(
            encoder=model.encoder,
            decoder=model.decoder,
            width=options["latent_channels"],
            side=model.spatial_compression_ratio,
            scale=options["scaling_factor"] or 1.0,
        )
    if kind == "AutoencoderRAE":
        return Parts(
            encoder=RAEEncoder(model),
            decoder=RAEDecoder(model),
            width=options["encoder_hidden_size"],
            side=options["patch_size"],
            last="network.decoder_pred.weight",
            scale=options["scaling_factor"],
            image_size=model.decoder_image_size,
        )
    quantizer = OwnCodebook(model.quantize.embedding) if kind == "VQModel" else None
    return Parts(
        encoder=model.encoder,
        decoder=model.decoder,
        width=options["latent_channels"] if quantizer is None else quantizer.width,
        side=2 ** (len(options["block_out_channels"]) - 1),
        quant_conv=model.quant_conv or nn.Identity(),
        post_quant_conv=model.post_quant_conv or nn.Identity(),
        scale=options["scaling_factor"] if quantizer is None else 1.0,
        shift=(options.get("shift_factor") or 0.0) if quantizer is None else 0.0,
        quantizer=quantizer,
        posterior=quantizer is None,
    )


class DiffusersVAE(GridTokenizer):
    """A diffusers autoencoder as a tokenizer; its tokens are the positions of the latent map."""

    Config = DiffusersVAEConfig

    def __init__(self, config: DiffusersVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        model = load_model(config.source, config.subfolder)
        parts = parts_of(model)
        self._check(parts, type(model).__name__)
        self.encoder, self.quant_conv = parts.encoder, parts.quant_conv
        self.post_quant_conv, self.pixel_decoder = parts.post_quant_conv, parts.decoder
        self.quantizer = parts.quantizer
        self.scale, self.shift = parts.scale, parts.shift
        #: The model's config.json, for export; None if its weights have other names here.
        self.published_configuration = None if parts.image_size else json.loads(model.to_json_string())
        self._last, self._posterior = parts.last, parts.posterior
        side = config.image_size // parts.side
        self.space = LatentSpace(
            kind="continuous" if parts.quantizer is None else "discrete",
            num_tokens=side * side,
            width=parts.width,
            codebook_size=None if parts.quantizer is None else parts.quantizer.codebook_size,
            grid=(side, side),
        )

    def _check(self, parts: Parts, kind: str) -> None:
        """Checks the options against the model.

        Raises:
            RobustokError: the model has no such image size, or no posterior.
        """
        size, source = self.config.image_size, self.config.source
        if parts.image_size not in (None, size):
            what = f"{source} is for images of {parts.image_size} pixels, not of {size}"
            raise RobustokError(what, where="tokenizer.image_size")
        if size % parts.side:
            what = f"image_size {size} is not a multiple of {parts.side}, the side of a token of {source}"
            raise RobustokError(what, where="tokenizer.image_size")
        if not parts.posterior and self.config.kl_weight != DiffusersVAEConfig(source="").kl_weight:
            what = f"{source} holds a {kind}, which has no posterior"
            raise RobustokError(what, where="tokenizer.kl_weight", hint="leave it out")

    @classmethod
    def downloads(cls, config: DiffusersVAEConfig) -> Iterable[Download]:
        _, options = locate(config.source, config.subfolder)
        return repository_files(config.source, config.subfolder) if options else ()

    @classmethod
    def files(cls, config: DiffusersVAEConfig) -> Iterable[Path]:
        return saved_files(config.source, config.subfolder)

    def encode(self, images: Tensor) -> Latents:
        """Latents of images (B, 3, H, W) in [-1, 1]; `features` are the posterior's means, or what is quantized."""
        hidden = self.tokens(images)
        if self.quantizer is not None:
            return self.quantizer.quantize(hidden)
        if not self._posterior:
            vectors = self._scaled(hidden.float())
            return Latents(vectors=vectors, features=vectors)
        latents = posterior_latents(hidden, training=self.encoder.training, kl_weight=self.config.kl_weight)
        assert latents.vectors is not None
        assert latents.features is not None
        return latents.evolve(vectors=self._scaled(latents.vectors), features=self._scaled(latents.features))

    def _scaled(self, vectors: Tensor) -> Tensor:
        return (vectors - self.shift) * self.scale

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Images (B, 3, H, W), not clamped, from vectors (B, N, D)."""
        return super().decode_vectors(vectors / self.scale + self.shift)

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the layer that outputs the pixels."""
        return self.pixel_decoder.get_parameter(self._last)


class OwnCodebook(Quantizer):
    """The codebook of a VQModel (K, D): nearest codeword by L2, straight-through, codebook and commitment losses."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.codebook_size, self.width = embedding.num_embeddings, embedding.embedding_dim
        self.embedding = embedding.weight

    def quantize(self, z: Tensor) -> Latents:
        codes = self.nearest(z.detach().flatten(0, 1), 1).view(z.shape[:2])
        codewords, z = self.lookup(codes), z.float()
        losses = {}
        if self.training:
            losses = {
                "codebook": (codewords - z.detach()).square().mean(),
                "commitment": _COMMITMENT * (codewords.detach() - z).square().mean(),
            }
            codewords = straight_through(z, codewords)
        return Latents(vectors=codewords, codes=codes, features=z, losses=losses)

    def lookup(self, codes: Tensor) -> Tensor:
        return nn.functional.embedding(codes, self.embedding)

    @property
    def codebook(self) -> Tensor:
        return self.embedding
