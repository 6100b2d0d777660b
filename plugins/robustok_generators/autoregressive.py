"""The base of generators that sample an image's codes one by one, and their sampler.

Each position is computed once, with conditional and unconditional rows in one batch under guidance; keys and values
of past positions are cached (`decoding`).
"""

from __future__ import annotations

from abc import abstractmethod
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
from robustok_generators.decoding import Decoding, decoding_as
from robustok_generators.label_dropout import drop_labels
from robustok_generators.prepared_linear import prepared_linear
from robustok_generators.token_sampling import TokenSampling, choose
from robustok_toolkit.eval_mode import evaluating


@frozen(kw_only=True, eq=False)
class Kept:
    """Given codes: `codes` (B, N) int64 where `mask` (B, N) bool; they condition the codes that follow."""

    codes: Tensor
    mask: Tensor


class Autoregressive(Generator):
    """A class-conditional model of codes in a fixed order.

    Args:
        space: a discrete latent space.
        num_classes: number of classes; label `num_classes` is the null class.
        label_dropout: share of training images whose class is replaced by the null class.
    """

    Sampling = TokenSampling

    def __init__(self, space: LatentSpace, num_classes: int, label_dropout: float) -> None:
        super().__init__()
        if space.codebook_size is None:
            raise RobustokError(
                f"it samples codes, and this latent space has none: {space.describe()}",
                where=f"generator {type(self).__name__}",
                hint="use a tokenizer with a quantizer",
            )
        self.space, self.num_classes = space, num_classes
        self.codebook_size = space.codebook_size
        self.label_dropout = label_dropout
        self.knows_null_class = label_dropout > 0.0

    @abstractmethod
    def decoding(self, labels: Tensor) -> Decoding:
        """Starts decoding for labels (rows,) int64 in [0, num_classes]; called in eval mode without gradients."""

    def with_dropped_labels(self, labels: Tensor, draws: Draws) -> Tensor:
        """(B,) labels; in training a random share `label_dropout` is replaced by the null class."""
        rate = self.label_dropout if self.training else 0.0
        return drop_labels(labels, draws.child("label_dropout"), rate, self.num_classes)

    def sample(
        self, labels: Tensor, draws: Draws, *, guidance: Guidance, keep: Keep | None = None, sampling: Any = None
    ) -> Latents:
        """Samples codes; with `keep` each token of the real image is kept with probability sigma (paper section 4)."""
        num_tokens = self.space.num_tokens
        uniform = draws.child("tokens").uniform(num_tokens)
        kept = None
        if keep is not None:
            kept = Kept(codes=codes_of(keep.latents), mask=keep.mask(draws))
        return Latents(
            codes=self.sample_codes(labels, uniform, guidance=guidance, kept=kept, sampling=sampling or TokenSampling())
        )

    def sample_forced(
        self, labels: Tensor, draws: Draws, *, real: Latents, guidance: Guidance, sampling: Any = None
    ) -> Latents:
        """Samples each code after the true codes before it, with the random numbers of `sample`."""
        uniform = draws.child("tokens").uniform(self.space.num_tokens)
        sampling = sampling or TokenSampling()
        codes = self.sample_codes(labels, uniform, guidance=guidance, sampling=sampling, read=codes_of(real))
        return Latents(codes=codes)

    @torch.no_grad()
    def sample_codes(
        self,
        labels: Tensor,
        uniform: Tensor,
        *,
        guidance: Guidance,
        sampling: TokenSampling,
        kept: Kept | None = None,
        read: Tensor | None = None,
    ) -> Tensor:
        """Samples codes (B, N) int64 for labels (B,) from uniform numbers (B, N) in [0, 1).

        Args:
            read: (B, N) int64, codes that condition those after them, in place of the sampled ones.
        """
        if kept is not None and bool(kept.mask.all()):
            return kept.codes.clone()
        sampled: list[Tensor] = []
        copies = 2 if guidance.active else 1
        rows = self._with_null_rows(labels) if guidance.active else labels
        with (
            evaluating(self),
            prepared_linear(self, packed_for=None if sampling.execution == "compile" else len(rows)),
            decoding_as(sampling.execution, self.decoding, rows) as decoding,
        ):
            logits = decoding.start()
            for position in range(self.space.num_tokens):
                logits = guided(logits.float(), guidance, position / self.space.num_tokens)
                codes = choose(logits, uniform[:, position], sampling)
                if kept is not None:
                    codes = torch.where(kept.mask[:, position], kept.codes[:, position], codes)
                sampled.append(codes)
                if len(sampled) < self.space.num_tokens:
                    logits = decoding.advance((codes if read is None else read[:, position]).repeat(copies))
        return torch.stack(sampled, dim=1)

    def _with_null_rows(self, labels: Tensor) -> Tensor:
        return torch.cat([labels, torch.full_like(labels, self.num_classes)])


def guided(logits: Tensor, guidance: Guidance, done: float) -> Tensor:
    """Guided logits (B, K) from logits (2B, K): conditional rows, then unconditional ones."""
    if not guidance.active:
        return logits
    conditional, unconditional = logits.chunk(2)
    return unconditional + guidance.weight(done) * (conditional - unconditional)
