"""Semantic regularisation: aligns latents with a frozen teacher's features of the image (paper section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_core.kinds.loss import Loss, Reconstruction
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.values.full_precision import full_precision
from robustok_core.values.spec import Spec, component
from robustok_losses.frozen import Frozen
from robustok_training.distributed import all_gather_rows


@frozen(kw_only=True)
class SemanticConfig:
    """Options of the semantic loss."""

    weight: float = field(default=0.1, validator=validators.ge(0), metadata={"doc": "factor of the term"})
    teacher: Spec = component(
        "features", doc="frozen network whose pooled features the latents are matched to", default={"use": "dinov2"}
    )
    on: Literal["clean", "perturbed"] = field(
        default="clean",
        validator=validators.in_(("clean", "perturbed")),
        metadata={"doc": "latents before the perturbation (the paper) or those the decoder reads (its released code)"},
    )
    logit_scale: float = field(
        default=1.0, validator=validators.gt(0), metadata={"doc": "factor of the similarities, i.e. 1 / temperature"}
    )
    normalize: bool = field(
        default=False, metadata={"doc": "use cosine similarity, as in CLIP, instead of the dot product"}
    )


class Semantic(Loss):
    """InfoNCE in both directions between an image's pooled latents and the teacher's features of it.

    The latents (B, N, D) are averaged over their tokens and projected to the teacher's width F by a
    learned linear map; the teacher is not changed. (The released code instead maps the teacher's
    features into the latent space with the encoder's last layer. Without `normalize` only the product
    z W t matters, so the direction of the map makes no difference; a separate map works with any
    tokenizer.) Negatives are all other rows of all processes; with gradient accumulation, of one
    micro-batch.
    """

    Config = SemanticConfig
    projection: nn.Linear

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.config = config
        teacher = config.teacher.build()
        self.teacher_width: int = teacher.width
        self.teacher = Frozen(teacher)
        self._last: dict[str, float | Tensor] = {}

    def prepare(self, tokenizer: Tokenizer) -> None:
        """Creates the projection from the latent width D to the teacher's width F."""
        device = tokenizer.last_layer.device
        self.projection = nn.Linear(tokenizer.space.width, self.teacher_width, bias=False, device=device)

    def forward(self, step: Reconstruction) -> Tensor:
        """The unweighted term, a scalar."""
        latents = step.latents if self.config.on == "clean" else step.decoded
        with torch.no_grad():
            targets = self.teacher(step.batch.images)  # (B, F)
        vectors = step.tokenizer.vectors_of(latents)  # (B, N, D)
        with full_precision(vectors.device):  # in bfloat16, similarities would tie
            projected = F.linear(vectors.float().mean(dim=1), self.projection.weight)  # (B, F)
            logits = self._similarities(projected, targets.float())
            self._last = {"accuracy": (logits.detach().argmax(dim=1) == _diagonal(logits)).float().mean()}
            return info_nce(logits)

    def _similarities(self, projected: Tensor, targets: Tensor) -> Tensor:
        if self.config.normalize:
            projected, targets = F.normalize(projected, dim=1), F.normalize(targets, dim=1)
        return self.config.logit_scale * all_gather_rows(projected) @ all_gather_rows(targets).T  # (P*B, P*B)

    def logs(self) -> Mapping[str, float | Tensor]:
        """`accuracy`: share of the images that are most similar to their own teacher features."""
        return self._last


def info_nce(logits: Tensor) -> Tensor:
    """The mean of the row-wise and the column-wise cross-entropy of logits (n, n); pairs lie on the diagonal."""
    return (F.cross_entropy(logits, _diagonal(logits)) + F.cross_entropy(logits.T, _diagonal(logits))) / 2


def _diagonal(logits: Tensor) -> Tensor:
    return torch.arange(len(logits), device=logits.device)
