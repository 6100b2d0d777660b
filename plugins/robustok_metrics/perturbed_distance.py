"""The mean Fréchet distance of reconstructions from perturbed latents over a grid of strengths, for `pfid` metrics.

Real images are encoded once and pass through the network once; each cell of the grid costs one decoding and one
pass of its images through the network.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.kinds.features import Features
from robustok_core.kinds.metric import Evaluation, EvaluationContext, Metric
from robustok_core.kinds.perturbation import Perturbation
from robustok_core.values.images import from_uint8, to_uint8
from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_metrics.reconstruction_distances import ReconstructionDistances

ALPHAS = (0.5, 0.6, 0.7, 0.8, 0.9)


class Strength(Protocol):
    """One cell of a grid."""

    @property
    def name(self) -> str:
        """Its name in the details of a result, e.g. "alpha0.5_delta70"."""

    @property
    def stream(self) -> tuple[object, ...]:
        """The key of its random numbers."""


def own_names(_: object, __: object, values: tuple[float, ...]) -> None:
    """An attrs validator: different strengths give cells of different names."""
    if len({f"{value:g}" for value in values}) < len(set(values)):
        raise ValueError("two values agree to 6 digits, so their cells would have the same name")


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
            own_names,
        ],
        metadata={"doc": "shares of an image's tokens that are perturbed"},
    )


CellT = TypeVar("CellT", bound=Strength)
ConfigT = TypeVar("ConfigT", bound=GridConfig)


class PerturbedDistance(Metric, Generic[CellT, ConfigT]):
    """A pass over the cells of a grid; subclasses define the cells and the name of the result.

    The only result is the mean of the cells' distances. Its details are `cells`, the distance of each by name, and
    `num_cells`.
    """

    needs_full_rank = True

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @abstractmethod
    def check_kind(self, space: LatentSpace) -> None:
        """Raises RobustokError if such latents are not what the metric perturbs."""

    @abstractmethod
    def cells(self, space: LatentSpace) -> Mapping[CellT, Spec]:
        """The distinct cells and their perturbations in a latent space of the right kind."""

    @abstractmethod
    def name_with(self, features: Features) -> str:
        """The name of the result."""

    def check(self, space: LatentSpace) -> None:
        """Raises RobustokError if the latent space is of the wrong kind, or does not fit the perturbation."""
        self.check_kind(space)
        for perturbation in self.cells(space).values():
            perturbation.build().check(space, None)

    def result_names(self, network: Callable[[Spec], Features]) -> Sequence[str]:
        return [self.name_with(network(self.config.features))]

    def start(self, context: EvaluationContext) -> None:
        """Builds the cells; raises as `check` does."""
        space = context.tokenizer.space
        self.check(space)
        self.perturbations: dict[CellT, Perturbation] = {
            cell: perturbation.build() for cell, perturbation in self.cells(space).items()
        }
        self.distances = ReconstructionDistances(
            context, self.config.features, [cell.name for cell in self.perturbations]
        )

    def update(self, step: Evaluation) -> None:
        """Decodes each cell's perturbed latents; encoding and the real images' features are not repeated."""
        self.distances.add_real(step)
        for cell in self.perturbations:
            self.distances.add(cell.name, self.reconstruct(step, cell))

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
        return self.distances.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.distances.load_state(state)

    def compute(self) -> Mapping[str, Result]:
        distances = self.distances.compute()
        result = Result(
            sum(distances.values()) / len(distances),
            higher_is_better=False,
            num_images=self.distances.num_images,
            details={"num_cells": len(distances), "cells": distances, **self.more_details()},
        )
        return {self.name_with(self.distances.features): result}

    def more_details(self) -> Mapping[str, Any]:
        """Details of the result in addition to the cells."""
        return {}
