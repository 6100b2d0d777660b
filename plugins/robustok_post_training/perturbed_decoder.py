"""A control for post-training: the decoder is fine-tuned on perturbed latents instead of a generator's (ours).

What post-training gains beyond it is adaptation to this generator, not robustness to wrong tokens as such. The tokens
that are not preserved are the very ones that an autoregressive generator would redraw for `decoder`; each of them is
perturbed with probability `share`. Where that is the share of the generator's draws that differ (`robustok calibrate`),
and the perturbation always changes a token, as `rank_law` does, both post-trainers change as many tokens on average.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import field, frozen
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.perturbation import Perturbation, of_strength
from robustok_core.kinds.post_trainer import PostTrainer
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.validators import unit_interval
from robustok_core.values.batches import LatentBatch
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Keep, Latents, LatentSpace
from robustok_core.values.spec import Spec, component


@frozen(kw_only=True)
class PerturbedDecoderConfig:
    """Which tokens are replaced, and how."""

    perturbation: Spec = component(
        "perturbation",
        doc="replaces the tokens; its beta and alpha are set here: top_delta, rank_law, or gaussian for vectors",
        default={"use": "top_delta"},
    )
    share: float = field(
        default=1.0,
        validator=unit_interval,
        metadata={"doc": "probability that a token that is not preserved is perturbed"},
    )

    def __attrs_post_init__(self) -> None:
        self.at(1.0)

    def at(self, alpha: float) -> Spec:
        """The perturbation of a share alpha of every image's tokens.

        Raises:
            ValueError: it has no such strength, or sets it itself.
        """
        return of_strength(self.perturbation, alpha=alpha)


class PerturbedDecoder(PostTrainer):
    """Trains everything after the quantizer on perturbed latents and their real images."""

    Config = PerturbedDecoderConfig

    def __init__(self, config: PerturbedDecoderConfig) -> None:
        self.config = config

    def check(self, space: LatentSpace) -> None:
        """Raises RobustokError if the perturbation does not fit the latent space, or needs more than pairs have."""
        perturbation: Perturbation = self.config.at(1.0).build()
        try:
            perturbation.check(space, None)
        except RobustokError as error:
            raise RobustokError(error.what, where="post_trainer.perturbation", hint=error.hint) from error
        if perturbation.needs_features:
            what = "it needs the encoder's vectors before the quantizer, which pairs do not have"
            raise RobustokError(what, where="post_trainer.perturbation", hint='use neighbours = "codeword"')

    @torch.no_grad()
    def pair(
        self, tokenizer: Tokenizer, generator: Generator, real: LatentBatch, *, draws: Draws, sigma: float
    ) -> Latents:
        perturbation: Perturbation = self.config.at(1.0).build()
        perturbed, _ = perturbation.perturb(
            real.latents, tokenizer.quantizer, draws=draws.child("perturbed"), progress=0.0
        )
        kept = Keep(latents=real.latents, sigma=sigma).mask(draws)  # (B, N)
        kept |= draws.child("share").uniform(kept.shape[1]) >= self.config.share
        return _where(kept, real.latents, perturbed)

    def trained(self, tokenizer: Tokenizer) -> Sequence[nn.Module]:
        return list(tokenizer.decoder)


def _where(kept: Tensor, real: Latents, perturbed: Latents) -> Latents:
    """The real tokens where kept (B, N), and the perturbed ones elsewhere."""
    if real.codes is not None and perturbed.codes is not None:
        return Latents(codes=torch.where(kept, real.codes, perturbed.codes))
    assert real.vectors is not None
    assert perturbed.vectors is not None
    return Latents(vectors=torch.where(kept[..., None], real.vectors, perturbed.vectors))
