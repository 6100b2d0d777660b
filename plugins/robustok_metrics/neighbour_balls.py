"""Balls around points of a feature space: the radius of each reaches to the k-th nearest other point.

Distances are computed in float64 and in chunks. In float32, their errors are as large as the distances between near
neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from robustok_core.kinds.features import Features
from robustok_core.values.full_precision import sums_device

#: Number of distances in memory: 128 MiB in float64.
_DISTANCES_AT_ONCE = 2**24
#: Squared distances that differ by less than this share of the points' squared norms count as equal: the difference
#: is rounding error, which depends on the processor.
_ROUNDING = 1e-12


def centred(generated: Tensor, real: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Both sets of features (n, F) and (m, F), in float64, less the mean of the real ones."""
    # The centre is rounded to float32, so float64 subtracts it from float32 features with an error below _ROUNDING.
    centre = real.to(device, torch.float64).mean(0).float().double()
    ours, theirs = (rows.to(device, torch.float64) - centre for rows in (generated, real))
    return ours, theirs


def radii(points: Tensor, neighbours: int) -> Tensor:
    """(n,) squared distance from each point to the k-th nearest other point; the nearest point is itself."""
    return torch.cat([part.kthvalue(neighbours + 1).values for part, _ in squared_distances(points, points)])


def inside(points: Tensor, centres: Tensor, squared_radii: Tensor) -> Iterator[Tensor]:
    """Yields, in chunks of points, which points (rows, m) lie in which balls.

    A point on the border of a ball, up to float64 rounding error, counts as inside, so the result does not depend on
    the CPU or the order of summation.
    """
    for part, rounding in squared_distances(points, centres):
        yield part <= squared_radii + rounding


def squared_distances(points: Tensor, centres: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields, in chunks, squared distances (rows, m) of points (n, F) from centres (m, F), and their rounding errors.

    The distance between equal points is 0.
    """
    lengths = centres.square().sum(1)
    for part in points.split(max(1, _DISTANCES_AT_ONCE // len(centres))):
        sums = part.square().sum(1, keepdim=True) + lengths
        distances = torch.addmm(sums, part, centres.T, alpha=-2.0)
        rounding = sums.mul_(_ROUNDING)
        yield distances.masked_fill_(distances < rounding, 0.0), rounding


def device_of(net: Features) -> torch.device:
    """Where to compute with a network's features: its device, unless that has no float64."""
    return sums_device(next((parameter.device for parameter in net.parameters()), torch.device("cpu")))
