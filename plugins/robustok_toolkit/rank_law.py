"""How far wrong codes lie from the true ones: ranks among a codeword's neighbours, and their law.

A code has rank 1 if it is the one nearest to the true code, K - 1 if it is the farthest. A law is the density of the
relative rank r / K, as the shares of bins whose edges halve: [1/2, 1), [1/4, 1/2), ..., the lowest one from 0. So laws
of different codebooks can be compared, and a law measured with one can be drawn from with another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.quantizer import Quantizer

#: Ranks need the whole codebook in order, for each code that occurs.
LARGEST_RANKED = 2**16
#: Codes that are held in order at once: 128 MiB.
_AT_ONCE = 2**24


def check_ranked(codebook_size: int | None, who: str) -> None:
    """Raises RobustokError if there are no codes, only one, or too many to order all; `who` begins the message."""
    if codebook_size is None or codebook_size < 2:
        found = "none" if codebook_size is None else "one"
        raise RobustokError(f"{who} ranks the neighbours of a code, and this latent space has {found}")
    if codebook_size > LARGEST_RANKED:
        what = f"{who} orders the whole codebook, at most {LARGEST_RANKED:,} codes, and this one has {codebook_size:,}"
        raise RobustokError(what, hint='use "top_delta", which searches the nearest codes only')


def bins_for(codebook_size: int) -> int:
    """The number of bins with which the lowest holds rank 1 alone, if K is a power of two."""
    return max(1, (codebook_size - 1).bit_length())


def edges(bins: int) -> list[float]:
    """The edges of the bins of the relative rank, lowest first, one more than bins: 0, ..., 1/4, 1/2, 1."""
    return [0.0, *(2.0**power for power in range(1 - bins, 1))]


def law_of(ranks: Tensor, codebook_size: int) -> list[float]:
    """The shares of the bins, lowest first, of those ranks (M,) that are above 0; none of them: all 0."""
    wrong = ranks[ranks > 0].double().cpu() / codebook_size
    inner = torch.tensor(edges(bins_for(codebook_size))[1:-1], dtype=torch.float64)
    counts = torch.bucketize(wrong, inner, right=True).bincount(minlength=len(inner) + 1)
    return [float(share) for share in counts.double() / max(1, len(wrong))]


def draw_ranks(uniform: Tensor, shares: Sequence[float], codebook_size: int) -> Tensor:
    """Ranks in [1, K) of a law, int64, from uniform numbers in [0, 1) of any shape: the density's quantiles.

    Args:
        shares: of the bins, lowest first; their sum need not be 1.
    """
    law = torch.tensor(shares, dtype=torch.float64, device=uniform.device)
    steps = torch.cat([law.new_zeros(1), (law / law.sum()).cumsum(0)])
    steps[int(law.nonzero()[-1]) + 1 :] = 1.0  # whatever was lost in rounding
    at = torch.tensor(edges(len(shares)), dtype=torch.float64, device=uniform.device)
    bin_ = torch.searchsorted(steps, uniform.double(), right=True).clamp(1, len(shares)) - 1
    within = (uniform.double() - steps[bin_]) / (steps[bin_ + 1] - steps[bin_])
    first = (at * codebook_size).ceil().clamp(1, codebook_size)  # of the ranks that `law_of` counts in each bin
    low, high = first[bin_], first[bin_ + 1]
    return (low + (within * (high - low)).floor()).long().clamp(1, codebook_size - 1)


@torch.no_grad()
def ranks_of(drawn: Tensor, true: Tensor, quantizer: Quantizer) -> Tensor:
    """(M,) int64 in [0, K): ranks of codes `drawn` (M,) among the neighbours of `true` (M,); 0 where they are equal.

    Codewords whose distances agree up to float32's last bits may change places from one processor to another.
    """
    ranks = torch.zeros_like(true)
    places = torch.arange(1, quantizer.codebook_size, device=true.device)
    for here, row, others in _neighbours(true, quantizer):
        rank_of = others.new_zeros(len(others), quantizer.codebook_size).scatter_(1, others, places.expand_as(others))
        ranks[here] = rank_of[row, drawn[here]]
    return ranks


@torch.no_grad()
def codes_at(ranks: Tensor, true: Tensor, quantizer: Quantizer) -> Tensor:
    """(M,) int64: the codes with `ranks` (M,) in [1, K) among the neighbours of `true` (M,); see `ranks_of`."""
    codes = torch.empty_like(true)
    for here, row, others in _neighbours(true, quantizer):
        codes[here] = others[row, ranks[here] - 1]
    return codes


def _neighbours(true: Tensor, quantizer: Quantizer) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """All codes but the true one, nearest first, for tokens with codes (M,); tokens of equal codes share a row.

    Yields, part by part: which tokens (m,), their rows (m,), and the codes (rows, K - 1).
    """
    distinct, row_of = true.unique(return_inverse=True)
    size = quantizer.codebook_size
    for first in range(0, len(distinct), rows := max(1, _AT_ONCE // size)):
        codes = distinct[first : first + rows]
        near = quantizer.nearest(quantizer.lookup(codes), size)  # (rows, K)
        others = near[near != codes[:, None]].view(len(codes), size - 1)
        here = ((row_of >= first) & (row_of < first + rows)).nonzero().flatten()
        yield here, row_of[here] - first, others
