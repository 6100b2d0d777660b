"""The codewords nearest to vectors."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from robustok_core.values import devices
from robustok_core.values.full_precision import full_precision

#: Scores computed at once by `distance_scores`: 64 MiB in float32.
_SCORES_AT_ONCE = 2**24


@torch.no_grad()
def distance_scores(z: Tensor, codebook: Tensor) -> Iterator[Tensor]:
    """(rows, K) float32 |e|^2 - 2 z e, which orders codewords e (K, D) by their L2 distance to z.

    The rows of z (M, D) are processed in chunks, so that M x K scores never exist at once, and in float32
    even under autocast and where training uses TF32: in shorter types many codewords tie.
    """
    codebook = codebook.float()
    yield from _in_parts(z, codebook, codebook.square().sum(1), -2.0)


@torch.no_grad()
def product_scores(z: Tensor, codebook: Tensor) -> Iterator[Tensor]:
    """(rows, K) float32 - z e, smallest for the codeword e (K, D) with the largest dot product; else `distance_scores`.

    The rows of z (M, D) are processed in chunks.
    """
    codebook = codebook.float()
    yield from _in_parts(z, codebook, codebook.new_zeros(len(codebook)), -1.0)


def _in_parts(z: Tensor, codebook: Tensor, offset: Tensor, factor: float) -> Iterator[Tensor]:
    """(rows, K) offset (K,) + factor * z e, chunk by chunk."""
    for part in z.float().split(max(1, _SCORES_AT_ONCE // len(codebook))):
        with full_precision(z.device):
            scores = torch.addmm(offset, part, codebook.T, alpha=factor)
        yield scores


def smallest(scores: Tensor, count: int) -> Tensor:
    """Columns of the `count` smallest entries of each row, smallest first; equal entries are ordered by column.

    The result is that of a stable sort of each row, in about half the time of `topk`, which costs several times
    the matrix product that computed the scores. It finds a cheap bound that only slightly more than `count` entries
    do not exceed, and sorts only those. How many pass is known only on the device: where that works behind the
    program, `topk` of scores and columns together is exact too, and nothing waits.

    Args:
        scores: (M, K) float32. If a row contains NaN, its columns are valid but their order is unspecified.
        count: in [1, K].

    Returns:
        (M, count) int64 in [0, K).
    """
    if devices.is_queued(scores.device):
        columns = torch.arange(scores.shape[1], device=scores.device)
        return ((_as_integers(scores) << 32) + columns).topk(count, dim=1, largest=False).indices
    bound = _upper_bound(scores, count)
    passing = (scores > bound).logical_not_()  # NaN entries pass too
    row, column = passing.nonzero(as_tuple=True)  # by row, then by column
    order = torch.argsort((row << 32) + _as_integers(scores[row, column]), stable=True)
    first = torch.searchsorted(row, torch.arange(len(scores), device=row.device))  # where each row begins
    return column[order[first[:, None] + torch.arange(count, device=row.device)]]


def _upper_bound(scores: Tensor, count: int) -> Tensor:
    """(M, 1) values that at least `count` entries of each row do not exceed.

    Splits the entries into about 2 `count` groups and returns the `count`-th smallest of the groups' minima: each of
    `count` groups has an entry at or below it.
    """
    entries = scores.shape[1]
    groups = min(entries, 64 * math.ceil(count / 32))  # whole vectors of any processor
    size = entries // groups
    least = scores[:, : size * groups].unflatten(1, (size, groups)).amin(dim=1)  # (M, groups)
    return least.topk(count, dim=1, largest=False, sorted=False).values.amax(dim=1, keepdim=True)


def _as_integers(values: Tensor) -> Tensor:
    """int64 in [-2**31, 2**31), ordered as the float32 values are, whose bits are a sign and a magnitude."""
    bits = (values + 0.0).view(torch.int32)  # -0.0 becomes 0.0
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
