"""Sample metric `inception_score`: a classifier's confidence in each sample and the diversity of its predictions.

The mean of exp(E KL(p(y|x) || p(y))) over splits of the samples (Salimans et al. 2016), computed by torch-fidelity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import field, frozen

from robustok_core.errors import RobustokError
from robustok_core.kinds.features import Features
from robustok_core.kinds.sample_metric import ImageFeatures, SampleMetric
from robustok_core.recipe.validators import rounds_range
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_toolkit.image_features import network_of, require_classifier


@frozen(kw_only=True)
class InceptionScoreConfig:
    """Options of the Inception Score."""

    features: Spec = component(
        "features", doc="feature network with a classifier", default={"use": "efficientnet_lite0"}
    )
    splits: int = field(
        default=10,
        validator=rounds_range,
        metadata={"doc": "equal splits of the samples, with one score each"},
    )
    shuffle: bool = field(
        default=False,
        metadata={"doc": "shuffle the samples before splitting, as torch-fidelity does; ADM keeps their order"},
    )


class InceptionScore(SampleMetric):
    """The result is `inception_score` with the published Inception, else `classifier_score_FEATURES`.

    Its detail `std` is the standard deviation over the splits. If samples are sorted by class, each split has few
    classes, which lowers the score: with 10 splits of 1,000 sorted classes it is at most 100. Interleave the classes,
    or shuffle.
    """

    Config = InceptionScoreConfig
    also_called = ("inception", "is")

    def __init__(self, config: InceptionScoreConfig) -> None:
        self.config = config

    def check(self, num_samples: int | None, num_reference: int | None) -> None:
        if num_samples is not None:
            self._require_splits(num_samples, "the samples")

    def check_features(self, network: Callable[[Spec], Features | None], statistics: Mapping[str, int] | None) -> None:
        if (known := network(self.config.features)) is not None:
            require_classifier(known)

    def _require_splits(self, count: int, where: str) -> None:
        if count < self.config.splits:
            message = f"{count} samples are too few for {self.config.splits} splits"
            raise RobustokError(message, where=where, hint="lower splits")

    def result_names(self, network: Callable[[Spec], Features]) -> Sequence[str]:
        return [_name_with(network(self.config.features))]

    def compute(self, samples: ImageFeatures, reference: ImageFeatures) -> Mapping[str, Result]:
        """The score; the reference is not used.

        Raises:
            RobustokError: the network has no classifier, or there are fewer samples than splits.
        """
        from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

        self._require_splits(len(samples), samples.name)
        logits = samples.logits(self.config.features)
        scores = isc_features_to_metric(logits, splits=self.config.splits, shuffle=self.config.shuffle)
        name = _name_with(network_of(self.config.features, samples))
        result = Result(
            scores[KEY_METRIC_ISC_MEAN],
            higher_is_better=True,
            num_images=len(samples),
            details={"std": float(scores[KEY_METRIC_ISC_STD])},
        )
        return {name: result}


def _name_with(features: Features) -> str:
    return "inception_score" if features.name == "inception" else f"classifier_score_{features.name}"
