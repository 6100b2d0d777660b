"""The adversarial term's opponent: a network that learns to tell real images from decoded ones."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen, validators
from torch import Tensor, nn
from torch.nn.utils import parametrize

from robustok_core.kinds.loss import Opponent, Reconstruction
from robustok_core.recipe.validators import unit_interval
from robustok_core.values.draws import Draws
from robustok_losses.diffaug import DiffAugConfig, augment
from robustok_losses.lecam import LeCam, Logits, mean_over_heads
from robustok_training.optimizer import OptimizerConfig


@frozen(kw_only=True)
class DiscriminatorOptimizer(OptimizerConfig):
    """The discriminator's AdamW. Its schedule runs from the discriminator's start to the end of the training."""

    weight_decay: float = field(
        default=5e-4, validator=validators.ge(0.0), metadata={"doc": "decay of weights with two or more dimensions"}
    )
    warmup: float = field(
        default=0.02,
        validator=unit_interval,
        metadata={"doc": "share of the discriminator's training in which the learning rate warms up"},
    )


class Discriminator(Opponent):
    """Hinge loss (Lim & Ye 2017) and LeCAM, with the same augmentation of real and decoded images.

    The hinge is the only loss offered: the published tokenizers were trained with it (the other loss in
    their shared code has its arguments swapped), and its margins of +-1 give the logits the scale that
    LeCAM and the adaptive weight rely on.

    Args:
        network: maps images (B, 3, H, W) to a list of (B, positions) logits, high for real.
        optimizer: options of its optimiser.
        augmentation: applied to all images before the network.
        lecam: weight of the LeCAM penalty within this loss.
        lecam_decay: decay of LeCAM's running means.
        start: share of the training after which it is trained.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        optimizer: OptimizerConfig,
        augmentation: DiffAugConfig,
        lecam: float,
        lecam_decay: float,
        start: float,
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.network = network
        self.augmentation = augmentation
        self.lecam_weight = lecam
        self.lecam = LeCam(lecam_decay)
        self.start = start
        self._last: dict[str, float | Tensor] = {}

    def logits(self, images: Tensor, draws: Draws) -> Logits:
        """Logits of augmented images (B, 3, H, W) in [-1, 1]; high means real."""
        return self.network(augment(images, self.augmentation, draws))

    def forward(self, step: Reconstruction) -> Tensor:
        """The discriminator's loss, a scalar. In training mode, updates the running means and spectral norms."""
        draws = step.draws.child("discriminator")
        with parametrize.cached():  # both passes share one set of normalised weights
            real = self.logits(step.batch.images, draws.child("real"))
            fake = self.logits(step.images.detach(), draws.child("fake"))
        loss = hinge(real, fake)
        if self.lecam_weight:
            loss = loss + self.lecam_weight * self.lecam(real, fake)
        self._last = {"real_logits": mean_over_heads(real).detach(), "fake_logits": mean_over_heads(fake).detach()}
        return loss

    def logs(self) -> Mapping[str, float | Tensor]:
        """The mean logits of the last forward pass, on this process."""
        return self._last


def hinge(real: Logits, fake: Logits) -> Tensor:
    """(mean relu(1 - real) + mean relu(1 + fake)) / 2; all heads have the same weight."""
    real_loss = mean_over_heads([(1 - logits).relu() for logits in real])
    fake_loss = mean_over_heads([(1 + logits).relu() for logits in fake])
    return (real_loss + fake_loss) / 2
