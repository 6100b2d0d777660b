"""A training step of main training (paper section 3): encode, losses on the clean latents, perturb, decode.

The perturbation is applied only here, so it works with every tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
from torch import Tensor, nn

from robustok_core.kinds.loss import Loss, Opponent, Reconstruction
from robustok_core.kinds.perturbation import Perturbation
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.values.batches import Batch, ImageBatch
from robustok_core.values.draws import Draws
from robustok_stages.tokenizer.loss_terms import LossTerms
from robustok_stages.tokenizer.opponents import opponent_name
from robustok_training import OptimizerConfig, Task, TrainedModule
from robustok_training.alarms import COLLAPSED, SATURATED, Agreeing, Alarm

#: The trained module whose images the opponents see.
TOKENIZER = "tokenizer"

#: What is logged of the codes of a micro-batch, see `used_share`; it depends on the number of processes.
USED_CODES = "used_codes"

#: The loss, what is logged, and the pass for the opponents.
Turn = tuple[Tensor, dict[str, "Tensor | float"], "Reconstruction | None"]


class TokenizerLossStep(nn.Module):
    """The loss part of a tokenizer's turn: sums the loss terms and leaves the decoded images for the opponents.

    Parameters of the terms that are trained with the tokenizer are registered as `loss_parameters`.
    """

    def __init__(self, tokenizer: Tokenizer, terms: LossTerms) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.terms = terms
        self.loss_parameters = nn.ParameterList(terms.own_parameters())

    def total_loss(self, step: Reconstruction) -> Turn:
        """The loss, its terms, and the pass, detached from the graph, or None if no opponent is active."""
        total, logs = self.terms.weighted_sum(step)
        if not self.terms.has_active_opponent(step.progress):
            return total, logs, None
        detached = attrs.evolve(
            step, images=step.images.detach(), latents=step.latents.detach(), decoded=step.decoded.detach()
        )
        return total, logs, detached


class TokenizerStep(TokenizerLossStep):
    """Main training's turn; its forward pass is the method, step by step."""

    def __init__(self, tokenizer: Tokenizer, perturbation: Perturbation | None, terms: LossTerms) -> None:
        super().__init__(tokenizer, terms)
        self._perturb = None if perturbation is None else perturbation.perturb

    def forward(
        self, batch: ImageBatch, draws: Draws, progress: float, earlier: Mapping[str, Reconstruction | None]
    ) -> Turn:
        """The loss, its terms, and the pass for the opponents."""
        latents = self.tokenizer.encode(batch.images)
        decoded, mask = latents, None
        if self._perturb is not None:
            decoded, mask = self._perturb(
                latents, self.tokenizer.quantizer, draws=draws.child("perturbation"), progress=progress
            )
        total, logs, left = self.total_loss(
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
        if latents.codes is not None and self.tokenizer.space.codebook_size is not None:
            logs[USED_CODES] = used_share(latents.codes, self.tokenizer.space.codebook_size)
        return total, logs, left


def used_share(codes: Tensor, codebook_size: int) -> Tensor:
    """The number of different codes (B, N) over the number that there could be; does not wait for the device."""
    in_order = codes.flatten().sort().values
    used = 1.0 + (in_order.diff() != 0).sum()
    return used / min(codebook_size, codes.numel())


class OpponentStep(nn.Module):
    """An opponent's turn, on the images that the tokenizer decoded in its turn."""

    def __init__(self, name: str, opponent: Opponent) -> None:
        super().__init__()
        self.name = name
        self.opponent = opponent

    def forward(
        self, batch: Batch, draws: Draws, progress: float, earlier: Mapping[str, Reconstruction | None]
    ) -> tuple[Tensor, dict[str, Tensor | float], None]:
        """The opponent's loss on this micro-batch's reconstructions."""
        loss = self.opponent(earlier[TOKENIZER])
        return loss, {f"{self.name}/{key}": value for key, value in self.opponent.logs().items()}, None


_WINNING = (
    "{name} fell to {{value}}: the discriminator tells nearly all images apart, so the tokenizer learns little from "
    "it: lower stage.losses.{loss}.optimizer.learning_rate, start it later, or make it smaller"
)
_UNUSED = (
    "only {value} of the codes that a micro-batch could use are used: restart dead codes (restart_threshold of the "
    "quantizer vq), raise its entropy weight where it has one, or use a smaller codebook"
)


class TokenizerLossTask(Task):
    """A training task: the tokenizer's turn, then the turn of each loss's opponent.

    Attributes:
        tokenizer: the tokenizer that is trained. opponents: by the name of their loss.
    """

    def __init__(self, step: TokenizerLossStep, optimizer: OptimizerConfig) -> None:
        self.tokenizer, self.opponents = step.tokenizer, step.terms.opponents
        turns = [TrainedModule(name=TOKENIZER, module=step, optimizer=optimizer)]
        turns += [_opponents_turn(opponent_name(loss), opponent) for loss, opponent in self.opponents.items()]
        super().__init__(turns, modules={"tokenizer": step.tokenizer, **step.terms.modules()}, averaged=step.tokenizer)

    def alarms(self) -> Sequence[Alarm]:
        """Those of every task; also, discriminators that win, and codes that are not used."""
        names = {loss: f"{opponent_name(loss)}/loss" for loss in self.opponents}
        winning = [Agreeing(name, SATURATED, _WINNING.format(name=name, loss=loss)) for loss, name in names.items()]
        return [*super().alarms(), *winning, Agreeing(USED_CODES, COLLAPSED, _UNUSED, since=0.1)]


def _opponents_turn(name: str, opponent: Opponent) -> TrainedModule:
    return TrainedModule(
        name=name,
        module=OpponentStep(name, opponent),
        optimizer=opponent.optimizer,
        active=opponent.active,
        start=opponent.start,
    )


class TokenizerTask(TokenizerLossTask):
    """The training task of main training."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        perturbation: Perturbation | None,
        losses: Mapping[str, Loss],
        optimizer: OptimizerConfig,
    ) -> None:
        super().__init__(TokenizerStep(tokenizer, perturbation, LossTerms(losses)), optimizer)

    def after_step(self, draws: Draws) -> None:
        """Lets the quantizer update its codebook."""
        if self.tokenizer.quantizer is not None:
            self.tokenizer.quantizer.after_step(draws)
