"""Fréchet distances between the real images of a pass and what is decoded for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from robustok_core.kinds.features import Features
from robustok_core.kinds.metric import Evaluation, EvaluationContext
from robustok_core.runs.weights import part, prefixed
from robustok_core.values.full_precision import full_precision, sums_device
from robustok_core.values.spec import Spec
from robustok_metrics.frechet_distance import FeatureSums, frechet_distance
from robustok_metrics.reference_statistics import ReferenceStatistics


class ReconstructionDistances:
    """The distances of one or more sets of decoded images, each of as many as the pass has.

    Args:
        context: the pass.
        features: the network.
        names: of the sets, none of them "real".
    """

    def __init__(self, context: EvaluationContext, features: Spec, names: Sequence[str]) -> None:
        self.features: Features = context.share_features(features)
        self.num_images = context.num_images
        self._real = ReferenceStatistics(context, self.features, context.num_images)
        device = sums_device(context.device)
        self._sums = {name: FeatureSums(self.features.width, device) for name in names}

    def add_real(self, step: Evaluation) -> None:
        """Adds the real images of a batch."""
        self._real.add(step)

    def add(self, name: str, images: Tensor) -> None:
        """Adds images (B, 3, H, W) of a batch to a set."""
        with full_precision(images.device):
            self._sums[name].add(self.features(images))

    def state(self) -> dict[str, Tensor]:
        """The additive state."""
        state = prefixed(self._real.state(), "real/")
        for name, sums in self._sums.items():
            state |= prefixed(sums.state(), f"{name}/")
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replaces the state."""
        self._real.load_state(part(state, "real/"))
        for name, sums in self._sums.items():
            sums.load_state(part(state, f"{name}/"))

    def compute(self) -> dict[str, float]:
        """The distance of each set by name."""
        real = self._real.moments()
        return {name: frechet_distance(real, sums.moments()) for name, sums in self._sums.items()}
