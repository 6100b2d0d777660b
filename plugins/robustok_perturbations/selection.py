"""Which images and tokens are perturbed, and how the perturbation is annealed (paper section 3)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from attrs import field, frozen
from torch import Tensor

from robustok_blocks.straight_through import straight_through
from robustok_core.errors import RobustokError
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.recipe.validators import unit_interval
from robustok_core.values.devices import sent
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace

WhichImages = Literal["random", "first"]
WhichTokens = Literal["exact", "bernoulli"]


def share_field(default: float, doc: str) -> float:
    """An option whose value is a share in [0, 1]."""
    return field(default=default, validator=unit_interval, metadata={"doc": doc})


@frozen(kw_only=True)
class Anneal:
    """Annealing: constant, then linear, then constant. The defaults are the paper's (200 epochs)."""

    start: float = share_field(0.2, "share of training at which annealing starts (epoch 40)")
    end: float = share_field(0.6, "share of training at which annealing ends (epoch 120)")
    ratio: float = share_field(0.5, "final strength relative to the initial one")

    def __attrs_post_init__(self) -> None:
        if self.start > self.end:
            raise ValueError(f"annealing ends ({self.end}) before it starts ({self.start})")

    def factor(self, progress: float) -> float:
        """The factor of the strengths at `progress`, a share of training: from 1 down to `ratio`."""
        if progress <= self.start:
            return 1.0
        if progress >= self.end:
            return self.ratio
        return 1.0 - (1.0 - self.ratio) * (progress - self.start) / (self.end - self.start)


@frozen(eq=False)
class Picked:
    """The tokens of a micro-batch that are perturbed.

    They are chosen on the CPU, from draws that are known there: a device would have to be asked how many there are.

    Attributes:
        images: (P,) int64, the images that are perturbed. tokens: (P, N) bool, which of their tokens are.
        draws: of the images that are perturbed, on the CPU.
    """

    images: Tensor
    tokens: Tensor
    draws: Draws

    @property
    def positions(self) -> tuple[Tensor, Tensor]:
        """Image and token of each of the M tokens, int64 (M,), in order."""
        row, token = self.tokens.nonzero(as_tuple=True)
        return self.images[row], token

    def mask(self, rows: int) -> Tensor:
        """(rows, N) bool, which tokens of the micro-batch are perturbed."""
        mask = torch.zeros(rows, self.tokens.shape[1], dtype=torch.bool)
        mask[self.images] = self.tokens
        return mask

    def send(self, rows: int, device: torch.device) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """`positions` and `mask` on a device."""
        image, token = self.positions
        return (sent(image, device), sent(token, device)), sent(self.mask(rows), device)


def pick(
    draws: Draws, num_tokens: int, *, beta: float, images: WhichImages, alpha: float, tokens: WhichTokens
) -> Picked:
    """Which images and tokens of the draws' rows are perturbed; see `pick_images` and `pick_tokens`."""
    draws = draws.on_cpu()
    picked = pick_images(draws.child("images"), beta, images).nonzero()[:, 0]
    return Picked(picked, pick_tokens(draws.child("tokens")[picked], num_tokens, alpha, tokens), draws[picked])


def pick_images(draws: Draws, beta: float, which: WhichImages) -> Tensor:
    """(B,) bool: which of the draws' rows are perturbed; the share counts all `draws.total` images."""
    count = int(beta * draws.total) if which == "first" else round_half_up(beta * draws.total)
    if count == 0:
        smallest_beta = math.ceil(1e4 / draws.total) / 1e4
        raise RobustokError(
            f"beta = {beta} of a batch of {draws.total} images is less than one image",
            where="perturbation.beta",
            hint=f"set beta to at least {smallest_beta}, or enlarge the batch; beta = 0 turns the perturbation off",
        )
    return draws.indices < count if which == "first" else draws.chosen(count)


def pick_tokens(draws: Draws, num_tokens: int, alpha: float, which: WhichTokens) -> Tensor:
    """(B, N) bool: which tokens of the draws' rows are perturbed."""
    if which == "bernoulli":
        return draws.uniform(num_tokens) < alpha
    shuffled = draws.bits(num_tokens).argsort(dim=1)  # a random permutation of [0, N) in each row
    return shuffled < round_half_up(alpha * num_tokens)


def with_codes(latents: Latents, positions: tuple[Tensor, ...], codes: Tensor, quantizer: Quantizer) -> Latents:
    """The latents with other codes (M,) at M positions, and their vectors, straight-through; all else bit-identical."""
    assert latents.codes is not None
    vectors = latents.vectors
    if vectors is not None:
        codewords = quantizer.lookup(codes).to(vectors.dtype)  # (M, D)
        vectors = vectors.index_put(positions, straight_through(vectors[positions], codewords))  # (B, N, D)
    return latents.evolve(codes=latents.codes.index_put(positions, codes), vectors=vectors)


def check_tokens(space: LatentSpace, alpha: float, anneal: Anneal | None) -> None:
    """Raises RobustokError if alpha is above 0 but alpha of the tokens rounds to none, or comes to in the training.

    An annealing to a ratio of 0 ends without perturbation, as it says.
    """
    if _is_none(space, alpha):
        raise RobustokError(
            f"alpha = {alpha} of {space.num_tokens} tokens is less than one token",
            where="perturbation.alpha",
            hint=f"set alpha to at least {1 / space.num_tokens:.2g}; alpha = 0 turns the perturbation off",
        )
    last = alpha if anneal is None else alpha * anneal.factor(1.0)
    if _is_none(space, last):
        raise RobustokError(
            f"alpha = {alpha} falls to {last:.3g} in the training, and that of {space.num_tokens} tokens is less than "
            "one token: nothing is perturbed any more",
            where="perturbation.anneal",
            hint=f"set ratio to at least {min(1.0, 1 / (alpha * space.num_tokens)):.2g}, or to 0 if that is meant",
        )


def _is_none(space: LatentSpace, share: float) -> bool:
    return share > 0 and round_half_up(share * space.num_tokens) == 0


def check_images(batch_size: int | None, beta: float, which: WhichImages) -> None:
    """Raises RobustokError if beta is above 0 but selects no image of a global batch; None skips the check."""
    if batch_size is not None and beta > 0:
        pick_images(Draws.for_rows(0, batch_size), beta, which)


def round_half_up(count: float) -> int:
    """Rounds to the nearest integer, halves up in decimal: 0.29 * 50 gives 15, although the float is 14.499...98."""
    return math.floor(round(count, 6) + 0.5)
