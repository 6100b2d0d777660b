"""Metric `pfid`: the distance between originals and reconstructions from perturbed codes (paper section 2).

pFID is the mean of 15 Fréchet distances, one for each cell (alpha, delta) of a grid. In a cell, every
image is perturbed (beta = 1): a share alpha of its tokens is replaced by random ones of the delta nearest
codewords. docs/pfid.md has the exact definition.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen, validators

from robustok_core.errors import RobustokError
from robustok_core.kinds.features import Features
from robustok_core.kinds.metric import EvaluationContext
from robustok_core.kinds.perturbation import of_strength
from robustok_core.values.latents import LatentSpace
from robustok_core.values.spec import Spec, component
from robustok_metrics.frechet import frechet_name
from robustok_metrics.perturbed_distance import ALPHAS, GridConfig, PerturbedDistance

_log = logging.getLogger(__name__)
#: The paper's deltas by codebook size K.
DELTAS: Mapping[int, tuple[int, int, int]] = {
    1024: (10, 15, 20),
    4096: (50, 70, 90),
    8192: (100, 140, 180),
    16384: (200, 280, 360),
}


@frozen(kw_only=True)
class Cell:
    """One perturbation strength: alpha is the share of tokens to replace, delta the number of nearest codewords."""

    alpha: float
    delta: int

    @property
    def name(self) -> str:
        """Its name in the details of a result, e.g. "alpha0.5_delta70"."""
        return f"alpha{self.alpha:g}_delta{self.delta}"

    @property
    def stream(self) -> tuple[object, ...]:
        """The key of its random numbers."""
        return ("pfid", self.alpha, self.delta)


def nearest_tabulated(codebook_size: int) -> int:
    """The codebook size in the paper's table whose ratio to this one is closest to 1."""
    return min(DELTAS, key=lambda tabulated: abs(math.log(tabulated / codebook_size)))


def deltas_for(codebook_size: int) -> tuple[int, ...]:
    """The paper's three deltas; for other codebook sizes, scaled proportionally, rounded half up, at least 1."""
    tabulated = nearest_tabulated(codebook_size)
    # floor(delta K / K' + 1/2), in integer arithmetic
    return tuple(max(1, (2 * d * codebook_size + tabulated) // (2 * tabulated)) for d in DELTAS[tabulated])


def _positive_and_not_empty(_: object, __: object, deltas: tuple[int, ...]) -> None:
    if not deltas or min(deltas) < 1:
        raise ValueError("must hold at least one number, and each must be at least 1")


@frozen(kw_only=True)
class PFIDConfig(GridConfig):
    """The feature network, the perturbation, and changes to the paper's grid."""

    perturbation: Spec = component(
        "perturbation",
        doc="a perturbation whose beta, alpha and delta the cells set, or that implements `of_strength`",
        default={"use": "top_delta"},
    )
    deltas: tuple[int, ...] | None = field(
        default=None,
        validator=validators.optional(_positive_and_not_empty),
        metadata={"doc": "numbers of nearest codewords; if not given, the paper's, scaled to the codebook size"},
    )

    def __attrs_post_init__(self) -> None:
        of_strength(self.perturbation, alpha=1.0, delta=1)

    def cells(self, codebook_size: int) -> dict[Cell, Spec]:
        """The distinct cells for a codebook size, and their perturbations; of a tiny codebook, deltas may coincide.

        Raises:
            ValueError: the perturbation lacks the options that cells set.
        """
        return {
            Cell(alpha=alpha, delta=delta): of_strength(self.perturbation, alpha=alpha, delta=delta)
            for alpha in self.alphas
            for delta in self.deltas or deltas_for(codebook_size)
        }

    @property
    def is_paper_grid(self) -> bool:
        """Whether the cells are the paper's."""
        return self.alphas == ALPHAS and self.deltas is None


class PFID(PerturbedDistance[Cell, PFIDConfig]):
    """The mean over the cells: `pfid` for the published Inception and the paper's grid, else `pfd_FEATURES`.

    Only if the deltas were scaled, the detail `deltas_scaled_from` is the tabulated codebook size they come from; only
    if neighbours are not ordered by distance, the detail `nearest_by` says by what.
    """

    Config = PFIDConfig
    also_called = ("pfd",)

    def check_kind(self, space: LatentSpace) -> None:
        if space.codebook_size is None:
            raise RobustokError(
                f"pFID perturbs codes, but this latent space has none ({space.describe()})",
                where="metric pfid",
                hint="use the metric noise_pfd for a continuous tokenizer",
            )

    def cells(self, space: LatentSpace) -> Mapping[Cell, Spec]:
        assert space.codebook_size is not None
        return self.config.cells(space.codebook_size)

    def name_with(self, features: Features) -> str:
        return frechet_name("p", features) if self.config.is_paper_grid else f"pfd_{features.name}"

    def start(self, context: EvaluationContext) -> None:
        """Builds the cells; raises as `check` does, and warns where the deltas change no token."""
        super().start(context)
        self._tokenizer = context.tokenizer
        size = self._codebook_size
        if self.config.deltas is None and 1 in (deltas := deltas_for(size)):
            what = "is" if set(deltas) == {1} else "is in some cells"
            _log.warning(
                "pFD of %d codes %s the plain distance of reconstructions: the paper's deltas, scaled to them, are %s, "
                "and 1 changes no token; set deltas",
                size,
                what,
                ", ".join(map(str, deltas)),
            )

    @property
    def _codebook_size(self) -> int:
        size = self._tokenizer.space.codebook_size
        assert size is not None
        return size

    def more_details(self) -> Mapping[str, Any]:
        details: dict[str, Any] = {}
        if self.config.deltas is None and self._codebook_size not in DELTAS:
            details["deltas_scaled_from"] = nearest_tabulated(self._codebook_size)
        quantizer = self._tokenizer.quantizer
        if quantizer is not None and quantizer.nearest_by != "distance":
            details["nearest_by"] = quantizer.nearest_by
        return details
