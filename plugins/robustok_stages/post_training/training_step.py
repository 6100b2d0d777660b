"""One step of post-training (paper section 4): the real image from what a generator made of its latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from robustok_core.kinds.loss import Loss, Reconstruction
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.values.draws import Draws
from robustok_stages.tokenizer.loss_terms import LossTerms
from robustok_stages.tokenizer.training_step import TokenizerLossStep, TokenizerLossTask, Turn
from robustok_toolkit.pair_files import PairBatch
from robustok_training import OptimizerConfig


class DecoderStep(TokenizerLossStep):
    """Post-training's turn: only the trained parts take a gradient or are in training mode.

    Dropout, batch statistics and codebook averages of the frozen parts would change them, or what they
    make, without any gradient; so they stay in eval mode.
    """

    def __init__(self, tokenizer: Tokenizer, trained: Sequence[nn.Module], terms: LossTerms) -> None:
        tokenizer.requires_grad_(False).eval()
        for part in trained:
            part.requires_grad_(True)
        super().__init__(tokenizer, terms)
        self._trained = tuple(trained)

    def train(self, mode: bool = True) -> DecoderStep:
        """As torch's, with the frozen parts in eval mode."""
        super().train(mode)
        self.tokenizer.eval()
        for part in self._trained:
            part.train(mode)
        return self

    def forward(
        self, batch: PairBatch, draws: Draws, progress: float, earlier: Mapping[str, Reconstruction | None]
    ) -> Turn:
        """The loss, its terms, and the pass for the opponents."""
        return self.judge(
            Reconstruction(
                batch=batch,
                latents=batch.latents,
                decoded=batch.latents,
                images=self.tokenizer.decode(batch.latents),
                tokenizer=self.tokenizer,
                draws=draws.child("losses"),
                progress=progress,
            )
        )


class DecoderTask(TokenizerLossTask):
    """Post-training as the trainer sees it."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        trained: Sequence[nn.Module],
        losses: Mapping[str, Loss],
        optimizer: OptimizerConfig,
    ) -> None:
        super().__init__(DecoderStep(tokenizer, trained, LossTerms(losses)), optimizer)
