"""Generators that draw an image's codes one after another, and the sampler that they share.

Each position is computed once, for conditional and unconditional rows together where there is guidance;
the keys and values of past positions stay where they were written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.generator import Generator
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep, Latents, LatentSpace
from robustok_generators.codes import codes_of
from robustok_generators.label_dropout import drop_labels
from robustok_generators.packed_linear import packed_linear
from robustok_generators.token_sampling import TokenSampling, choose
from robustok_toolkit.eval_mode import evaluating


class Decoding(ABC):
    """A model on its way through the codes of some rows, in raster order."""

    @abstractmethod
    def start(self) -> Tensor:
        """(rows, K) logits of the first code."""

    @abstractmethod
    def advance(self, codes: Tensor) -> Tensor:
        """(rows, K) logits of the code that follows the codes (rows,) int64 drawn last."""


@frozen(kw_only=True, eq=False)
class Kept:
    """Codes that are given: `codes` (B, N) int64 where `mask` (B, N) bool; they condition those that follow."""

    codes: Tensor
    mask: Tensor


class Autoregressive(Generator):
    """A model of codes in a fixed order, conditioned on the class.

    Args:
        space: a discrete one.
        num_classes: label `num_classes` itself is the null class.
        label_dropout: share of the images that are trained with the null class in place of their own.
    """

    Sampling = TokenSampling

    def __init__(self, space: LatentSpace, num_classes: int, label_dropout: float) -> None:
        super().__init__()
        if space.codebook_size is None:
            raise RobustokError(
                f"it draws codes, and this latent space has none: {space.describe()}",
                where=f"generator {type(self).__name__}",
                hint="use a tokenizer with a quantizer",
            )
        self.space, self.num_classes = space, num_classes
        self.codebook_size = space.codebook_size
        self.label_dropout = label_dropout
        self.knows_null_class = label_dropout > 0.0

    @abstractmethod
    def decoding(self, labels: Tensor) -> Decoding:
        """Begins with rows of labels (rows,) int64 in [0, num_classes]; called in eval mode without gradients."""

    def with_dropped_labels(self, labels: Tensor, draws: Draws) -> Tensor:
        """(B,) labels, of which in training a random share `label_dropout` is the null class."""
        rate = self.label_dropout if self.training else 0.0
        return drop_labels(labels, draws.child("label_dropout"), rate, self.num_classes)

    def sample(
        self, labels: Tensor, draws: Draws, *, guidance: Guidance, keep: Keep | None = None, sampling: Any = None
    ) -> Latents:
        """Draws codes; with `keep` each token of the real image is kept with probability sigma (paper section 4)."""
        num_tokens = self.space.num_tokens
        uniform = draws.child("tokens").uniform(num_tokens)
        kept = None
        if keep is not None:
            kept = Kept(codes=codes_of(keep.latents), mask=keep.mask(draws))
        return Latents(
            codes=self.draw(labels, uniform, guidance=guidance, kept=kept, sampling=sampling or TokenSampling())
        )

    @torch.no_grad()
    def draw(
        self, labels: Tensor, uniform: Tensor, *, guidance: Guidance, sampling: TokenSampling, kept: Kept | None = None
    ) -> Tensor:
        """(B, N) int64 codes for labels (B,), decided by uniform (B, N) numbers in [0, 1)."""
        if kept is not None and bool(kept.mask.all()):
            return kept.codes.clone()
        drawn: list[Tensor] = []
        copies = 2 if guidance.active else 1
        with evaluating(self), packed_linear(self, rows=copies * len(labels)):
            decoding = self.decoding(self._with_null_rows(labels) if guidance.active else labels)
            for place in range(self.space.num_tokens):
                logits = decoding.advance(drawn[-1].repeat(copies)) if drawn else decoding.start()
                logits = guided(logits.float(), guidance, place / self.space.num_tokens)
                codes = choose(logits, uniform[:, place], sampling)
                if kept is not None:
                    codes = torch.where(kept.mask[:, place], kept.codes[:, place], codes)
                drawn.append(codes)
        return torch.stack(drawn, dim=1)

    def _with_null_rows(self, labels: Tensor) -> Tensor:
        return torch.cat([labels, torch.full_like(labels, self.num_classes)])


def guided(logits: Tensor, guidance: Guidance, done: float) -> Tensor:
    """(B, K) guided logits of conditional rows followed by as many unconditional ones (2B, K)."""
    if not guidance.active:
        return logits
    conditional, unconditional = logits.chunk(2)
    return unconditional + guidance.weight(done) * (conditional - unconditional)
