"""GigaTok: convolutional networks around transformers with tokens without a position (Xiong et al. 2025, 2504.08736).

A convolutional encoder makes a map, from which a transformer with N queries makes the tokens. Behind the quantizer,
a transformer with one query per place makes a map again; it is both the input of the convolutional decoder and the
style that its norms adapt to. In training, an MLP can predict a frozen network's features from an early layer of the
second transformer (`semantic`).

| size | encoder, decoder | parameters |
|---|---|---|
| S-S | S, S | 136 M |
| S-B | S, B | 232 M |
| B-L | B, L | 622 M |
| XL-XXL | XL, XXL | 2.9 G |
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_blocks.adaptive_norm import AdaptiveGroupNorm, DepthToSpace
from robustok_blocks.conv import ResidualBlock, group_norm
from robustok_core.errors import RobustokError
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.validators import depth_range, width_range
from robustok_core.values.ignored import refuse_ignored
from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.spec import component
from robustok_tokenizers.conv_levels import ImageLevels, multipliers_range
from robustok_tokenizers.conv_networks import ConvEncoder, ConvNetworkConfig
from robustok_tokenizers.gigatok_networks import MapDecoder, MapEncoder, QueryTransformerConfig, block_grids
from robustok_tokenizers.patch_features import PatchFeatures


@frozen(kw_only=True)
class SemanticTargetConfig:
    """How features of a frozen network are predicted from the decoding transformer; only training does it."""

    network: Any = component(
        "features",
        doc="the frozen network; left out: the MLP exists, as in published files, and is not trained",
        optional=True,
    )
    depth: int = field(
        default=3, validator=depth_range, metadata={"doc": "layers of the decoder before the MLP reads its queries"}
    )
    outputs: int = field(
        default=768, validator=width_range, metadata={"doc": "numbers per place of the network's deepest map"}
    )
    weight: float = field(default=0.5, validator=validators.ge(0.0), metadata={"doc": "weight of the loss"})

    def __attrs_post_init__(self) -> None:
        refuse_ignored(self, "weight", unless=self.network is not None, needs="a network")


@frozen(kw_only=True)
class GigaTokConfig(ImageLevels):
    """Options of `gigatok`; the defaults are those of S-S, without its semantic target."""

    decoder_channel_multipliers: tuple[int, ...] | None = field(
        default=None,
        validator=validators.optional(multipliers_range),
        metadata={"doc": "the decoder's channel_multipliers, finest level first; left out: the encoder's"},
    )
    z_channels: int = field(
        default=256, validator=width_range, metadata={"doc": "channels between networks and transformers"}
    )
    num_latent_tokens: int = field(
        default=256, validator=width_range, metadata={"doc": "N, tokens per image; a power of 2"}
    )
    encoder: QueryTransformerConfig = field(
        factory=QueryTransformerConfig, metadata={"doc": "table: size of the transformer that makes the tokens"}
    )
    decoder: QueryTransformerConfig = field(
        factory=QueryTransformerConfig, metadata={"doc": "table: size of the transformer that reads the tokens"}
    )
    semantic: SemanticTargetConfig | None = field(
        default=None, metadata={"doc": "table: predict a network's features from the decoding transformer"}
    )
    quantizer: Any = component(
        "quantizer", doc="what turns vectors into codes", default={"use": "vq", "codebook_size": 16384, "width": 8}
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.check_groups(*self.decoder_widths)
        levels, decoder_levels = len(self.channel_multipliers), len(self.decoder_widths)
        if levels != decoder_levels:
            raise ValueError(f"the encoder has {levels} levels and the decoder {decoder_levels}")
        if self.side < 2:
            raise ValueError(
                "the decoder's norms need the deviation of the map, which has a single place: use fewer levels"
            )
        rows, columns = block_grids(self.num_latent_tokens)[-1]
        if self.side % rows or self.side % columns:
            raise ValueError(
                f"num_latent_tokens {self.num_latent_tokens} start from {rows} x {columns} blocks of the map, "
                f"whose {self.side} x {self.side} places they do not divide"
            )
        if self.semantic is not None and self.semantic.depth > self.decoder.size[1]:
            raise ValueError(f"semantic.depth {self.semantic.depth} is above the decoder's {self.decoder.size[1]}")

    @property
    def networks(self) -> ConvNetworkConfig:
        """The options of the convolutional encoder, for the networks of other tokenizers."""
        return ConvNetworkConfig(
            image_size=self.image_size,
            channels=self.channels,
            channel_multipliers=self.channel_multipliers,
            num_res_blocks=self.num_res_blocks,
            attention=False,
            norm_groups=self.norm_groups,
            z_channels=self.z_channels,
        )

    @property
    def decoder_widths(self) -> list[int]:
        """Channels of each level of the convolutional decoder, coarsest first."""
        multipliers = self.channel_multipliers
        if self.decoder_channel_multipliers is not None:
            multipliers = self.decoder_channel_multipliers
        return [self.channels * multiplier for multiplier in multipliers[::-1]]


class GigaTok(Tokenizer):
    """Convolutional networks, transformers within them, and a quantizer in the middle."""

    Config = GigaTokConfig
    training_only = ("semantic_mlp",)
    quantizer: Quantizer

    def __init__(self, config: GigaTokConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.quantizer = config.quantizer.build()
        channels, side, tokens = config.z_channels, config.side, config.num_latent_tokens
        self.encoder = ConvEncoder(config.networks)
        self.map_encoder = MapEncoder(config.encoder, channels, side, tokens)
        self.quant_conv = nn.Linear(channels, self.quantizer.width)
        self.post_quant_conv = nn.Linear(self.quantizer.width, channels)
        self.map_decoder = MapDecoder(config.decoder, channels, side, tokens)
        self.pixel_decoder = StyledDecoder(config)
        self.semantic_mlp = _semantic_mlp(config)
        self.target = _semantic_target(config)
        self.space = LatentSpace(
            kind="discrete",
            num_tokens=tokens,
            width=self.quantizer.width,
            codebook_size=self.quantizer.codebook_size,
        )

    def encode(self, images: Tensor) -> Latents:
        """Latents of images (B, 3, H, W) in [-1, 1]; `features` is the quant_conv's output.

        In training, `losses` has "semantic" if there is a network to predict.
        """
        latents = self.quantizer.quantize(self.quant_conv(self.map_encoder(self.encoder(images))))
        if not self.encoder.training or self.target is None:
            return latents
        assert latents.vectors is not None
        assert self.config.semantic is not None
        predicted = self.semantic_features(latents.vectors)
        similarity = F.cosine_similarity(predicted.float(), self.target(images).float(), dim=-1)
        loss = self.config.semantic.weight * (1.0 - similarity).mean()
        return latents.evolve(losses={**latents.losses, "semantic": loss})

    def semantic_features(self, vectors: Tensor) -> Tensor:
        """(B, h w, outputs) the predicted features of vectors (B, N, D); `semantic` must be configured."""
        assert self.config.semantic is not None
        return self.semantic_mlp(self.map_decoder.queries(self.post_quant_conv(vectors), self.config.semantic.depth))

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Images (B, 3, H, W), not clamped, from vectors (B, N, D)."""
        return self.pixel_decoder(self.map_decoder(self.post_quant_conv(vectors)))

    @property
    def decoder(self) -> nn.ModuleList:
        """All that is behind the quantizer: the projection, the transformer and the convolutional decoder."""
        return nn.ModuleList([self.post_quant_conv, self.map_decoder, self.pixel_decoder])

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the convolution that outputs the pixels."""
        return self.pixel_decoder.get_parameter("conv_out.weight")


class StyledDecoder(nn.Module):
    """Maps (B, z_channels, h, w) to images; each level first adapts its norm to the whole map."""

    def __init__(self, config: GigaTokConfig) -> None:
        super().__init__()
        widths, groups = config.decoder_widths, config.norm_groups
        sources = [widths[0], *widths[:-1]]
        self.conv_in = nn.Conv2d(config.z_channels, widths[0], 3, padding=1)
        self.mid = nn.ModuleList(ResidualBlock(widths[0], widths[0], groups) for _ in range(2))
        self.adaptive = nn.ModuleList(AdaptiveGroupNorm(config.z_channels, source, groups) for source in sources)
        self.conv_blocks = nn.ModuleList(
            StyledLevel(source, width, config.num_res_blocks + 1, groups, upsample=level < len(widths) - 1)
            for level, (source, width) in enumerate(zip(sources, widths, strict=True))
        )
        self.norm_out = group_norm(widths[-1], groups)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, z_channels, h, w) to (B, 3, H, W)."""
        x = self.conv_in(hidden)
        for block in self.mid:
            x = block(x)
        for adapt, level in zip(self.adaptive, self.conv_blocks, strict=True):
            x = level(adapt(x, hidden))
        return self.conv_out(F.silu(self.norm_out(x)))


