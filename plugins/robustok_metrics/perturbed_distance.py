"""The mean Fréchet distance of reconstructions from perturbed latents over a grid of strengths, for `pfid` metrics.

Real images are encoded once and pass through the network once; each cell of the grid costs one decoding and one
pass of its images through the network.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

import attrs
from attrs import field, frozen, validators
from torch import Tensor

from robustok_blocks.full_precision import full_precision, sums_device
from robustok_core.kinds.features import Features
from robustok_core.kinds.metric import Evaluation, EvaluationContext, Metric
from robustok_core.kinds.perturbation import Perturbation
from robustok_core.runs.weights import part, prefixed
from robustok_core.values.images import from_uint8, to_uint8
from robustok_core.values.latents import Latents
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_metrics.frechet_distance import FeatureSums, frechet_distance
from robustok_metrics.reference_statistics import ReferenceStatistics

ALPHAS = (0.5, 0.6, 0.7, 0.8, 0.9)


class Strength(Protocol):
    """One cell of a grid."""

    @property
    def name(self) -> str:
        """Its name in the details of a result, e.g. "alpha0.5_delta70"."""

    @property
    def stream(self) -> tuple[object, ...]:
        """The key of its random numbers."""


@frozen(kw_only=True)
class GridConfig:
    """The feature network, and the rows of the grid."""

    features: Spec = component(
        "features",
        doc="feature network; must not be one that a loss was trained with",
        default={"use": "efficientnet_lite0"},
    )
    alphas: tuple[float, ...] = field(
        default=ALPHAS,
        validator=[
            validators.min_len(1),
            validators.deep_iterable(validators.and_(validators.gt(0.0), validators.le(1.0))),
        ],
        metadata={"doc": "shares of an image's tokens that are perturbed"},
    )


def of_strength(perturbation: Spec, **options: Any) -> Spec:
    """The spec of a perturbation with this strength, applied to all images.

    Raises:
        ValueError: see `Perturbation.of_strength`.
    """
    try:
        config = perturbation.factory.of_strength(perturbation.config, **options)
    except ValueError as error:
        raise ValueError(f"perturbation {perturbation.name!r} {error}") from error
    return attrs.evolve(perturbation, config=config)


CellT = TypeVar("CellT", bound=Strength)


class PerturbedDistance(Metric, Generic[CellT]):
    """A pass over the cells of a grid; subclasses define the cells and the name of the result.

    The only result is the mean of the cells' distances. Its details are `cells`, the distance of each by name, and
    `num_cells`.
    """

    needs_full_rank = True

    def begin(self, context: EvaluationContext, features: Spec, perturbations: Mapping[CellT, Perturbation]) -> None:
        """Starts a pass; the perturbations must fit the latent space."""
        self.num_images = context.num_images
        self.features: Features = context.share_features(features)
        self.reference = ReferenceStatistics(context, self.features, self.num_images)
        self.perturbations = perturbations
        device = sums_device(context.device)
        self.sums = {cell: FeatureSums(self.features.width, device) for cell in perturbations}

    def update(self, step: Evaluation) -> None:
        """Decodes each cell's perturbed latents; encoding and the real images' features are not repeated."""
        self.reference.add(step)
        for cell, sums in self.sums.items():
            pictures = self.reconstruct(step, cell)
            with full_precision(pictures.device):
                sums.add(self.features(pictures))

    def perturbed(self, step: Evaluation, cell: CellT) -> tuple[Latents, Tensor]:
        """The latents perturbed as in a cell, and the mask (B, N) of the perturbed tokens."""
        draws = step.draws.child(*cell.stream)
        perturbation = self.perturbations[cell]
        return perturbation.perturb(step.latents, step.tokenizer.quantizer, draws=draws, progress=0.0)

    def reconstruct(self, step: Evaluation, cell: CellT) -> Tensor:
        """(B, 3, H, W) images decoded from a cell's latents, rounded to 8 bits."""
        latents, _ = self.perturbed(step, cell)
        return from_uint8(to_uint8(step.tokenizer.decode(latents)))

    def state(self) -> Mapping[str, Tensor]:
        state = prefixed(self.reference.state(), "real/")
        for cell, sums in self.sums.items():
            state |= prefixed(sums.state(), f"{cell.name}/")
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.reference.load_state(part(state, "real/"))
        for cell, sums in self.sums.items():
            sums.load_state(part(state, f"{cell.name}/"))

    def compute(self) -> Mapping[str, Result]:
        real = self.reference.moments()
        distances = {cell: frechet_distance(real, sums.moments()) for cell, sums in self.sums.items()}
        result = Result(
            sum(distances.values()) / len(distances),
            higher_is_better=False,
            num_images=self.num_images,
            details={
                "num_cells": len(distances),
                "cells": {cell.name: distance for cell, distance in distances.items()},
                **self.more_details(),
            },
        )
        return {self.result_name(self.features): result}

    def more_details(self) -> Mapping[str, Any]:
        """Details of the result in addition to the cells."""
        return {}

    @abstractmethod
    def result_name(self, features: Features) -> str:
        """The name of the result."""
