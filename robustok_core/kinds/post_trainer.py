"""What adapts a trained tokenizer to a generator."""

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
    """Adapts a trained tokenizer to what a generator makes (paper section 4). Built as `PostTrainer(config)`.

    It says what a pair is and what is trained; the stage `post_train` keeps the pairs, trains and measures.
    """

    @abstractmethod
    def pair(
        self, tokenizer: Tokenizer, generator: Generator, real: LatentBatch, *, draws: Draws, sigma: float
    ) -> Latents:
        """The latents from which the tokenizer is to draw the real images again: codes, or vectors.

        Args:
            tokenizer: as it came from main training.
            generator: trained on its latents.
            real: latents of the real images, which the generator preserves to a share sigma.
            draws: one row an image.
            sigma: in [0, 1].
        """

    @abstractmethod
    def trained(self, tokenizer: Tokenizer) -> Sequence[nn.Module]:
        """The parts of the tokenizer that are trained; the stage freezes the rest, buffers included."""
