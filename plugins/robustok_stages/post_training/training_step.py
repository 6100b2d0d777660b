"""A training step of post-training (paper section 4): decodes latents from a generator to the real image."""

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
    """Post-training's turn: only the trained modules take gradients and are in training mode.

    The frozen modules stay in eval mode: dropout, batch statistics and codebook averages would change them or their
    output even without gradients.
    """

    def __init__(self, tokenizer: Tokenizer, trained: Sequence[nn.Module], terms: LossTerms) -> None:
        tokenizer.requires_grad_(False).eval()
        for part in trained:
            part.requires_grad_(True)
        super().__init__(tokenizer, terms)
        self._trained = tuple(trained)

    def train(self, mode: bool = True) -> DecoderStep:
        """As `nn.Module.train`, except that frozen modules stay in eval mode."""
        super().train(mode)
        self.tokenizer.eval()
        for part in self._trained:
            part.train(mode)
        return self

    def forward(
        self, batch: PairBatch, draws: Draws, progress: float, earlier: Mapping[str, Reconstruction | None]
    ) -> Turn:
        """The loss, its terms, and the pass for the opponents."""
        return self.total_loss(
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
    """The training task of post-training."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        trained: Sequence[nn.Module],
        losses: Mapping[str, Loss],
        optimizer: OptimizerConfig,
    ) -> None:
        super().__init__(DecoderStep(tokenizer, trained, LossTerms(losses)), optimizer)
