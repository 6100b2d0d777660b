"""Metrics of a tokenizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import field, frozen
from torch import Tensor

from robustok_core.kinds import expectations
from robustok_core.kinds.boundary import Call
from robustok_core.kinds.component import Component
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.features import Features
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec
from robustok_core.values.wording import described


@frozen(kw_only=True, eq=False)
class Evaluation:
    """One batch of a tokenizer's evaluation.

    Attributes:
        batch: real images, without augmentation.
        latents: the tokenizer's latents of them.
        images: (B, 3, H, W) reconstructions as an image file would hold them: clamped to [-1, 1]
            and rounded to 8 bits.
        tokenizer: the tokenizer.
        draws: one row per image; an image's row is the same whatever the batch or the limit.
        real: pooled features of the real images by Features object, computed on demand.
    """

    batch: ImageBatch
    latents: Latents
    images: Tensor
    tokenizer: Tokenizer
    draws: Draws
    _real: dict[int, Tensor] = field(factory=dict, alias="real")

    def real_features(self, features: Features) -> Tensor:
        """(B, F) pooled features of the real images, computed once and shared by all metrics."""
        key = id(features)
        if key not in self._real:
            self._real[key] = features(self.batch.images)
        return self._real[key]


@frozen(kw_only=True)
class EvaluationContext:
    """What a metric may use before a pass begins.

    Attributes:
        tokenizer: the tokenizer to measure.
        source: fingerprint of the real images of the pass.
        num_images: number of images in the pass, over all processes.
        cache: folder for reference statistics, or None.
        share_features: returns one Features object for equal configurations, so that metrics share it.
        device: the device that the pass runs on.
        train: the training images of the same data, without augmentation; None if there are none.
    """

    tokenizer: Tokenizer
    source: str
    num_images: int
    cache: Path | None
    share_features: Any
    device: torch.device
    train: Images | None = None


def _state(call: Call, state: Any) -> None:
    is_table = isinstance(state, Mapping) and all(isinstance(value, Tensor) for value in state.values())
    call.require(is_table, f"`state` must return tensors by name, found {described(state)}")


class Metric(Component, ABC):
    """One or a few numbers measured in one pass over the images. Built as `Metric(config)`.

    A metric's `state` holds sums: adding the states of all processes gives the state of the whole.

    Attributes:
        needs_full_rank: whether it estimates the covariance of the features that its options name, which is
            singular with fewer images than features. Users are warned before the pass.
    """

    returns: ClassVar = {"state": _state, "compute": expectations.results}
    needs_full_rank: ClassVar[bool] = False

    def check(self, space: LatentSpace) -> None:
        """Raises RobustokError if the metric does not fit this latent space; called before anything runs."""

    def check_image_size(self, size: int) -> None:
        """Raises RobustokError if images of this side, in pixels, are too small for it; called before anything runs."""

    def check_train_images(self, count: int) -> None:
        """Raises RobustokError if this many training images are too few for it; called before anything runs."""

    def held_latents(self, count: int) -> int:
        """Of how many of `count` training images it holds the latents in memory, as float32 vectors (N, D) each.

        It is asked before anything runs: users are warned if they are more than this machine's memory holds.
        """
        return 0

    def result_names(self, network: Callable[[Spec], Features]) -> Sequence[str] | None:
        """The names of its results; None if they are not known before it has measured.

        Args:
            network: builds a feature network.
        """
        return None

    @abstractmethod
    def start(self, context: EvaluationContext) -> None:
        """Starts a pass: builds what the metric needs and resets the state."""

    @abstractmethod
    def update(self, step: Evaluation) -> None:
        """Adds one batch to the state."""

    @abstractmethod
    def state(self) -> Mapping[str, Tensor]:
        """The additive state, by name; it is summed over processes and passed to `load_state`."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replaces the state."""

    @abstractmethod
    def compute(self) -> Mapping[str, Result]:
        """The results by name; the first one is the main result."""
