"""Statistics of the real images for a Fréchet distance, accumulated in a pass or read from the cache."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from robustok_core.errors import RunError
from robustok_core.kinds.features import Features
from robustok_core.kinds.metric import Evaluation, EvaluationContext
from robustok_core.values.full_precision import full_precision, sums_device
from robustok_metrics.frechet_distance import FeatureSums, Moments
from robustok_toolkit.shared_cache import CacheEntry


class ReferenceStatistics:
    """Sums over all or the first real images of a pass.

    If the cache holds the sums for the same images (fingerprint and number) and network (fingerprint), no
    real image is sent through the network. The cache is used only if all processes can read the file.

    Args:
        context: the pass.
        features: the network.
        num_images: how many images of the pass to use.
    """

    def __init__(self, context: EvaluationContext, features: Features, num_images: int) -> None:
        self.features = features
        self.num_images = num_images
        self.sums = FeatureSums(features.width, sums_device(context.device))
        self._entry = CacheEntry(
            context.cache,
            f"reference_{features.name}_{num_images}",
            lambda: ("float32", context.source, context.num_images, num_images, features.fingerprint),
        )
        cached_sums = self._entry.read()
        self.cached = cached_sums is not None
        if cached_sums is not None:
            self.sums.load_state(cached_sums)

    def add(self, step: Evaluation) -> None:
        """Adds the real images of a batch."""
        if not self.cached:
            with full_precision(step.images.device):
                self.sums.add(step.real_features(self.features))

    def state(self) -> dict[str, Tensor]:
        """The additive state; empty if the sums came from the cache, which every process has read."""
        return {} if self.cached else self.sums.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replaces the state."""
        if not self.cached:
            self.sums.load_state(state)

    def moments(self) -> Moments:
        """The images' moments; the main process writes the sums to the cache.

        Raises:
            RunError: the pass did not see `num_images` images.
        """
        moments = self.sums.moments()
        if moments.count != self.num_images:
            raise RunError(f"the pass should have seen {self.num_images} images, but saw {moments.count}")
        self._entry.keep(self.sums.state())
        return moments
