"""Sigma-preserving post-training of the decoder (paper section 4).

A generator goes along a real image's latents and preserves a share sigma of them: an autoregressive one
keeps each token with probability sigma, a diffusion model starts at time 1 - sigma. The decoder learns to
draw the real image from what comes out; encoder, projection and codebook stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from attrs import field, frozen
from torch import nn

from robustok_core.kinds.generator import Generator
from robustok_core.kinds.post_trainer import PostTrainer
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.runs.precision import Precision
from robustok_core.values.batches import LatentBatch
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.images import from_uint8, to_uint8
from robustok_core.values.latents import Keep, Latents
from robustok_core.values.spec import sampler_options
from robustok_toolkit.generating import generate
from robustok_toolkit.latent_arrays import check_finite


@frozen(kw_only=True)
class DecoderConfig:
    """What a pair is made of."""

    pairs: Literal["images", "latents"] = field(
        default="images",
        metadata={
            "doc": 'what the decoder reads: "images", the re-encoded 8-bit picture of the generated latents (the '
            'paper\'s); "latents", the generated latents themselves'
        },
    )
    guidance: Guidance = field(factory=Guidance, metadata={"doc": "table: guidance while the pairs are made"})
    precision: Precision = field(
        default="no", metadata={"doc": 'of the generator: "no" (float32), "bf16" or "auto"; the tokenizer has float32'}
    )
    sampling: Any = sampler_options(doc="table: options of the generator's sampler while the pairs are made")


class Decoder(PostTrainer):
    """Trains everything behind the quantizer on pairs of sigma-preserving latents and their real images."""

    Config = DecoderConfig

    def __init__(self, config: DecoderConfig) -> None:
        self.config = config

    @torch.no_grad()
    def pair(
        self, tokenizer: Tokenizer, generator: Generator, real: LatentBatch, *, draws: Draws, sigma: float
    ) -> Latents:
        (generated,) = generate(
            generator,
            real.labels,
            draws,
            guidance=self.config.guidance,
            sampling=self.config.sampling,
            batch_size=len(real),
            precision=self.config.precision,
            keep=Keep(latents=real.latents, sigma=sigma),
        )
        if self.config.pairs == "latents":
            return generated
        if generated.vectors is not None:
            check_finite(generated.vectors, "generator", "post_trainer")
        # The picture is not augmented and the encoder is frozen: encoded once here, it is what training would
        # encode from a stored PNG each time.
        picture = from_uint8(to_uint8(tokenizer.decode(generated)))
        encoded = tokenizer.encode(picture)
        return Latents(codes=encoded.codes) if encoded.codes is not None else Latents(vectors=encoded.vectors)

    def trained(self, tokenizer: Tokenizer) -> Sequence[nn.Module]:
        return list(tokenizer.decoder)