class StyledLevel(nn.Module):
    """Residual blocks at one resolution; all levels but the finest then double it."""

    def __init__(self, channels_in: int, channels: int, num_blocks: int, groups: int, *, upsample: bool) -> None:
        super().__init__()
        sources = [channels_in, *[channels] * (num_blocks - 1)]
        self.res = nn.ModuleList(ResidualBlock(source, channels, groups) for source in sources)
        if upsample:
            self.upsample = DepthToSpace(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, h, w) to (B, channels, h', w')."""
        for block in self.res:
            x = block(x)
        return self.upsample(x) if hasattr(self, "upsample") else x


def _semantic_mlp(config: GigaTokConfig) -> nn.Sequential:
    if config.semantic is None:
        return nn.Sequential()
    width, outputs = config.decoder.size[0], config.semantic.outputs
    hidden = 4 * width
    layers = [nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outputs)]
    return nn.Sequential(*layers).requires_grad_(config.semantic.network is not None)


def _semantic_target(config: GigaTokConfig) -> PatchFeatures | None:
    if config.semantic is None or config.semantic.network is None:
        return None
    target = PatchFeatures(config.semantic.network, config.side)
    width = target.width(config.image_size)
    if width != config.semantic.outputs:
        what = f"the network's deepest map has {width} numbers per place, not {config.semantic.outputs}"
        raise RobustokError(what, where="tokenizer.semantic", hint=f"set outputs = {width}")
    return target
