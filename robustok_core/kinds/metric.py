"""What is measured of a tokenizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import field, frozen
from torch import Tensor

from robustok_core.kinds.component import Component
from robustok_core.kinds.features import Features
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.result import Result


@frozen(kw_only=True, eq=False)
class Evaluation:
    """One batch of a tokenizer's evaluation.

    Attributes:
        batch: real images, without augmentation.
        latents: the tokenizer's latents of them.
        images: (B, 3, H, W) reconstructions as a picture file would hold them: clamped to [-1, 1]
            and rounded to 8 bits.
        tokenizer: the tokenizer.
        draws: one row an image of the split: an image's draws are the same whatever the batch or the limit.
        real: pooled features of the real images by Features object, filled on demand.
    """

    batch: ImageBatch
    latents: Latents
    images: Tensor
    tokenizer: Tokenizer
    draws: Draws
    _real: dict[int, Tensor] = field(factory=dict, alias="real")

    def real_features(self, features: Features) -> Tensor:
        """(B, F) pooled features of the real images, computed once however many metrics ask."""
        key = id(features)
        if key not in self._real:
            self._real[key] = features(self.batch.images)
        return self._real[key]


@frozen(kw_only=True)
class EvaluationContext:
    """What a metric may ask before a pass begins.

    Attributes:
        tokenizer: the tokenizer under test.
        source: fingerprint of the real images of the pass.
        num_images: how many images the pass holds, over all processes.
        cache: folder for reference statistics, or None.
        share_features: returns one Features object for equal configurations, so that metrics share it.
        device: where the pass runs.
    """

    tokenizer: Tokenizer
    source: str
    num_images: int
    cache: Path | None
    share_features: Any
    device: torch.device


class Metric(Component, ABC):
    """A number, or a few, measured over a pass. Built as `Metric(config)`.

    A metric's `state` holds sums: adding the states of all processes gives the state of the whole.

    Attributes:
        needs_full_rank: whether its option `features` is a network whose features' covariance it estimates, which is
            singular with fewer images than features. Users are told so before the pass.
    """

    needs_full_rank: ClassVar[bool] = False

    def check(self, space: LatentSpace) -> None:
        """Raises RobustokError where it does not fit tokenizers of this latent space; called before anything runs."""

    @abstractmethod
    def start(self, context: EvaluationContext) -> None:
        """Begins a pass: builds what it needs and clears the state."""

    @abstractmethod
    def update(self, step: Evaluation) -> None:
        """Takes in one batch."""

    @abstractmethod
    def state(self) -> Mapping[str, Tensor]:
        """The additive state, by name; `load_state` takes it back after it was summed."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replaces the state."""

    @abstractmethod
    def compute(self) -> Mapping[str, Result]:
        """The results by name; the first one is the main result."""
