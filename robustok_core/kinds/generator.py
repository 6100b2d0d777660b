"""Class-conditional models of latents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from attrs import frozen
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Component
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep, Latents, LatentSpace


@frozen(kw_only=True)
class NoSampling:
    """A sampler without options."""


class Generator(Component, nn.Module, ABC):
    """A class-conditional model of latents. Built as `Generator(config, space, num_classes)`.

    Attributes:
        Sampling: an attrs class, the options of its sampler with their defaults (temperature, steps); none if left out.
        space: the latent space that it was built for. num_classes: labels lie in [0, num_classes).
        knows_null_class: whether labels were dropped in training, which guidance needs; so none is known if left out.
        not_decayed: names of parameters that weight decay leaves alone, besides vectors and scalars.
    """

    Sampling: ClassVar[type] = NoSampling
    space: LatentSpace
    num_classes: int
    knows_null_class: bool = False
    not_decayed: Collection[str] = ()

    def observe(self, mean: Tensor, std: Tensor) -> None:
        """Called once before training in a continuous space, with the statistics (D,) of the training latents."""

    @abstractmethod
    def loss(self, latents: Latents, labels: Tensor, *, draws: Draws, progress: float) -> Mapping[str, Tensor]:
        """Named training losses, scalars, to be summed."""

    @abstractmethod
    def sample(
        self, labels: Tensor, draws: Draws, *, guidance: Guidance, keep: Keep | None = None, sampling: Any = None
    ) -> Latents:
        """Draws latents; sample i depends on its label and row i of the draws only.

        Args:
            labels: (B,) int64.
            draws: one row a sample.
            guidance: `check_guidance` has accepted it.
            keep: preserve a share sigma of these real latents; `keep.over(codes, draws)` does so with codes.
            sampling: an instance of `Sampling`; its defaults where None.
        """

    def check_guidance(self, guidance: Guidance) -> None:
        """Raises RobustokError where guidance is asked of a generator that never saw the null class."""
        if guidance.active and not self.knows_null_class:
            raise RobustokError(
                f"guidance of scale {guidance.scale:g} needs a generator that was trained with label dropout",
                hint="set guidance.scale = 1, or train with label_dropout above 0",
            )
