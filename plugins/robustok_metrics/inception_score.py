"""Sample metric `inception_score`: how sure a classifier is of each sample, and how various it finds them.

exp(E KL(p(y|x) || p(y))) over parts of the samples, their mean (Salimans et al. 2016), through torch-fidelity.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen, validators

from robustok_core.errors import RobustokError
from robustok_core.kinds.sample_metric import ImageFeatures, SampleMetric
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_toolkit.image_features import network_of


@frozen(kw_only=True)
class InceptionScoreConfig:
    """Whose class scores, and how the samples are parted."""

    features: Spec = component(
        "features", doc="a network with a classifier's head", default={"use": "efficientnet_lite0"}
    )
    splits: int = field(
        default=10, validator=validators.ge(1), metadata={"doc": "equal parts, each of which has a score"}
    )
    shuffle: bool = field(
        default=False,
        metadata={"doc": "part the samples in torch-fidelity's shuffled order, not in theirs as ADM does"},
    )


class InceptionScore(SampleMetric):
    """The result is `inception_score` where the scores are the published Inception's, else `classifier_score_FEATURES`.

    Its detail `std` is over the parts. Parts of consecutive samples see few classes where samples are sorted by class,
    and the score is low for that alone: with 10 parts of 1,000 sorted classes it is 100 at most. Interleave the
    classes, or shuffle.
    """

    Config = InceptionScoreConfig

    def __init__(self, config: InceptionScoreConfig) -> None:
        self.config = config

    def check(self, num_samples: int | None, num_reference: int | None) -> None:
        if num_samples is not None:
            self._can_be_parted(num_samples, "the samples")

    def _can_be_parted(self, count: int, where: str) -> None:
        if count < self.config.splits:
            what = f"{count} samples cannot be parted into {self.config.splits}"
            raise RobustokError(what, where=where, hint="set splits of inception_score lower")

    def compute(self, samples: ImageFeatures, reference: ImageFeatures) -> Mapping[str, Result]:
        """The score; the reference is not looked at.

        Raises:
            RobustokError: the network has no classifier, or there are fewer samples than parts.
        """
        from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

        self._can_be_parted(len(samples), samples.name)
        logits = samples.logits(self.config.features)
        found = isc_features_to_metric(logits, splits=self.config.splits, shuffle=self.config.shuffle)
        seen_by = network_of(self.config.features, samples).name
        name = "inception_score" if seen_by == "inception" else f"classifier_score_{seen_by}"
        result = Result(
            found[KEY_METRIC_ISC_MEAN],
            higher_is_better=True,
            num_images=len(samples),
            details={"std": float(found[KEY_METRIC_ISC_STD])},
        )
        return {name: result}
