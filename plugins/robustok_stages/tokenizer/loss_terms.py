"""The terms of a tokenizer's loss and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import attrs
import torch
from torch import Tensor, nn

from robustok_core.kinds.loss import Loss, Opponent, Reconstruction
from robustok_core.kinds.stage import StageContext
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.values.draws import seeded
from robustok_core.values.spec import Spec
from robustok_stages.checks import check_each
from robustok_stages.networks import check_weights


def check_losses(context: StageContext, specs: Mapping[str, Spec], tokenizer: Tokenizer | None) -> None:
    """Checks that the terms in this stage's option `losses` fit the tokenizer and one another, and files they name.

    Args:
        tokenizer: on the meta device; None if its stage does not say how it is built.

    Raises:
        ProblemsError: if they do not, or if files do not hold their weights.
    """
    losses: dict[str, Loss] = {name: spec.sketch() for name, spec in specs.items()}

    def check(name: str, loss: Loss) -> None:
        check_weights(specs[name])
        loss.check_terms(list(losses.values()))
        if tokenizer is not None:
            with torch.device("meta"):
                loss.prepare(tokenizer)

    check_each(context, {name: partial(check, name, loss) for name, loss in losses.items()}, "losses")


def build_losses(specs: Mapping[str, Spec], tokenizer: Tokenizer, seed: int) -> dict[str, Loss]:
    """Loss terms by name, prepared for a tokenizer; the initial weights of each follow from the seed and its name."""
    losses = {}
    for name, spec in specs.items():
        with seeded(seed, "init", name):
            losses[name] = spec.build()
            losses[name].prepare(tokenizer)
    return losses


class LossTerms:
    """The terms of a loss, by name.

    It is not an nn.Module, so a module that holds it does not own the discriminators and frozen networks of the terms.

    Attributes:
        opponents: the opponents of the terms, by the term's name.
    """

    def __init__(self, losses: Mapping[str, Loss]) -> None:
        self._losses = dict(losses)
        self.opponents: dict[str, Opponent] = {
            name: loss.opponent for name, loss in losses.items() if loss.opponent is not None
        }
        # Image terms come first: adaptive weights compare the others with their sum.
        self._in_order = sorted(losses.items(), key=lambda item: not item[1].compares_images)

    def modules(self) -> dict[str, nn.Module]:
        """The terms as modules for a checkpoint, by name."""
        return {f"loss_{name}": loss for name, loss in self._losses.items()}

    def own_parameters(self) -> list[nn.Parameter]:
        """The parameters of the terms that are trained with the tokenizer."""
        return [parameter for loss in self._losses.values() for parameter in loss.own_parameters()]

    def has_active_opponent(self, progress: float) -> bool:
        """Whether any opponent is trained at `progress`, the completed share of the training."""
        return any(opponent.active(progress) for opponent in self.opponents.values())

    def weighted_sum(self, step: Reconstruction) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The weighted sum of all terms and the quantizer's losses, a scalar; and the unweighted terms, for the log."""
        logs: dict[str, Tensor | float] = {f"quantizer/{name}": value for name, value in step.latents.losses.items()}
        images = torch.zeros((), device=step.images.device)
        others = sum(step.latents.losses.values(), start=images)
        for name, loss in self._in_order:
            term = loss(step if loss.compares_images else attrs.evolve(step, image_loss=images))
            weighted = term * loss.config.weight
            images, others = (images + weighted, others) if loss.compares_images else (images, others + weighted)
            logs[f"loss/{name}"] = term
            logs |= {f"loss/{name}/{key}": value for key, value in loss.logs().items()}
        return images + others, logs
