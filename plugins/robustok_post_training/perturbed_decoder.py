"""A control for post-training: the decoder is fine-tuned on perturbed latents, without a generator's (ours).

What post-training gains beyond it is adaptation to this generator, not robustness to wrong tokens as such. A share
1 - sigma of the tokens is not preserved, as in `decoder`; of these, `share` are replaced by the perturbation. With the
share of the generator's draws that differ (`robustok calibrate`, or changed_sigma of `make_pairs`), both post-trainers
change equally many tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import field, frozen
from torch import nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.perturbation import Perturbation, of_strength
from robustok_core.kinds.post_trainer import PostTrainer
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.validators import unit_interval
from robustok_core.values.batches import LatentBatch
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace
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
        metadata={"doc": "of the tokens that are not preserved, the share that is perturbed"},
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
        """Raises RobustokError if the perturbation does not fit the latent space."""
        try:
            self.config.at(1.0).build().check(space, None)
        except RobustokError as error:
            raise RobustokError(error.what, where="post_trainer.perturbation", hint=error.hint) from error

    @torch.no_grad()
    def pair(
        self, tokenizer: Tokenizer, generator: Generator, real: LatentBatch, *, draws: Draws, sigma: float
    ) -> Latents:
        alpha = (1.0 - sigma) * self.config.share
        if alpha * tokenizer.space.num_tokens < 0.5:  # rounded to whole tokens, none
            return real.latents
        perturbation: Perturbation = self.config.at(alpha).build()
        draws = draws.child("perturbed")
        perturbed, _ = perturbation.perturb(real.latents, tokenizer.quantizer, draws=draws, progress=0.0)
        return perturbed.without_features()

    def trained(self, tokenizer: Tokenizer) -> Sequence[nn.Module]:
        return list(tokenizer.decoder)
