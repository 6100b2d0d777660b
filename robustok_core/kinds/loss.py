"""Terms of a tokenizer's training loss, and the networks trained against them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor, nn

from robustok_core.kinds import expectations
from robustok_core.kinds.boundary import Boundary, Call
from robustok_core.kinds.component import Component
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents


@frozen(kw_only=True, eq=False)
class Reconstruction:
    """One micro-batch in a tokenizer's training: what a loss may use.

    Attributes:
        batch: the real images and labels.
        latents: the clean latents, before the perturbation.
        decoded: the latents that the decoder read (perturbed if a perturbation is active).
        images: (B, 3, H, W) the decoded images.
        tokenizer: the tokenizer that decoded them.
        draws: random numbers of this micro-batch, one row per image.
        progress: completed share of the training, in [0, 1].
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


def _term(call: Call, value: Any, step: Reconstruction) -> None:
    expectations.scalar(call, value, "`forward`")
    trained = torch.is_grad_enabled() and isinstance(step.images, Tensor) and step.images.requires_grad
    if trained and call.component.compares_images:
        expectations.passes_gradient(call, value, step.images, "its values", "the images that it compares")
    elif trained and call.looks_at_values() and not value.requires_grad:
        # A term may be 0 before its start; one that is not has something to train.
        call.require(bool(value.detach() == 0.0), "its values pass no gradient to the tokenizer: are they detached?")


def _logged(call: Call, values: Any) -> None:
    expectations.numbers(call, values, "values of `logs`")


def _opponents_loss(call: Call, value: Any, *_: Any) -> None:
    expectations.scalar(call, value, "`forward` of the opponent")
    detached = torch.is_grad_enabled() and not value.requires_grad
    call.require(not detached, "no gradient flows from the opponent's loss to its parameters")


class Loss(Component, nn.Module, ABC):
    """One term of a tokenizer's training loss. Built as `Loss(config)`; `config.weight` scales it.

    Attributes:
        compares_images: True if the term compares the reconstruction with the image. Such terms are
            computed first, and their weighted sum is `Reconstruction.image_loss` for the others.
        opponent: the network trained against this term, or None.
    """

    returns: ClassVar = {"forward": _term, "logs": _logged}
    compares_images: ClassVar[bool] = False
    config: Any  # an instance of Config, which has a `weight`
    opponent: Opponent | None

    def __init__(self) -> None:
        super().__init__()
        self.opponent = None  # on the instance: a class attribute would hide the submodule of that name

    def prepare(self, tokenizer: Tokenizer) -> None:
        """Called once, before training and before a checkpoint is loaded; may create parameters for this tokenizer."""

    def check_terms(self, terms: Sequence[Loss]) -> None:
        """Raises RobustokError if it cannot be trained as one of these terms; called before anything runs."""

    def own_parameters(self) -> list[nn.Parameter]:
        """The parameters that the tokenizer's optimiser also trains: all that take a gradient, except the opponent's.

        Their gradients must be averaged over processes, as the tokenizer's are.
        """
        theirs = set() if self.opponent is None else {id(parameter) for parameter in self.opponent.parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in theirs]

    @abstractmethod
    def forward(self, step: Reconstruction) -> Tensor:
        """The unweighted term, a scalar."""

    def logs(self) -> Mapping[str, float | Tensor]:
        """Further values of the last forward pass, for the metrics file.

        Values computed on a device stay scalar tensors: reading a number would wait for the device.
        """
        return {}


class Opponent(Boundary, nn.Module, ABC):
    """A network trained against a loss term, with an optimiser of its own (a discriminator).

    Attributes:
        optimizer: how it is trained, a `robustok_training.optimizer.OptimizerConfig`.
        start: share of the training after which it is trained.
    """

    returns: ClassVar = {"forward": _opponents_loss, "logs": _logged}
    optimizer: Any
    start: float = 0.0

    @abstractmethod
    def forward(self, step: Reconstruction) -> Tensor:
        """The opponent's loss, a scalar; `step.images` is detached."""

    def active(self, progress: float) -> bool:
        """Whether it is trained at `progress`, the completed share of the training."""
        return progress >= self.start

    def logs(self) -> Mapping[str, float | Tensor]:
        """Further values of the last forward pass, see `Loss.logs`."""
        return {}
