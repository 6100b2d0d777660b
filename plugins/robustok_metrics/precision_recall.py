"""Sample metric `precision_recall`: shares of samples among the real images, and of real ones among the samples.

A set's manifold is the union of balls around its points, each as wide as the distance to the k-th nearest of the
others (Kynkäänniemi et al. 2019, equations 1 and 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from attrs import field, frozen, validators
from torch import Tensor

from robustok_blocks.full_precision import sums_device
from robustok_core.errors import RobustokError
from robustok_core.kinds.features import Features
from robustok_core.kinds.sample_metric import ImageFeatures, SampleMetric
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_toolkit.image_features import network_of

#: Distances held at once: 128 MiB in float64.
_DISTANCES_AT_ONCE = 2**24
#: Squared distances that differ by less than this share of the points' squared lengths are equal: the difference is
#: rounding, which depends on the processor.
_ROUNDING = 1e-12


@frozen(kw_only=True)
class PrecisionRecallConfig:
    """Whose features, and how wide a ball is."""

    features: Spec = component("features", doc="the network that sees", default={"use": "efficientnet_lite0"})
    neighbours: int = field(
        default=3, validator=validators.ge(1), metadata={"doc": "k: a ball reaches to the k-th nearest other image"}
    )


class PrecisionRecall(SampleMetric):
    """The results are `precision_FEATURES` and `recall_FEATURES`.

    Both change with both numbers of images: more reference images make smaller balls. ADM's numbers are of 50,000
    samples and 10,000 reference images.
    """

    Config = PrecisionRecallConfig

    def __init__(self, config: PrecisionRecallConfig) -> None:
        self.config = config

    def check(self, num_samples: int | None, num_reference: int | None) -> None:
        for where, count in (("the samples", num_samples), ("the reference", num_reference)):
            if count is not None:
                self._have_neighbours(count, where)

    def _have_neighbours(self, count: int, where: str) -> None:
        if count <= self.config.neighbours:
            hint = "take more images" if count else "statistics do not do: take a reference with images"
            what = f"{count} images have no {self.config.neighbours} neighbours each"
            raise RobustokError(what, where=where, hint=hint)

    def compute(self, samples: ImageFeatures, reference: ImageFeatures) -> Mapping[str, Result]:
        """The two shares.

        Raises:
            RobustokError: there are too few images, or the reference has none.
        """
        network = self.config.features
        drawn, real = samples.features(network), reference.features(network)
        for population, found in ((samples, drawn), (reference, real)):
            self._have_neighbours(len(found), population.name)
        net = network_of(network, samples)
        precision, recall = precision_and_recall(drawn, real, self.config.neighbours, device=_device_of(net))
        result = partial(Result, higher_is_better=True, num_images=len(drawn), num_reference=len(real))
        return {f"precision_{net.name}": result(precision), f"recall_{net.name}": result(recall)}


def precision_and_recall(
    drawn: Tensor, real: Tensor, neighbours: int = 3, *, device: torch.device | str = "cpu"
) -> tuple[float, float]:
    """Precision and recall of features drawn (n, F) against real (m, F), both of more rows than `neighbours`.

    A point on the border of a ball lies in it, within float64's rounding: neither the CPU nor the order of summation
    decides.

    Distances are in float64, of features less the mean of the real ones: torch's in float32 have errors as large as
    the distances between near neighbours. They are never all held at once.
    """
    # A centre that float32 holds: float64 subtracts it from float32 features exactly, or errs by less than _ROUNDING.
    centre = real.to(device, torch.float64).mean(0).float().double()
    ours, theirs = (rows.to(device, torch.float64) - centre for rows in (drawn, real))
    precision = _share_inside(ours, theirs, _radii(theirs, neighbours))
    recall = _share_inside(theirs, ours, _radii(ours, neighbours))
    return precision, recall


def _radii(points: Tensor, neighbours: int) -> Tensor:
    """(n,) squared distance of each point to the k-th nearest of the others; the nearest of all is itself."""
    return torch.cat([part.kthvalue(neighbours + 1).values for part, _ in _squared_distances(points, points)])


def _share_inside(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    """The share of points (n, F) that lie in any ball."""
    parts = _squared_distances(points, centres)
    inside = torch.cat([(part <= radii + rounding).any(dim=1) for part, rounding in parts])
    return float(inside.double().mean())


def _squared_distances(points: Tensor, centres: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Squared distances (rows, m) of points (n, F) from centres (m, F), and what rounding may add to each; in parts.

    The distance is 0 where the two are the same.
    """
    lengths = centres.square().sum(1)
    for part in points.split(max(1, _DISTANCES_AT_ONCE // len(centres))):
        together = part.square().sum(1, keepdim=True) + lengths
        found = torch.addmm(together, part, centres.T, alpha=-2.0)
        rounding = together.mul_(_ROUNDING)
        yield found.masked_fill_(found < rounding, 0.0), rounding


def _device_of(net: Features) -> torch.device:
    return sums_device(next((parameter.device for parameter in net.parameters()), torch.device("cpu")))
