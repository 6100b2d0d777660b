"""Quantizers map vectors to codewords."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from robustok_core.errors import RunError
from robustok_core.kinds import expectations
from robustok_core.kinds.boundary import Call
from robustok_core.kinds.component import Component
from robustok_core.kinds.nearest import distance_scores, smallest
from robustok_core.values.draws import Draws
from robustok_core.values.finite import all_finite
from robustok_core.values.latents import Latents, LatentSpace


def _built(call: Call) -> None:
    for name in ("codebook_size", "width"):
        size = getattr(call.component, name, None)
        call.require(isinstance(size, int) and size > 0, f"`{name}` must be a positive integer, found {size!r}")


def _quantized(call: Call, latents: Any, z: Tensor) -> None:
    quantizer, (rows, tokens, _) = call.component, z.shape
    size, width = quantizer.codebook_size, quantizer.width
    space = LatentSpace(kind="discrete", num_tokens=tokens, width=width, codebook_size=size)
    values, what = call.looks_at_values(), "vectors of `quantize`"
    if values and not (z.is_meta or all_finite(z)):
        hint = "its training has diverged: lower the learning rate, or set optimizer.clip"
        raise RunError("the vectors that the encoder makes are not finite", hint=hint)
    expectations.latents(call, latents, space, rows, "quantize", values=values)
    expectations.tensor(call, latents.vectors, (rows, tokens, width), None, what)
    expectations.losses(call, latents.losses, "quantize")
    if quantizer.training:
        expectations.passes_gradient(call, latents.vectors, z, what, "its input (straight-through)", graph=values)
    elif values:
        with torch.no_grad():
            codewords = quantizer.lookup(latents.codes)
        expectations.finite(call, codewords, "the codebook is not finite: `lookup` gives NaN or infinity")
        expectations.finite(call, latents.vectors, "in eval mode `quantize` returns vectors that are not finite")
        wrong = "in eval mode the vectors of `quantize` are not those that `lookup` gives for its codes"
        expectations.embedded(call, latents.vectors, codewords, z, wrong)


def _looked_up(call: Call, vectors: Any, codes: Tensor) -> None:
    expectations.tensor(call, vectors, (*codes.shape, call.component.width), None, "vectors of `lookup`")


def _nearest(call: Call, codes: Any, z: Tensor, count: int) -> None:
    expectations.tensor(call, codes, (len(z), count), torch.int64, "codes of `nearest`")
    if call.looks_at_values():
        expectations.in_range(call, codes, call.component.codebook_size, "`nearest` returns codes")


class Quantizer(Component, nn.Module, ABC):
    """Maps vectors to codewords. Built as `Quantizer(config)`.

    Attributes:
        codebook_size: K.
        width: D.
        nearest_by: what `nearest` orders codewords by. By dot product, a codeword need not be nearest to itself.
    """

    returns: ClassVar = {"quantize": _quantized, "lookup": _looked_up, "nearest": _nearest}
    built: ClassVar = staticmethod(_built)
    nearest_by: ClassVar[Literal["distance", "dot product"]] = "distance"
    codebook_size: int
    width: int

    @abstractmethod
    def quantize(self, z: Tensor) -> Latents:
        """Quantizes z (B, N, D), the encoder's output.

        Returns latents with `vectors` (codewords, with a straight-through gradient to z), `codes`,
        `features` (z in the codebook's scale, as `nearest` expects it: bounded if the quantizer bounds z)
        and, in training mode only, `losses` (weighted scalars, e.g. "codebook", "commitment").
        """

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """(..., D) the vectors that the decoder reads, for codes (...) int64."""

    @property
    @abstractmethod
    def codebook(self) -> Tensor:
        """(K, D) the codewords as the decoder reads them, in the codebook's own metric (L2).

        Raises RobustokError if K is too large to list.
        """

    def after_step(self, draws: Draws) -> None:
        """Called once after each optimiser step, to update codebook averages and restart dead codes.

        Each process must make the same codebook of it, since buffers are not sent between them: collect counts and
        sums in `quantize`, over all micro-batches of the step, add them up over the processes with
        `robustok_training.distributed.all_sum` here, and take random numbers from `draws.generator()`.
        """

    def nearest(self, z: Tensor, count: int) -> Tensor:
        """(M, count) int64, the codes nearest to each row of z (M, D) in the codebook's metric, nearest first.

        Codewords at equal distance are ordered by code.
        """
        return torch.cat([smallest(scores, count) for scores in distance_scores(z, self.codebook)])
