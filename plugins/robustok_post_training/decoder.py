"""Sigma-preserving post-training of the decoder (paper section 4).

A generator samples latents while preserving a share sigma of a real image's: an autoregressive generator preserves
each token with probability sigma, a diffusion model starts at time 1 - sigma. The decoder learns to decode the result
to the real image; encoder, projection and codebook do not change.
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
    """How pairs are made."""

    pairs: Literal["images", "latents"] = field(
        default="images",
        metadata={
            "doc": 'what the decoder reads: "images", the generated latents decoded to an 8-bit image and encoded '
            'again (as in the paper); "latents", the generated latents themselves'
        },
    )
    guidance: Guidance = field(factory=Guidance, metadata={"doc": "table: guidance when the pairs are made"})
    precision: Precision = field(
        default="no",
        metadata={"doc": 'the generator\'s precision: "no" (float32), "bf16" or "auto"; the tokenizer uses float32'},
    )
    sampling: Any = sampler_options(doc="table: options of the generator's sampler when the pairs are made")


class Decoder(PostTrainer):
    """Trains everything after the quantizer on pairs of sigma-preserving latents and their real images."""

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
        # Without augmentation and with a frozen encoder, encoding the image once here gives the same latents as
        # encoding a stored PNG at every training step.
        image = from_uint8(to_uint8(tokenizer.decode(generated)))
        encoded = tokenizer.encode(image)
        return encoded.without_features()

    def trained(self, tokenizer: Tokenizer) -> Sequence[nn.Module]:
        return list(tokenizer.decoder)
