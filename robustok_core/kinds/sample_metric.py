"""Metrics of a generator's samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds import expectations
from robustok_core.kinds.boundary import Call
from robustok_core.kinds.component import Component
from robustok_core.values.result import Result

if TYPE_CHECKING:
    from robustok_core.kinds.features import Features
    from robustok_core.values.spec import Spec


class ImageFeatures(ABC):
    """The features of a set of images: a generator's samples, or the real images they are compared with.

    Attributes:
        name: used in messages: a file, a folder, "validation images".
    """

    name: str

    @abstractmethod
    def __len__(self) -> int:
        """The number of images; 0 if only their statistics are known."""

    @abstractmethod
    def features(self, network: Spec) -> Tensor:
        """(n, F) float32 pooled features on the CPU, in image order, computed once.

        Raises:
            RobustokError: if only statistics are known.
        """

    @abstractmethod
    def logits(self, network: Spec) -> Tensor:
        """(n, num_logits) float32 class scores on the CPU; raises as `features` does."""

    @abstractmethod
    def moments(self, network: Spec) -> tuple[Tensor, Tensor]:
        """Mean (F,) and covariance (F, F), normalised by n - 1, of the features, float64."""

    @property
    def num_in_moments(self) -> int:
        """How many images `moments` are of; 0 if that is not known, as for published statistics."""
        return len(self)

    def other(self, name: str, limit: int | None = None) -> ImageFeatures:
        """Another set of real images, whose features are extracted and kept as those of this one.

        Args:
            name: one of the metric's `other_sets`. limit: use only this many images, of all classes alike.

        Raises:
            RobustokError: if this set does not know others.
        """
        raise RobustokError(f"this set of images has no other beside it, such as {name!r}", where=self.name)


def _measured(call: Call, results: Any, *_: ImageFeatures) -> None:
    expectations.results(call, results)


class SampleMetric(Component, ABC):
    """One or a few numbers that compare a generator's samples with real images. Built as `SampleMetric(config)`.

    Attributes:
        needs_full_rank: whether it estimates the covariance of the features that its options name, which is
            singular with fewer images than features. Users are warned before the work.
    """

    returns: ClassVar = {"compute": _measured}
    needs_full_rank: ClassVar[bool] = False

    def check(self, num_samples: int | None, num_reference: int | None) -> None:
        """Raises RobustokError if the metric cannot be computed from this many images; called before anything runs.

        A number is None if it is unknown; `num_reference` is 0 if only statistics of the reference are known.
        """

    def check_features(self, network: Callable[[Spec], Features | None], statistics: Mapping[str, int] | None) -> None:
        """Raises RobustokError if its feature networks do not give what it needs; called before anything runs.

        Args:
            network: gives a feature network for its name, width and number of classes; None if they are not known yet.
            statistics: the networks whose moments the reference holds, in place of all others: their widths by name;
                None if the moments are computed from its images.
        """

    def other_sets(self) -> Sequence[str]:
        """The sets of real images that it asks the reference for (`ImageFeatures.other`), besides the two compared.

        Each is "validation" or "train", a split of [data], or the path of an .npz file or of a folder of images.
        """
        return ()

    def result_names(self, network: Callable[[Spec], Features]) -> Sequence[str] | None:
        """The names of its results; None if they are not known before it has measured.

        Args:
            network: builds a feature network.
        """
        return None

    @abstractmethod
    def compute(self, samples: ImageFeatures, reference: ImageFeatures) -> Mapping[str, Result]:
        """The results by name; the first one is the main result.

        Those of which more or less is better have `num_images` (`len(samples)`), and `num_reference`
        (`len(reference)`) unless the real images do not matter. Without the first, results that are of unequal
        numbers of images, of different networks or with different options would be taken as comparable.

        Raises:
            RobustokError: if it cannot be computed for these images.
        """
