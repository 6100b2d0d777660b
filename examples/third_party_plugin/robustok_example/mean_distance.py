"""A metric of a generator's samples: the distance of their mean features from those of real images."""

from typing import Any

from attrs import frozen
from robustok_core import Result, SampleMetric, component


@frozen(kw_only=True)
class MeanDistanceConfig:
    features: Any = component("features", doc="feature network", default={"use": "average_pool"})


class MeanDistance(SampleMetric):
    """Euclidean distance between the mean features of two sets."""

    Config = MeanDistanceConfig

    def __init__(self, config):
        self.config = config

    def compute(self, samples, reference):
        (ours, _), (theirs, _) = (images.moments(self.config.features) for images in (samples, reference))
        distance = (ours - theirs).norm()
        # Less for larger sets: with the counts, `robustok compare` sets no unequal ones, or networks, side by side.
        counts = {"num_images": len(samples), "num_reference": len(reference)}
        return {"mean_distance": Result(distance, higher_is_better=False, **counts)}
