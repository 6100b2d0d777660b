"""One step of main training (paper section 3): encode, losses on the clean latents, perturb, decode.

The perturbation is composed here and nowhere else, so that every tokenizer gets the method for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor, nn

from robustok_core.kinds.loss import Loss, Opponent, Reconstruction
from robustok_core.kinds.perturbation import Perturbation
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_training.optimizer import OptimizerConfig
from robustok_training.trainer import Task, TrainedModule


class TokenizerLossStep(nn.Module):
    """A tokenizer's turn, up to what it reads: sums the terms of the loss and passes the pictures to the opponents.

    The losses are held outside the module tree: their discriminators and frozen networks must not
    become the tokenizer's parameters. What they train along is registered as `loss_parameters`.
    """

    def __init__(self, tokenizer: Tokenizer, losses: Mapping[str, Loss]) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.loss_parameters = nn.ParameterList([p for loss in losses.values() for p in loss.own_parameters()])
        # Image terms come first: adaptive weights compare the others with their sum.
        self._losses = (sorted(losses.items(), key=lambda item: not item[1].compares_images),)
        self.passed: list[Reconstruction] = []

    def judge(self, step: Reconstruction) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The weighted sum of all terms and each term unweighted; keeps the pass for the opponents' turns."""
        (losses,) = self._losses
        logs: dict[str, Tensor | float] = {f"quantizer/{name}": value for name, value in step.latents.losses.items()}
        images = torch.zeros((), device=step.images.device)
        others = sum(step.latents.losses.values(), start=images)
        for name, loss in losses:
            term = loss(step if loss.compares_images else attrs.evolve(step, image_loss=images))
            weighted = term * loss.config.weight
            images, others = (images + weighted, others) if loss.compares_images else (images, others + weighted)
            logs[f"loss/{name}"] = term
            logs |= {f"loss/{name}/{key}": value for key, value in loss.logs().items()}
        if any(loss.opponent is not None and loss.opponent.active(step.progress) for _, loss in losses):
            # The opponents see the pictures, not the graph behind them.
            detached = attrs.evolve(
                step, images=step.images.detach(), latents=step.latents.detach(), decoded=step.decoded.detach()
            )
            self.passed.append(detached)
        return images + others, logs


class TokenizerStep(TokenizerLossStep):
    """Main training's turn: its forward pass is the method's order of operations."""

    def __init__(self, tokenizer: Tokenizer, perturbation: Perturbation | None, losses: Mapping[str, Loss]) -> None:
        super().__init__(tokenizer, losses)
        self._perturbation = (perturbation,)  # one with parameters would not be trained along

    def forward(self, batch: ImageBatch, draws: Draws, progress: float) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The loss and its terms."""
        (perturbation,) = self._perturbation
        latents = self.tokenizer.encode(batch.images)
        decoded, mask = latents, None
        if perturbation is not None:
            decoded, mask = perturbation.perturb(
                latents, self.tokenizer.quantizer, draws=draws.child("perturbation"), progress=progress
            )
        total, logs = self.judge(
            Reconstruction(
                batch=batch,
                latents=latents,
                decoded=decoded,
                images=self.tokenizer.decode(decoded),
                tokenizer=self.tokenizer,
                draws=draws.child("losses"),
                progress=progress,
            )
        )
        if mask is not None:
            logs["perturbed_share"] = mask.float().mean()
        return total, logs


class OpponentStep(nn.Module):
    """A discriminator's turn, on the pictures of the tokenizer's turn."""

    def __init__(self, name: str, opponent: Opponent, source: TokenizerLossStep) -> None:
        super().__init__()
        self.name = name
        self.opponent = opponent
        self._source = (source,)  # a tuple keeps the tokenizer out of this module's parameters

    def forward(self, batch: ImageBatch, draws: Draws, progress: float) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Its loss on the pass that belongs to this micro-batch."""
        passed = self._source[0].passed
        step = next(step for step in passed if step.batch is batch)
        loss = self.opponent(step)
        return loss, {f"{self.name}/{key}": value for key, value in self.opponent.logs().items()}


class TokenizerLossTask(Task):
    """What the engine trains: a tokenizer's turn, then each loss's opponent."""

    def __init__(self, step: TokenizerLossStep, losses: Mapping[str, Loss], optimizer: OptimizerConfig) -> None:
        self.step = step
        self.tokenizer = self.averaged = step.tokenizer
        self.modules = {"tokenizer": step.tokenizer, **{f"loss_{name}": loss for name, loss in losses.items()}}
        self.trained_modules = [TrainedModule(name="tokenizer", module=step, optimizer=optimizer)]
        self.opponents = {name: loss.opponent for name, loss in losses.items() if loss.opponent is not None}
        for name, opponent in self.opponents.items():
            self.trained_modules.append(
                TrainedModule(
                    name=f"{name}_opponent",
                    module=OpponentStep(f"{name}_opponent", opponent, step),
                    optimizer=opponent.optimizer,
                    active=opponent.active,
                    start=opponent.start,
                )
            )

    def after_step(self, draws: Draws) -> None:
        """Frees the passes."""
        self.step.passed.clear()


class TokenizerTask(TokenizerLossTask):
    """Main training as the engine sees it."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        perturbation: Perturbation | None,
        losses: Mapping[str, Loss],
        optimizer: OptimizerConfig,
    ) -> None:
        super().__init__(TokenizerStep(tokenizer, perturbation, losses), losses, optimizer)

    def after_step(self, draws: Draws) -> None:
        """Frees the passes and lets the quantizer update its codebook."""
        super().after_step(draws)
        if self.tokenizer.quantizer is not None:
            self.tokenizer.quantizer.after_step(draws)
