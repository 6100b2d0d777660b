"""Pretrained autoencoders of the diffusers library: AutoencoderKL (continuous) and VQModel (discrete).

Latents of an AutoencoderKL are scaled as its diffusion models read them, (z - shift_factor) * scaling_factor;
those of a VQModel are its unscaled codewords. A VQModel keeps its own codebook, trained by gradient only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from safetensors import SafetensorError
from torch import Tensor, nn

from robustok_blocks.straight_through import straight_through
from robustok_core.errors import RobustokError
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.recipe.validators import side_range
from robustok_core.values.download import Download
from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.wording import reason_of
from robustok_tokenizers.gaussian_posterior import kl_weight_field, posterior_latents
from robustok_tokenizers.grid_tokenizer import GridTokenizer
from robustok_toolkit.downloads import hub_file

_WHERE = "tokenizer.source"
_KINDS = ("AutoencoderKL", "VQModel")
_COMMITMENT = 0.25
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


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


class DiffusersVAE(GridTokenizer):
    """A diffusers autoencoder as a tokenizer; its tokens are the positions of the latent map."""

    Config = DiffusersVAEConfig

    def __init__(self, config: DiffusersVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        model = _model(config)
        factor = 2 ** (len(model.config["block_out_channels"]) - 1)
        if config.image_size % factor:
            raise RobustokError(
                f"image_size {config.image_size} is not a multiple of {factor}, the side of a token of {config.source}",
                where="tokenizer.image_size",
            )
        side = config.image_size // factor
        self.encoder, self.pixel_decoder = model.encoder, model.decoder
        self.quant_conv = model.quant_conv or nn.Identity()
        self.post_quant_conv = model.post_quant_conv or nn.Identity()
        self.quantizer = _quantizer(model)
        if self.quantizer is not None and config.kl_weight != DiffusersVAEConfig(source="").kl_weight:
            what = f"{config.source} is a VQModel, which has no posterior"
            raise RobustokError(what, where="tokenizer.kl_weight", hint="leave it out")
        self.scale = 1.0 if self.quantizer is not None else model.config["scaling_factor"]
        self.shift = 0.0 if self.quantizer is not None else model.config.get("shift_factor") or 0.0
        self.space = LatentSpace(
            kind="continuous" if self.quantizer is None else "discrete",
            num_tokens=side * side,
            width=model.config["latent_channels"] if self.quantizer is None else self.quantizer.width,
            codebook_size=None if self.quantizer is None else self.quantizer.codebook_size,
            grid=(side, side),
        )

    @classmethod
    def downloads(cls, config: DiffusersVAEConfig) -> Iterable[Download]:
        _, options = _locate(config)
        return _repository_files(config) if options else ()

    def encode(self, images: Tensor) -> Latents:
        """Latents of images (B, 3, H, W) in [-1, 1]; `features` are the posterior's means, or what is quantized."""
        hidden = self.tokens(images)
        if self.quantizer is not None:
            return self.quantizer.quantize(hidden)
        latents = posterior_latents(hidden, training=self.encoder.training, kl_weight=self.config.kl_weight)
        assert latents.vectors is not None
        assert latents.features is not None
        return latents.evolve(vectors=self._scaled(latents.vectors), features=self._scaled(latents.features))

    def _scaled(self, vectors: Tensor) -> Tensor:
        return (vectors - self.shift) * self.scale

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Images (B, 3, H, W), not clamped, from vectors (B, N, D)."""
        return super().decode_vectors(vectors / self.scale + self.shift)


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


def _quantizer(model: Any) -> OwnCodebook | None:
    """The quantizer of a VQModel; None for an AutoencoderKL."""
    if type(model).__name__ == "AutoencoderKL":
        return None
    return OwnCodebook(model.quantize.embedding)


def _model(config: DiffusersVAEConfig) -> Any:
    """The diffusers model with its weights; without them on the meta device."""
    diffusers = _library()
    source, options = _locate(config)
    for download in _repository_files(config)[: 1 if torch.empty(0).is_meta else None] if options else ():
        download.require(_WHERE)
    try:
        table: Mapping[str, Any] = diffusers.AutoencoderKL.load_config(source, **options)
        cls = getattr(diffusers, _supported(table, config.source))
        if torch.empty(0).is_meta:
            return cls.from_config(table)
        return cls.from_pretrained(source, **options, torch_dtype=torch.float32)
    except (
        OSError,
        ValueError,
        SafetensorError,
    ) as error:  # missing, damaged or foreign files
        raise RobustokError(f"{config.source} cannot be loaded: {reason_of(error)}", where=_WHERE) from error


def _library() -> Any:
    try:
        import diffusers
    except ImportError as error:
        hint = 'pip install "robustok[diffusers]"'
        raise RobustokError("diffusers_vae needs the package diffusers", where="tokenizer.use", hint=hint) from error
    return diffusers


def _supported(table: Mapping[str, Any], source: str) -> str:
    """The name of the model's class, from its config.json."""
    kind = str(table.get("_class_name"))
    if kind not in _KINDS:
        what = f'{source} holds "{kind}"; supported: {" and ".join(_KINDS)}'
        raise RobustokError(what, where=_WHERE)
    if table.get("norm_type", "group") != "group":
        what = f'{source} has norm_type = "{table["norm_type"]}": its decoder reads codewords at every level'
        raise RobustokError(what, where=_WHERE, hint='use a model with norm_type = "group"')
    return kind


def _locate(config: DiffusersVAEConfig) -> tuple[str, dict[str, Any]]:
    """The folder, or the repository and the option for its subfolder."""
    _library()
    folder = Path(config.source).expanduser()
    if folder.is_dir():
        if not (folder / config.subfolder).is_dir():
            raise RobustokError(f"{config.source} has no subfolder {config.subfolder!r}", where=_WHERE)
        return str(folder / config.subfolder), {}
    if not _REPOSITORY.fullmatch(config.source):
        raise RobustokError(f"no such folder: {config.source!r}", where=_WHERE)
    return config.source, {"subfolder": config.subfolder or None}


def _repository_files(config: DiffusersVAEConfig) -> list[Download]:
    """The configuration, which every build reads, and the weights."""
    prefix = f"{config.subfolder}/" if config.subfolder else ""
    weights = [f"{prefix}diffusion_pytorch_model{ending}" for ending in (".safetensors", ".bin")]
    instead = "set source to the folder of a saved model"
    named = config.source if not config.subfolder else f"{config.source}, {config.subfolder}"
    return [
        hub_file(config.source, [f"{prefix}config.json"], what=f"the configuration of {named}", instead=instead),
        hub_file(config.source, weights, what=f"the weights of {named}", instead=instead),
    ]
