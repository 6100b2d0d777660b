"""Images with labels, and other data that training reads by index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from robustok_core.kinds.component import Component
from robustok_core.values.batches import Batch, ImageBatch
from robustok_core.values.draws import Draws


class Rows(ABC):
    """Data that training reads by index. Must be picklable: data loader workers hold a copy."""

    @property
    @abstractmethod
    def labels(self) -> Tensor:
        """(n,) int64 in [0, num_classes)."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the content and of its preparation (crop, size): equal rows have equal hashes."""

    @abstractmethod
    def load(self, indices: Sequence[int], draws: Draws | None = None) -> Batch:
        """The rows at `indices`. `draws` (one row each) drives augmentation; None disables it."""

    def __len__(self) -> int:
        return len(self.labels)


class Images(Rows):
    """The images of one split of a data set."""

    @abstractmethod
    def load(self, indices: Sequence[int], draws: Draws | None = None) -> ImageBatch:
        """The images at `indices`."""


class Dataset(Component, ABC):
    """Images with labels, in a training and a validation split.

    The constructor `Dataset(config)` opens and checks the source. It raises RobustokError if a file is missing,
    a folder is empty or a class has fewer than 2 images.
    """

    image_size: int
    num_classes: int
    class_names: Sequence[str]
    train: Images
    validation: Images
