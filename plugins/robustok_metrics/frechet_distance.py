"""The Fréchet distance between normal distributions fitted to features (Heusel et al. 2017), in float64."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from attrs import field, frozen
from torch import Tensor

from robustok_core.errors import RunError
from robustok_core.values.finite import all_finite


class FeatureSums:
    """Count, sum and sum of outer products of features, which add up over batches and processes.

    Attributes:
        count: () float64. total: (F,) float64. outer: (F, F) float64.
    """

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.total = torch.zeros(width, dtype=torch.float64, device=device)
        self.outer = torch.zeros(width, width, dtype=torch.float64, device=device)

    def add(self, features: Tensor) -> None:
        """Adds features (B, F)."""
        rows = features.to(self.outer.device, torch.float64)
        self.count += len(rows)
        self.total += rows.sum(0)
        self.outer.addmm_(rows.T, rows)

    def state(self) -> dict[str, Tensor]:
        """The three sums by name."""
        return {"count": self.count, "total": self.total, "outer": self.outer}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replaces the three sums."""
        self.count, self.total, self.outer = (state[name].to(self.outer.device) for name in self.state())

    def moments(self) -> Moments:
        """Mean and covariance (divided by n - 1, as FID does).

        Raises:
            RunError: fewer than two images were seen, or the features hold NaN or infinity.
        """
        count = round(self.count.item())
        if count < 2:
            raise RunError(f"a Fréchet distance needs at least two images, found {count}")
        mean = self.total / count
        covariance = (self.outer - count * torch.outer(mean, mean)) / (count - 1)
        if not all_finite(covariance):
            raise RunError("the features hold NaN or infinity", hint="are the tokenizer's images finite?")
        return Moments(count=count, mean=mean, covariance=covariance)


@frozen(kw_only=True, eq=False)
class Moments:
    """A normal distribution with mean (F,) and covariance (F, F), fitted to `count` images (0: unknown)."""

    count: int
    mean: Tensor
    covariance: Tensor = field(repr=False)

    @cached_property
    def root(self) -> Tensor:
        """(F, F) the symmetric square root of the covariance."""
        values, vectors = torch.linalg.eigh(self.covariance)
        return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet_distance(reference: Moments, other: Moments) -> float:
    """The distance between two sets with the same number of images, such as reconstructions and their originals.

    Its upward bias falls with the number of images, so distances with different numbers are not comparable.

    Raises:
        ValueError: the counts differ.
    """
    if reference.count != other.count:
        raise ValueError(f"moments of {reference.count} and of {other.count} images cannot be compared")
    return distance_between(reference, other)


def distance_between(reference: Moments, other: Moments) -> float:
    """|m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2)), for any numbers of images.

    A generator's samples may be more or fewer than the reference images. The bias then depends on both numbers, so
    compare only distances for which both are the same.

    The last trace is the sum of the square roots of the eigenvalues of R C2 R with R = C1^(1/2): a symmetric
    problem, which is exact for singular covariances too. `reference.root` is computed once.
    """
    root = reference.root
    inner = root @ other.covariance @ root
    overlap = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp(min=0).sqrt().sum()
    mean_distance = (reference.mean - other.mean).square().sum()
    traces = reference.covariance.trace() + other.covariance.trace()
    return max(0.0, float(mean_distance + traces - 2 * overlap))  # rounding may give -1e-7
