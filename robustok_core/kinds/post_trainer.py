"""Post-trainers adapt a trained tokenizer to a generator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import nn

from robustok_core.kinds.component import Component
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.values.batches import LatentBatch
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents


class PostTrainer(Component, ABC):
    """Adapts a trained tokenizer to a generator's latents (paper section 4). Built as `PostTrainer(config)`.

    It defines what a pair is and which modules are trained. The stages `make_pairs`, `post_train` and
    `compare_decoders` store the pairs, train and measure.
    """

    @abstractmethod
    def pair(
        self, tokenizer: Tokenizer, generator: Generator, real: LatentBatch, *, draws: Draws, sigma: float
    ) -> Latents:
        """The latents (codes or vectors) from which the tokenizer learns to decode the real images.

        Args:
            tokenizer: the result of main training.
            generator: trained on that tokenizer's latents.
            real: latents of the real images, of which the generator preserves a share sigma.
            draws: one row per image.
            sigma: in [0, 1].
        """

    @abstractmethod
    def trained(self, tokenizer: Tokenizer) -> Sequence[nn.Module]:
        """The modules of the tokenizer that are trained; the stage freezes the rest, buffers included."""
