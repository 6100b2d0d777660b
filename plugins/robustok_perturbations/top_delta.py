"""Latent perturbation: wrong tokens in training, so that the decoder tolerates a generator's errors (paper section 3).

A share beta of the images of a batch is perturbed. In each of them a share alpha of the tokens is replaced,
each by a uniform draw from the delta codewords nearest to its own. Losses on the latents use the clean ones;
the decoder reads the perturbed ones, and the gradient reaches the encoder straight-through.

`top_delta` is the method, a function of tensors and random numbers. `TopDelta` adds options and annealing.
Where the paper and its released code differ, the paper is the default and an option selects the released code:

    option      the paper                                  the released code
    neighbours  "codeword": nearest to the token's own     "latent": nearest to the encoder's vector
    images      "random": round(beta B) of the B images    "first": the first int(beta B)
    tokens      "exact": round(alpha N) of the N tokens    "bernoulli": each with probability alpha

B is the size of the global batch, over all processes and micro-batches; the released code uses each process's own
batch. Halves are rounded up.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.perturbation import Perturbation
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.recipe.validators import LARGEST_CODEBOOK
from robustok_core.values import devices
from robustok_core.values.devices import sent
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace
from robustok_perturbations.selection import (
    Anneal,
    WhichImages,
    WhichTokens,
    check_images,
    check_tokens,
    pick,
    round_half_up,
    share_field,
    with_codes,
)

Neighbours = Literal["codeword", "latent"]


def top_delta(
    latents: Latents,
    quantizer: Quantizer,
    draws: Draws,
    *,
    beta: float,
    alpha: float,
    delta: int,
    neighbours: Neighbours = "codeword",
    images: WhichImages = "random",
    tokens: WhichTokens = "exact",
) -> tuple[Latents, Tensor]:
    """Replaces tokens by neighbouring codes; the module docstring explains the symbols and options.

    The result for an image depends on the seed, its index and the codebook, not on how batches are split.
    (Exception: the batch size can decide ties for the last of the delta nearest codewords, if their distances
    agree to float32's last bits.)

    Args:
        latents: codes (B, N) in [0, K), vectors (B, N, D) or None, features (B, N, D) for "latent".
        quantizer: the codebook of the codes.
        draws: one row per image; beta is a share of its `total`.
        beta: in [0, 1].
        alpha: in [0, 1].
        delta: in [1, K]. The token's own codeword is one of the delta, so 1 changes nothing.

    Returns:
        The latents with codes and vectors replaced and all else bit-identical; and a mask (B, N) bool of the
        redrawn tokens, of which 1 in delta keeps its own code.

    Raises:
        RobustokError: beta is above 0 but selects no image of the batch.
    """
    codes = latents.codes
    if codes is None:
        raise ValueError("top_delta replaces codes, and these latents have none")
    mask = torch.zeros_like(codes, dtype=torch.bool)  # (B, N)
    if beta == 0 or alpha == 0:
        return latents, mask
    picked = pick(draws, codes.shape[1], beta=beta, images=images, alpha=alpha, tokens=tokens)
    ranks = picked.draws.child("ranks").integers(delta, codes.shape[1])[picked.tokens]  # (M,) in [0, delta)
    positions, mask = picked.send(len(codes), codes.device)
    near_to = latents[positions]
    new_codes = _draw_neighbours(near_to, quantizer, delta, sent(ranks, codes.device), neighbours)  # (M,)
    return with_codes(latents, positions, new_codes, quantizer), mask


def nearest_codes(codes: Tensor, quantizer: Quantizer, delta: int) -> Tensor:
    """(M, delta) int64: the codes nearest to codes (M,) by their codewords; each row contains the code itself."""
    near = quantizer.nearest(quantizer.lookup(codes), delta)
    absent = (near != codes[:, None]).all(dim=1)  # if many codewords coincide
    near[:, -1] = torch.where(absent, codes, near[:, -1])
    return near


def _draw_neighbours(tokens: Latents, quantizer: Quantizer, delta: int, ranks: Tensor, of: Neighbours) -> Tensor:
    """(M,) int64: for each of M tokens the neighbour with its rank in [0, delta)."""
    if of == "codeword":
        assert tokens.codes is not None
        distinct, row = _distinct(tokens.codes, quantizer.codebook_size)
        near = nearest_codes(distinct, quantizer, delta)
    elif tokens.features is not None:
        near, row = quantizer.nearest(tokens.features, delta), torch.arange(len(ranks), device=ranks.device)
    else:
        raise RobustokError(
            "these latents come without the encoder's vectors before the quantizer",
            where="perturbation.neighbours",
            hint='use neighbours = "codeword"',
        )
    # Ranked by code: an order by distance could depend on the last bit of a sum.
    return near.sort(dim=1).values[row, ranks]


def _distinct(codes: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Codes without repetition, because tokens with the same code share neighbours; and the row of each of codes (M,).

    How many are distinct is not asked of a device that works behind the program: it gets them all, or the codebook.
    """
    if not devices.is_queued(codes.device):
        return codes.unique(return_inverse=True)
    if len(codes) < codebook_size:
        return codes, torch.arange(len(codes), device=codes.device)
    return torch.arange(codebook_size, device=codes.device), codes


@frozen(kw_only=True)
class TopDeltaConfig:
    """Options of `top_delta`; the defaults are the paper's for K = 4096, without its annealing."""

    beta: float = share_field(0.1, "share of the images of a batch that are perturbed")
    alpha: float = share_field(1.0, "share of the tokens of a perturbed image that are replaced")
    delta: int = field(
        default=100,
        validator=validators.ge(1),
        metadata={"doc": "number of nearest codewords that a token is drawn from"},
    )
    neighbours: Neighbours = field(
        default="codeword",
        validator=validators.in_(("codeword", "latent")),
        metadata={"doc": "nearest to the token's codeword (paper), or to the encoder's vector (released code)"},
    )
    images: WhichImages = field(
        default="random",
        validator=validators.in_(("random", "first")),
        metadata={"doc": "random images of the global batch (paper), or its first ones (released code)"},
    )
    tokens: WhichTokens = field(
        default="exact",
        validator=validators.in_(("exact", "bernoulli")),
        metadata={"doc": "an exact share of an image's tokens (paper), or each with probability alpha (released code)"},
    )
    anneal: Anneal | None = field(
        default=None, metadata={"doc": "how alpha and delta fall during training; left out: constant"}
    )


class TopDelta(Perturbation):
    """Replaces tokens by neighbouring codes; with annealing fewer tokens, by nearer codes, as training proceeds."""

    Config = TopDeltaConfig

    def __init__(self, config: TopDeltaConfig) -> None:
        self.config = config
        self.needs_features = config.neighbours == "latent"

    def perturb(
        self, latents: Latents, quantizer: Quantizer | None, *, draws: Draws, progress: float
    ) -> tuple[Latents, Tensor]:
        if quantizer is None:
            raise ValueError("top_delta needs the quantizer of the codes")
        alpha, delta = self.strength(progress)
        return top_delta(
            latents,
            quantizer,
            draws,
            beta=self.config.beta,
            alpha=alpha,
            delta=delta,
            neighbours=self.config.neighbours,
            images=self.config.images,
            tokens=self.config.tokens,
        )

    def strength(self, progress: float) -> tuple[float, int]:
        """Alpha and delta at `progress`, a share of training; delta is an integer of at least 1."""
        factor = 1.0 if self.config.anneal is None else self.config.anneal.factor(progress)
        return self.config.alpha * factor, max(1, round_half_up(self.config.delta * factor))

    def check(self, space: LatentSpace, batch_size: int | None = None) -> None:
        """Raises RobustokError if there are no codes, fewer than delta, or too few tokens or images."""
        if space.codebook_size is None:
            raise RobustokError(
                f"top_delta replaces codes, and this latent space has none ({space.describe()})",
                where="perturbation.use",
                hint='use a tokenizer with a quantizer, or perturbation "none"',
            )
        if space.codebook_size > LARGEST_CODEBOOK:
            raise RobustokError(
                f"neighbours are searched among at most {LARGEST_CODEBOOK:,} codewords, and this tokenizer has "
                f"{space.codebook_size:,}",
                where="perturbation.use",
                hint="use a smaller codebook (residual_vq: level_size to the power num_levels), or perturbation none",
            )
        if self.config.delta > space.codebook_size:
            raise RobustokError(
                f"delta = {self.config.delta} exceeds the codebook size (K = {space.codebook_size})",
                where="perturbation.delta",
                hint=f"the paper's ratio, 100 of 4096, gives {self._delta_at_paper_ratio(space.codebook_size)}",
            )
        if self.config.tokens == "exact":
            check_tokens(space, self.config.alpha, self.config.anneal)
        self._check_last_delta()
        check_images(batch_size, self.config.beta, self.config.images)

    def _check_last_delta(self) -> None:
        """Raises RobustokError if delta falls to 1, the token's own codeword, although ratio is above 0."""
        config, (alpha, delta) = self.config, self.strength(1.0)
        if min(config.beta, alpha) == 0.0 or config.delta == 1 or delta > 1:
            return
        raise RobustokError(
            f"delta = {config.delta} falls to 1 in the training, and the one codeword that is left is the token's own: "
            "no token changes any more",
            where="perturbation.anneal",
            hint=f"set ratio to at least {math.ceil(150 / config.delta) / 100:g}, or to 0 if that is meant",
        )

    @staticmethod
    def _delta_at_paper_ratio(codebook_size: int) -> int:
        return max(1, round_half_up(codebook_size * 100 / 4096))
