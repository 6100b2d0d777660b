"""Sample metric `precision_recall`: the share of samples in the manifold of real images, and vice versa.

The manifold of a set is the union of balls around its points; the radius of each is the distance to the k-th nearest
other point (Kynkäänniemi et al. 2019, equations 1 and 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from attrs import field, frozen
from torch import Tensor

from robustok_blocks.full_precision import sums_device
from robustok_core.errors import RobustokError
from robustok_core.kinds.features import Features
from robustok_core.kinds.sample_metric import ImageFeatures, SampleMetric
from robustok_core.recipe.validators import rounds_range
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_toolkit.image_features import network_of

#: Number of distances in memory: 128 MiB in float64.
_DISTANCES_AT_ONCE = 2**24
#: Squared distances that differ by less than this share of the points' squared norms count as equal: the difference
#: is rounding error, which depends on the processor.
_ROUNDING = 1e-12


@frozen(kw_only=True)
class PrecisionRecallConfig:
    """Options of precision and recall."""

    features: Spec = component("features", doc="feature network", default={"use": "efficientnet_lite0"})
    neighbours: int = field(
        default=3,
        validator=rounds_range,
        metadata={"doc": "k: a ball reaches to the k-th nearest other image"},
    )


class PrecisionRecall(SampleMetric):
    """The results are `precision_FEATURES` and `recall_FEATURES`.

    Both depend on both numbers of images: more reference images make smaller balls. ADM uses 50,000 samples and 10,000
    reference images.
    """

    Config = PrecisionRecallConfig
    also_called = ("prdc", "precision", "recall")

    def __init__(self, config: PrecisionRecallConfig) -> None:
        self.config = config

    def check(self, num_samples: int | None, num_reference: int | None) -> None:
        for where, count in (("the samples", num_samples), ("the reference", num_reference)):
            if count is not None:
                self._require_neighbours(count, where)

    def _require_neighbours(self, count: int, where: str) -> None:
        if count <= self.config.neighbours:
            hint = "use more images" if count else "statistics are not enough: use a reference with images"
            message = f"{count} images are too few for {self.config.neighbours} neighbours each"
            raise RobustokError(message, where=where, hint=hint)

    def result_names(self, network: Callable[[Spec], Features]) -> Sequence[str]:
        name = network(self.config.features).name
        return [f"precision_{name}", f"recall_{name}"]

    def compute(self, samples: ImageFeatures, reference: ImageFeatures) -> Mapping[str, Result]:
        """The two shares.

        Raises:
            RobustokError: there are too few images, or the reference has none.
        """
        network = self.config.features
        generated, real = samples.features(network), reference.features(network)
        for images, features in ((samples, generated), (reference, real)):
            self._require_neighbours(len(features), images.name)
        net = network_of(network, samples)
        precision, recall = precision_and_recall(generated, real, self.config.neighbours, device=_device_of(net))
        result = partial(Result, higher_is_better=True, num_images=len(generated), num_reference=len(real))
        return {f"precision_{net.name}": result(precision), f"recall_{net.name}": result(recall)}


def precision_and_recall(
    generated: Tensor, real: Tensor, neighbours: int = 3, *, device: torch.device | str = "cpu"
) -> tuple[float, float]:
    """Precision and recall of features `generated` (n, F) and `real` (m, F), both with more rows than `neighbours`.

    A point on the border of a ball, up to float64 rounding error, counts as inside, so the result does not depend on
    the CPU or the order of summation.

    Distances are computed in float64, in chunks, after subtracting the mean of the real features: in float32, their
    errors are as large as the distances between near neighbours.
    """
    # The centre is rounded to float32, so float64 subtracts it from float32 features with an error below _ROUNDING.
    centre = real.to(device, torch.float64).mean(0).float().double()
    ours, theirs = (rows.to(device, torch.float64) - centre for rows in (generated, real))
    precision = _share_inside(ours, theirs, _radii(theirs, neighbours))
    recall = _share_inside(theirs, ours, _radii(ours, neighbours))
    return precision, recall


def _radii(points: Tensor, neighbours: int) -> Tensor:
    """(n,) squared distance from each point to the k-th nearest other point; the nearest point is itself."""
    return torch.cat([part.kthvalue(neighbours + 1).values for part, _ in _squared_distances(points, points)])


def _share_inside(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    """The share of points (n, F) that lie in at least one ball."""
    parts = _squared_distances(points, centres)
    inside = torch.cat([(part <= radii + rounding).any(dim=1) for part, rounding in parts])
    return float(inside.double().mean())


def _squared_distances(points: Tensor, centres: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields, in chunks, squared distances (rows, m) of points (n, F) from centres (m, F), and their rounding errors.

    The distance between equal points is 0.
    """
    lengths = centres.square().sum(1)
    for part in points.split(max(1, _DISTANCES_AT_ONCE // len(centres))):
        sums = part.square().sum(1, keepdim=True) + lengths
        distances = torch.addmm(sums, part, centres.T, alpha=-2.0)
        rounding = sums.mul_(_ROUNDING)
        yield distances.masked_fill_(distances < rounding, 0.0), rounding


def _device_of(net: Features) -> torch.device:
    return sums_device(next((parameter.device for parameter in net.parameters()), torch.device("cpu")))
