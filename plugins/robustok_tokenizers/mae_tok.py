"""MAETok: a tokenizer whose encoder trains with hidden patches (Chen et al. 2025, arXiv 2502.03444).

The encoder reads the patches, of which training replaces a share by a mask token, and N learned latent tokens. It
outputs the latent tokens, which have no position in the image. The decoder reads them with one mask token per patch
and turns the mask tokens into pixels. Small auxiliary decoders can predict targets of the hidden patches (`hog`,
`dino`, `clip`).

The defaults are those known of MAETok-B-128: 171.9 M parameters, without the unused ones of the published file
(a patch embedding and positions in the decoder, 0.8 M).

With `soft_codebook` it is SoftVQ-VAE (Chen et al. 2024, arXiv 2412.10958): latents are means of codewords. Published
are 32 or 64 tokens, positions `rotary = "none"` and `decoder_absolute_positions`, and `decoder_cls_token`, no masks.

As in the published code, the encoder's image tokens have learned and rotary positions, the decoder's only rotary
ones; latent and class tokens are not rotated.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from attrs import field, frozen, validators
from einops import rearrange
from torch import Tensor, nn

from robustok_blocks.rotary import check_head_width
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.validators import below_one, depth_range, width_range
from robustok_core.values.download import Download, named_path
from robustok_core.values.ignored import refuse_ignored
from robustok_core.values.latents import Latents, LatentSpace
from robustok_tokenizers.gaussian_posterior import posterior_latents
from robustok_tokenizers.mae_networks import MaeDecoder, MaeEncoder, MaeShape, Rotary
from robustok_tokenizers.mae_targets import FeatureTarget, FeatureTargetConfig, GradientTarget, Target, TargetConfig
from robustok_tokenizers.pretrained_vit import load_pretrained, pretrained_downloads
from robustok_tokenizers.soft_codebook import SoftCodebook, SoftCodebookConfig
from robustok_tokenizers.vit_sizes import ViTPairConfig

#: Standard deviation of the truncated normal that mask ratios are drawn from, as in MAR.
_RATIO_STD = 0.25


def _share(default: float, doc: str) -> float:
    return field(default=default, validator=below_one, metadata={"doc": doc})


@frozen(kw_only=True)
class MAETokConfig(ViTPairConfig):
    """Options of `mae_tok`."""

    num_latent_tokens: int = field(default=128, validator=width_range, metadata={"doc": "N, tokens per image"})
    decoder_width: int | None = field(
        default=None,
        validator=validators.optional(width_range),
        metadata={"doc": "numbers per token of the decoder; left out: width"},
    )
    decoder_depth: int | None = field(
        default=None,
        validator=validators.optional(depth_range),
        metadata={"doc": "blocks of the decoder; left out: depth"},
    )
    decoder_num_heads: int | None = field(
        default=None,
        validator=validators.optional(width_range),
        metadata={"doc": "attention heads of the decoder; left out: num_heads"},
    )
    latent_width: int = field(default=32, validator=width_range, metadata={"doc": "D, numbers per latent token"})
    rotary: Rotary = field(
        default="mixed",
        validator=validators.in_(("none", "mixed", "axial")),
        metadata={
            "doc": "rotary positions of image tokens: none, in learned directions (mixed), or along the axes (axial)"
        },
    )
    rotary_base: float = field(
        default=10.0, validator=validators.gt(1.0), metadata={"doc": "base of the rotary frequencies"}
    )
    decoder_absolute_positions: bool = field(
        default=False,
        metadata={"doc": "give the decoder's image tokens learned positions, which the encoder's always have"},
    )
    decoder_cls_token: bool = field(
        default=False, metadata={"doc": "give the decoder a class token, which the encoder always has"}
    )
    mask_smallest: float = _share(0.4, "smallest share of an image's patches that training hides")
    mask_largest: float = _share(0.6, "largest such share; most shares are near it; 0 hides none")
    kl_weight: float | None = field(
        default=None,
        validator=validators.optional(validators.ge(0.0)),
        metadata={
            "doc": "weight of a Gaussian posterior's KL divergence from a standard normal, summed over an image's "
            "latents, in nats; left out: no posterior"
        },
    )
    soft_codebook: SoftCodebookConfig | None = field(
        default=None, metadata={"doc": "table: latents are means of codewords; left out: they are the encoder's output"}
    )
    layer_scale: float = field(
        default=1e-5,
        validator=validators.gt(0),
        metadata={"doc": "initial LayerScale; larger learns faster from scratch"},
    )
    drop_path: float = _share(
        0.0, "encoder: share of images whose residual branch is dropped in the last block, rising from 0"
    )
    decoder_drop_path: float = _share(0.05, "decoder: the same share")
    init: str = field(
        default="random",
        metadata={"doc": "where the encoder starts: random, dinov2 (through timm), or a file of timm ViT weights"},
    )
    hog: TargetConfig | None = field(
        default=None, metadata={"doc": "table: predict the oriented gradients of hidden patches from the latents"}
    )
    dino: FeatureTargetConfig | None = field(
        default=None, metadata={"doc": "table: predict a network's features of hidden patches from the latents"}
    )
    clip: FeatureTargetConfig | None = field(
        default=None, metadata={"doc": "table: predict a second network's features of hidden patches from the latents"}
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        width, _, heads = self.decoder_size
        if width % heads:
            raise ValueError(f"the decoder's width {width} is not a multiple of its {heads} heads")
        if self.rotary != "none":
            check_head_width(self.width // self.num_heads)
            check_head_width(width // heads)
        refuse_ignored(self, "rotary_base", unless=self.rotary != "none", needs='rotary = "mixed" or "axial"')
        if self.mask_smallest > self.mask_largest:
            raise ValueError(f"mask_smallest {self.mask_smallest} is above mask_largest {self.mask_largest}")
        if self.hog is not None and self.patch_size % 2:
            raise ValueError(f"hog needs an even patch_size, not {self.patch_size}")
        if self.soft_codebook is not None:
            self._check_soft_codebook(self.soft_codebook)

    def _check_soft_codebook(self, soft: SoftCodebookConfig) -> None:
        if self.kl_weight is not None:
            raise ValueError("latents have either a soft_codebook or a posterior (kl_weight), not both")
        if self.num_latent_tokens % soft.num_tables:
            raise ValueError(
                f"num_latent_tokens {self.num_latent_tokens} is not a multiple of soft_codebook.num_tables "
                f"{soft.num_tables}"
            )

    @property
    def decoder_size(self) -> tuple[int, int, int]:
        """Width, depth and heads of the decoder."""
        return (
            self.decoder_width or self.width,
            self.decoder_depth or self.depth,
            self.decoder_num_heads or self.num_heads,
        )

    def shape(self, size: tuple[int, int, int], *, drop_path: float, cls_token: bool, absolute: bool) -> MaeShape:
        """The shape of the encoder or the decoder, of this width, depth and number of heads."""
        width, depth, num_heads = size
        return MaeShape(
            width=width,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=self.mlp_ratio,
            layer_scale=self.layer_scale,
            drop_path=drop_path,
            side=self.side,
            num_latents=self.num_latent_tokens,
            rotary=self.rotary,
            base=self.rotary_base,
            cls_token=cls_token,
            absolute=absolute,
        )


class MAETok(Tokenizer):
    """Two ViTs around continuous latent tokens; in training the encoder sees only some of the patches."""

    Config = MAETokConfig
    training_only = ("targets",)

    def __init__(self, config: MAETokConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        encoder = config.shape(
            (config.width, config.depth, config.num_heads), drop_path=config.drop_path, cls_token=True, absolute=True
        )
        decoder = config.shape(
            config.decoder_size,
            drop_path=config.decoder_drop_path,
            cls_token=config.decoder_cls_token,
            absolute=config.decoder_absolute_positions,
        )
        moments = 1 if config.kl_weight is None else 2
        self.encoder = MaeEncoder(encoder, config.patch_size, masks=config.mask_largest > 0)
        self.quant_conv = nn.Linear(config.width, moments * config.latent_width)
        soft, tokens = config.soft_codebook, config.num_latent_tokens
        self.soft_codebook = None if soft is None else SoftCodebook(soft, tokens, config.latent_width)
        self.post_quant_conv = nn.Linear(config.latent_width, config.decoder_size[0])
        self.pixel_decoder = MaeDecoder(decoder, outputs=3 * config.patch_size**2)
        self.targets = _targets(config)
        self.space = LatentSpace(kind="continuous", num_tokens=config.num_latent_tokens, width=config.latent_width)
        if config.init != "random" and not self.last_layer.is_meta:
            load_pretrained(config.init, [self.encoder], width=config.width, patch_size=config.patch_size)

    @classmethod
    def downloads(cls, config: MAETokConfig) -> Iterable[Download]:
        return pretrained_downloads(config.init, config.width)

    @classmethod
    def files(cls, config: MAETokConfig) -> Iterable[Path]:
        return named_path(config.init, "dinov2", "random")

    def encode(self, images: Tensor) -> Latents:
        """Latents of images (B, 3, H, W) in [-1, 1]; `features` are the quant_conv's output, or the posterior means.

        In training some patches are hidden, and `losses` holds those of the posterior, the codebook and the targets.
        """
        training = self.encoder.training
        mask = self._mask(images) if training and self.config.mask_largest > 0 else None
        latents = self._latents(self.quant_conv(self.encoder(images, mask)), training)
        if not training:
            return latents
        assert latents.vectors is not None
        losses = {name: target(latents.vectors, images, mask) for name, target in self.targets.items()}
        return latents.evolve(losses={**latents.losses, **losses})

    def _latents(self, encoded: Tensor, training: bool) -> Latents:
        if self.soft_codebook is not None:
            latents: Latents = self.soft_codebook(encoded)
            return latents
        if self.config.kl_weight is None:
            return Latents(vectors=encoded, features=encoded)
        return posterior_latents(encoded, training=training, kl_weight=self.config.kl_weight)

    def _mask(self, images: Tensor) -> Tensor:
        """(B, P) bool, the patches to hide, from torch's global generator, which the training loop seeds at each step.

        Each image's share is drawn from a normal around `mask_largest`, truncated to the allowed range.
        """
        smallest, largest, patches = self.config.mask_smallest, self.config.mask_largest, self.config.side**2
        ratios = torch.empty(len(images), 1, device=images.device)
        nn.init.trunc_normal_(ratios, mean=largest, std=_RATIO_STD, a=smallest, b=largest)
        order = torch.rand(len(images), patches, device=images.device).argsort(dim=1)
        return order < (ratios * patches).round()

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Images (B, 3, H, W), not clamped, from vectors (B, N, D)."""
        patches = self.pixel_decoder(self.post_quant_conv(vectors))
        side, size = self.config.side, self.config.patch_size
        return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=side, p=size, q=size)

    @property
    def decoder(self) -> nn.ModuleList:
        """The projection after the latents and the pixel decoder, without the targets' decoders."""
        return nn.ModuleList([self.post_quant_conv, self.pixel_decoder])

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the layer that outputs the pixels."""
        return self.pixel_decoder.get_parameter("to_patch.weight")


def _targets(config: MAETokConfig) -> nn.ModuleDict:
    """The configured targets, by name."""
    common = {"latent_width": config.latent_width, "side": config.side, "num_latents": config.num_latent_tokens}
    targets: dict[str, Target] = {}
    if config.hog is not None:
        targets["hog"] = GradientTarget(config.hog, **common, patch_size=config.patch_size)
    for name, target in (("dino", config.dino), ("clip", config.clip)):
        if target is not None:
            targets[name] = FeatureTarget(target, **common, image_size=config.image_size)
    return nn.ModuleDict(targets)
