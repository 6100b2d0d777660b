"""The adversarial term: decoded images should look real to a discriminator (paper section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.loss import Loss, Reconstruction
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.validators import below_one, unit_interval
from robustok_losses.diffaug import DiffAugConfig
from robustok_losses.discriminator import Discriminator, DiscriminatorOptimizer
from robustok_losses.feature_heads import FeatureHeads, HeadsConfig
from robustok_losses.frozen import held_still
from robustok_losses.lecam import mean_over_heads
from robustok_losses.patch_discriminator import PatchConfig, PatchDiscriminator
from robustok_training.distributed import all_mean


@frozen(kw_only=True)
class AdversarialConfig:
    """Options of the adversarial term; exactly one of `patch` and `heads` configures the discriminator."""

    weight: float = field(default=0.5, validator=validators.ge(0), metadata={"doc": "factor of the term"})
    patch: PatchConfig | None = field(default=None, metadata={"doc": "table: a PatchGAN discriminator"})
    heads: HeadsConfig | None = field(
        default=None, metadata={"doc": "table: heads on frozen features, as in the paper"}
    )
    start: float = field(
        default=0.28,
        validator=unit_interval,
        metadata={"doc": "share of the training after which the term is added to the tokenizer's loss"},
    )
    discriminator_start: float | None = field(
        default=None,
        validator=validators.optional(unit_interval),
        metadata={"doc": "share of the training after which the discriminator trains; `start` if not given"},
    )
    adaptive: bool = field(
        default=True, metadata={"doc": "scale the term so that its gradient is as large as that of the image terms"}
    )
    lecam: float = field(
        default=0.001, validator=validators.ge(0), metadata={"doc": "weight of LeCAM in the discriminator's loss"}
    )
    lecam_decay: float = field(
        default=0.999,
        validator=below_one,
        metadata={"doc": "decay of LeCAM's running means, per micro-batch"},
    )
    augmentation: DiffAugConfig = field(
        factory=DiffAugConfig, metadata={"doc": "table: augmentation of the discriminator's input"}
    )
    optimizer: DiscriminatorOptimizer = field(
        factory=DiscriminatorOptimizer,
        metadata={"doc": "table: the discriminator's optimiser (the paper's code uses 8e-4 for a batch of 1024)"},
    )

    def __attrs_post_init__(self) -> None:
        if (self.patch is None) == (self.heads is None):
            raise ValueError("name exactly one discriminator: `patch = {...}` or `heads = {...}`")
        if self.discriminator_start is not None and self.discriminator_start > self.start:
            raise ValueError("discriminator_start must not be later than start: train the discriminator before its use")


class Adversarial(Loss):
    """The negated mean logit of the decoded images, times the adaptive weight.

    Before `start`, the term is 0 and nothing is computed.
    """

    Config = AdversarialConfig
    also_called = ("discriminator", "gan", "patchgan")
    opponent: Discriminator

    def __init__(self, config: AdversarialConfig) -> None:
        super().__init__()
        self.config = config
        start = config.start if config.discriminator_start is None else config.discriminator_start
        self.opponent = Discriminator(
            _network(config),
            optimizer=config.optimizer,
            augmentation=config.augmentation,
            lecam=config.lecam,
            lecam_decay=config.lecam_decay,
            start=start,
        )
        self._last: dict[str, float | Tensor] = {}

    def prepare(self, tokenizer: Tokenizer) -> None:
        """Checks that the images are large enough for the discriminator.

        Raises:
            RobustokError: they are too small for a patch discriminator with this number of layers, or for the kernel of
                heads on features.
        """
        size = min(tokenizer.image_size, self.config.augmentation.crop_size or tokenizer.image_size)
        if isinstance(self.opponent.network, FeatureHeads):
            self.opponent.network.check_size(size)
        if self.config.patch is not None and size < self.config.patch.smallest_image:
            raise RobustokError(
                f"a patch discriminator of {self.config.patch.layers} layers needs images of "
                f"{self.config.patch.smallest_image} pixels, these have {size}",
                where="loss adversarial",
                hint="use fewer patch.layers",
            )

    def check_terms(self, terms: Sequence[Loss]) -> None:
        """Raises RobustokError if the weight will be adaptive, but no term compares images."""
        starts = self.config.start < 1.0
        if self.config.adaptive and starts and not any(term.compares_images for term in terms):
            raise _nothing_to_adapt_to()

    def forward(self, step: Reconstruction) -> Tensor:
        """The unweighted term, a scalar; the discriminator gets no gradient and its buffers do not change.

        Raises:
            RobustokError: the weight is adaptive, but there is no image term or the last layer is frozen.
        """
        if step.progress < self.config.start:
            return step.images.new_zeros((), dtype=torch.float32)
        with held_still(self.opponent):
            term = -mean_over_heads(self.opponent.logits(step.images, step.draws.child("generator")))
        if not self.config.adaptive:
            return term
        weight = adaptive_weight(step.image_loss, term, step.tokenizer.last_layer)
        self._last = {"adaptive_weight": weight}
        return weight * term

    def logs(self) -> Mapping[str, float | Tensor]:
        """`adaptive_weight` of the last forward; nothing before `start`."""
        return self._last


def _network(config: AdversarialConfig) -> nn.Module:
    if config.patch is not None:
        return PatchDiscriminator(config.patch)
    assert config.heads is not None  # the config allows exactly one
    return FeatureHeads(config.heads)


def adaptive_weight(image_loss: Tensor | None, term: Tensor, last_layer: nn.Parameter) -> Tensor:
    """|gradient of the image terms| / (|gradient of the term| + 1e-4) at the last layer, at most 1e4 (VQGAN).

    Both gradients are first averaged over processes, so every process gets the weight that a single
    process would compute for the whole batch. With gradient accumulation, the batch is the micro-batch.
    """
    if image_loss is None or not image_loss.requires_grad or not last_layer.requires_grad:
        raise _nothing_to_adapt_to()
    losses = (image_loss, term)
    gradients = [torch.autograd.grad(loss, last_layer, retain_graph=True)[0] for loss in losses]
    image_norm, term_norm = all_mean(torch.stack(gradients)).float().flatten(1).norm(dim=1)
    return (image_norm / (term_norm + 1e-4)).clamp(max=1e4).detach()


def _nothing_to_adapt_to() -> RobustokError:
    return RobustokError(
        "an adaptive weight needs an image term and a decoder whose last layer is trained",
        where="loss adversarial",
        hint="add a reconstruction loss, or set adaptive = false",
    )
