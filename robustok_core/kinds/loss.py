"""Terms of a tokenizer's training loss, and the networks that are trained against them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import frozen
from torch import Tensor, nn

from robustok_core.kinds.component import Component
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents


@frozen(kw_only=True, eq=False)
class Reconstruction:
    """One micro-batch on its way through a tokenizer's training, what a loss may look at.

    Attributes:
        batch: the real images and labels.
        latents: the clean latents, before the perturbation.
        decoded: the latents that the decoder read (perturbed ones where a perturbation is on).
        images: (B, 3, H, W) the decoder's pictures, or None while a loss that needs only latents runs.
        tokenizer: the tokenizer that made them.
        draws: random numbers of this micro-batch, one row an image.
        progress: share of the training that is done, in [0, 1].
        image_loss: weighted sum of the image terms that came before this one (for adaptive weights).
    """

    batch: ImageBatch
    latents: Latents
    decoded: Latents
    images: Tensor
    tokenizer: Tokenizer
    draws: Draws
    progress: float
    image_loss: Tensor | None = None


class Loss(Component, nn.Module, ABC):
    """One term of a tokenizer's training loss. Built as `Loss(config)`; `config.weight` scales it.

    Attributes:
        compares_images: True where the term measures reconstruction against image; such terms are
            computed first, and their weighted sum is `Reconstruction.image_loss` for the others.
        opponent: None, or what is trained against this term.
    """

    compares_images: ClassVar[bool] = False
    config: Any  # an instance of Config, which has a `weight`
    opponent: Opponent | None

    def __init__(self) -> None:
        super().__init__()
        self.opponent = None  # on the instance: a class attribute would hide the submodule of that name

    def prepare(self, tokenizer: Tokenizer) -> None:
        """Called once, before training and before a checkpoint is loaded: may create parameters that fit."""

    def own_parameters(self) -> list[nn.Parameter]:
        """What the tokenizer's optimiser trains along: all that takes a gradient, less the opponent's.

        Their gradients must be averaged over processes, as the tokenizer's are.
        """
        theirs = set() if self.opponent is None else {id(parameter) for parameter in self.opponent.parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in theirs]

    @abstractmethod
    def forward(self, step: Reconstruction) -> Tensor:
        """The unweighted term, a scalar."""

    def logs(self) -> Mapping[str, float | Tensor]:
        """Further numbers of the last forward worth a line in the metrics file.

        Scalar tensors where they are computed on a device: reading a number would wait for it.
        """
        return {}


class Opponent(nn.Module, ABC):
    """A network trained against a loss term, with an optimiser of its own (a discriminator).

    Attributes:
        optimizer: how it is trained, a `robustok_training.optimizer.OptimizerConfig`.
        start: share of the training at which its own training begins.
    """

    optimizer: Any
    start: float = 0.0

    @abstractmethod
    def forward(self, step: Reconstruction) -> Tensor:
        """Its own loss, a scalar; `step.images` is detached."""

    def active(self, progress: float) -> bool:
        """Whether it is trained at this share of the training."""
        return progress >= self.start

    def logs(self) -> Mapping[str, float | Tensor]:
        """Further numbers of the last forward, as `Loss.logs`."""
        return {}
