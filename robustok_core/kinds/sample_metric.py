"""What is measured of a generator's samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from robustok_core.kinds.component import Component
from robustok_core.values.result import Result

if TYPE_CHECKING:
    from robustok_core.values.spec import Spec


class ImageFeatures(ABC):
    """A set of images as a feature network sees it: a generator's samples, or the real images they are judged by.

    Attributes:
        name: for messages: a file, a folder, "validation images".
    """

    name: str

    @abstractmethod
    def __len__(self) -> int:
        """How many images it holds; 0 where only statistics of them are known."""

    @abstractmethod
    def features(self, network: Spec) -> Tensor:
        """(n, F) float32 pooled features on the CPU, in the order of the images, computed once.

        Raises:
            RobustokError: where only statistics are known.
        """

    @abstractmethod
    def logits(self, network: Spec) -> Tensor:
        """(n, num_logits) float32 class scores on the CPU; errors as `features`."""

    @abstractmethod
    def moments(self, network: Spec) -> tuple[Tensor, Tensor]:
        """Mean (F,) and covariance (F, F, divided by n - 1) of the features, float64."""


class SampleMetric(Component, ABC):
    """A number, or a few, that compare a generator's samples with real images. Built as `SampleMetric(config)`.

    Attributes:
        needs_full_rank: whether its option `features` is a network whose features' covariance it estimates, which is
            singular with fewer images than features. Users are told so before the work.
    """

    needs_full_rank: ClassVar[bool] = False

    def check(self, num_samples: int | None, num_reference: int | None) -> None:
        """Raises RobustokError where it cannot be computed of so many images; called before anything runs.

        A number is None where it is not known, and 0 where only statistics of the reference are.
        """

    @abstractmethod
    def compute(self, samples: ImageFeatures, reference: ImageFeatures) -> Mapping[str, Result]:
        """The results by name; the first one is the main result.

        Raises:
            RobustokError: where it cannot be computed for these populations.
        """
