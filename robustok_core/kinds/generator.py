"""Class-conditional models of latents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds import expectations
from robustok_core.kinds.boundary import Call
from robustok_core.kinds.component import Component
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep, Latents, LatentSpace
from robustok_core.values.wording import described


@frozen(kw_only=True)
class NoSampling:
    """A sampler without options."""


def _built(call: Call) -> None:
    space, classes = getattr(call.component, "space", None), getattr(call.component, "num_classes", None)
    call.require(isinstance(space, LatentSpace), f"`space` must be a LatentSpace, found {type(space).__name__}")
    call.require(isinstance(classes, int), f"`num_classes` must be an integer, found {classes!r}")


def _losses(call: Call, losses: Any, *_: Any, **__: Any) -> None:
    is_table = isinstance(losses, Mapping) and bool(losses)
    call.require(is_table, f"`loss` must return scalars by name, found {described(losses)}")
    expectations.losses(call, losses, "loss")
    if torch.is_grad_enabled() and call.component.training:
        call.require(any(value.requires_grad for value in losses.values()), "its loss does not require a gradient")


def _sampled(call: Call, latents: Any, labels: Tensor, *_: Any, **__: Any) -> None:
    values = call.looks_at_values()
    expectations.latents(call, latents, call.component.space, len(labels), "sample", values=values)


class Generator(Component, nn.Module, ABC):
    """A class-conditional model of latents. Built as `Generator(config, space, num_classes)`.

    Attributes:
        Sampling: an attrs class with the sampler's options and their defaults; no options if left out.
        space: the latent space that it was built for. num_classes: labels are in [0, num_classes).
        knows_null_class: whether labels were dropped in training, which guidance requires; False if left out.
        not_decayed: names of parameters without weight decay, besides vectors and scalars.
    """

    returns: ClassVar = {"loss": _losses, "sample": _sampled, "sample_forced": _sampled}
    built: ClassVar = staticmethod(_built)
    Sampling: ClassVar[type] = NoSampling
    space: LatentSpace
    num_classes: int
    knows_null_class: bool = False
    not_decayed: Collection[str] = ()

    def observe(self, mean: Tensor, std: Tensor) -> None:
        """Receives the mean and std (D,) of the training latents; called once before training in a continuous space."""

    @abstractmethod
    def loss(self, latents: Latents, labels: Tensor, *, draws: Draws, progress: float) -> Mapping[str, Tensor]:
        """Named training losses, scalars; their sum is minimised."""

    @abstractmethod
    def sample(
        self, labels: Tensor, draws: Draws, *, guidance: Guidance, keep: Keep | None = None, sampling: Any = None
    ) -> Latents:
        """Samples latents; sample i depends only on its label and on row i of the draws.

        Args:
            labels: (B,) int64.
            draws: one row per sample.
            guidance: already accepted by `check_guidance`.
            keep: preserve a share sigma of these real latents; `keep.over(codes, draws)` does so with codes.
            sampling: an instance of `Sampling`; None for its defaults.
        """

    def sample_forced(
        self, labels: Tensor, draws: Draws, *, real: Latents, guidance: Guidance, sampling: Any = None
    ) -> Latents:
        """Samples each code of real images after the true codes before it (teacher forcing), as `calibrate` needs.

        So every difference to the true codes is a draw of its own, and none follows from an earlier one.

        Args:
            labels: (B,) int64, the real images'. draws: one row per image.
            real: their latents, with codes.
            guidance, sampling: as of `sample`.

        Raises:
            RobustokError: this generator does not implement it.
        """
        raise RobustokError(
            f"{type(self).__name__} cannot sample codes after the true ones before them",
            hint="use a generator of codes, or implement `sample_forced`",
        )

    def check_guidance(self, guidance: Guidance) -> None:
        """Raises RobustokError if guidance is active but the generator was trained without a null class."""
        if guidance.active and not self.knows_null_class:
            raise RobustokError(
                f"guidance of scale {guidance.scale:g} needs a generator that was trained with label dropout",
                hint="set guidance.scale = 1, or train with label_dropout above 0",
            )
