"""Latent perturbation: wrong tokens in training, so that the decoder learns to read a generator's (paper section 3).

A share beta of the images of a batch is perturbed. In each of them a share alpha of the tokens is replaced,
every one by a uniform draw from the delta codewords nearest to its own. Losses on the latents have seen the
clean ones by then; the decoder reads the perturbed ones, and the gradient reaches the encoder straight-through.

`top_delta` is the method, a function of tensors and random numbers. `TopDelta` adds options and annealing.
Where the paper and its released code differ, the paper is the default and an option reaches the other:

    option      the paper                                  the released code
    neighbours  "codeword": nearest to the token's own     "latent": nearest to the encoder's vector
    images      "random": round(beta B) of the B images    "first": the first int(beta B)
    tokens      "exact": round(alpha N) of the N tokens    "bernoulli": each with probability alpha

B is the global batch, over all processes and micro-batches; the released code counts, and takes the first of,
each process's own. Halves are rounded up.
"""

from __future__ import annotations

from typing import Literal

import torch
from attrs import field, frozen, validators
from torch import Tensor

from robustok_blocks.straight_through import straight_through
from robustok_core.errors import RobustokError
from robustok_core.kinds.perturbation import Perturbation
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace
from robustok_perturbations.selection import (
    Anneal,
    WhichImages,
    WhichTokens,
    check_images,
    check_tokens,
    pick_images,
    pick_tokens,
    round_half_up,
    share_field,
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
    """Replaces tokens by codes near them; the symbols and options are those of the module.

    What an image becomes is a function of the seed, its index and the codebook, however batches are cut.
    (Only between codewords whose distances agree to float32's last bits can the size of a batch decide
    which of them is the last of the delta nearest.)

    Args:
        latents: codes (B, N) in [0, K), vectors (B, N, D) or None, features (B, N, D) for "latent".
        quantizer: the codebook of the codes.
        draws: one row an image; beta is a share of its `total`.
        beta: in [0, 1].
        alpha: in [0, 1].
        delta: in [1, K]. The token's own codeword is one of the delta, so 1 changes nothing.

    Returns:
        The latents with codes and vectors replaced, all else untouched to the bit; and a mask (B, N) bool
        of the tokens drawn anew, of which 1 in delta drew its own code again.

    Raises:
        RobustokError: where beta is above 0, yet no image of the batch comes of it.
    """
    codes = latents.codes
    if codes is None:
        raise ValueError("top_delta replaces codes, and these latents have none")
    mask = torch.zeros_like(codes, dtype=torch.bool)  # (B, N)
    if beta == 0 or alpha == 0:
        return latents, mask
    picked = pick_images(draws.child("images"), beta, images)  # (B,), P of them
    replaced = pick_tokens(draws.child("tokens")[picked], codes.shape[1], alpha, tokens)  # (P, N), M of them
    ranks = draws.child("ranks")[picked].integers(delta, codes.shape[1])[replaced]  # (M,) in [0, delta)
    mask[picked] = replaced
    place = mask.nonzero(as_tuple=True)
    drawn = _draw_neighbours(latents[place], quantizer, delta, ranks, neighbours)  # (M,)
    vectors = latents.vectors
    if vectors is not None:
        codewords = quantizer.lookup(drawn).to(vectors.dtype)  # (M, D)
        vectors = vectors.index_put(place, straight_through(vectors[place], codewords))  # (B, N, D)
    return latents.evolve(codes=codes.index_put(place, drawn), vectors=vectors), mask


def nearest_codes(codes: Tensor, quantizer: Quantizer, delta: int) -> Tensor:
    """(M, delta) int64: the codes whose codewords are nearest to those of codes (M,), which are among them."""
    near = quantizer.nearest(quantizer.lookup(codes), delta)
    absent = (near != codes[:, None]).all(dim=1)  # where many codewords coincide
    near[:, -1] = torch.where(absent, codes, near[:, -1])
    return near


def _draw_neighbours(tokens: Latents, quantizer: Quantizer, delta: int, ranks: Tensor, of: Neighbours) -> Tensor:
    """(M,) int64: for each of M tokens the neighbour that its rank in [0, delta) points at."""
    if of == "codeword":
        assert tokens.codes is not None
        distinct, row = tokens.codes.unique(return_inverse=True)  # tokens of one code share their neighbours
        near = nearest_codes(distinct, quantizer, delta)
    elif tokens.features is not None:
        near, row = quantizer.nearest(tokens.features, delta), torch.arange(len(ranks), device=ranks.device)
    else:
        raise RobustokError(
            "this tokenizer does not pass on what its encoder wrote before the quantizer",
            where="perturbation.neighbours",
            hint='use neighbours = "codeword"',
        )
    # Ranked by code: an order by distance could hang on the last bit of a sum.
    return near.sort(dim=1).values[row, ranks]


@frozen(kw_only=True)
class TopDeltaConfig:
    """Options of `top_delta`; the defaults are the paper's for K = 4096, but for its annealing."""

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
        default=None, metadata={"doc": "how alpha and delta fall in the course of the training; left out: they stay"}
    )


class TopDelta(Perturbation):
    """Tokens are replaced by codes near them, fewer and nearer ones as training goes on."""

    Config = TopDeltaConfig

    def __init__(self, config: TopDeltaConfig) -> None:
        self.config = config

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
        """Alpha and delta at this share of the training; delta is a whole number and at least 1."""
        factor = 1.0 if self.config.anneal is None else self.config.anneal.factor(progress)
        return self.config.alpha * factor, max(1, round_half_up(self.config.delta * factor))

    def check(self, space: LatentSpace, batch_size: int | None = None) -> None:
        """Raises RobustokError where there are no codes, fewer than delta, or too few tokens or images."""
        if space.codebook_size is None:
            raise RobustokError(
                f"top_delta replaces codes, and this latent space has none ({space.describe()})",
                where="perturbation.use",
                hint='take a tokenizer with a quantizer, or perturbation "none"',
            )
        if self.config.delta > space.codebook_size:
            raise RobustokError(
                f"delta = {self.config.delta} is more than the codebook holds (K = {space.codebook_size})",
                where="perturbation.delta",
                hint=f"the paper's share, 100 of 4096, is {self._papers_delta(space.codebook_size)} here",
            )
        if self.config.tokens == "exact":
            check_tokens(space, self.config.alpha)
        check_images(batch_size, self.config.beta, self.config.images)

    @staticmethod
    def _papers_delta(codebook_size: int) -> int:
        return max(1, round_half_up(codebook_size * 100 / 4096))
