"""Metric `rank_pfd`: pFID with the wrong tokens that one generator draws, in place of uniform near ones.

The definition is ours: the mean Fréchet distance over pFID's five shares alpha, where the tokens are replaced by the
law of `robustok calibrate` (perturbation rank_law). So it predicts for one generator what pFID predicts for any.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from robustok_core.errors import RobustokError
from robustok_core.kinds.features import Features
from robustok_core.kinds.perturbation import of_strength
from robustok_core.values.latents import LatentSpace
from robustok_core.values.spec import Spec, component
from robustok_metrics.perturbed_distance import GridConfig, PerturbedDistance


@frozen(kw_only=True)
class RankCell:
    """The share alpha of the tokens that are replaced."""

    alpha: float

    @property
    def name(self) -> str:
        """Its name in the details of a result, e.g. "alpha0.5"."""
        return f"alpha{self.alpha:g}"

    @property
    def stream(self) -> tuple[object, ...]:
        """The key of its random numbers."""
        return ("rank_pfd", self.alpha)


@frozen(kw_only=True)
class RankPFDConfig(GridConfig):
    """The feature network, the law, and other shares than the paper's."""

    perturbation: Spec = component(
        "perturbation",
        doc='{ use = "rank_law", shares = [...] }, as `robustok calibrate` prints it; the cells set beta and alpha',
    )

    def __attrs_post_init__(self) -> None:
        self.cells()

    def cells(self) -> dict[RankCell, Spec]:
        """The distinct cells and their perturbations.

        Raises:
            ValueError: the perturbation is not of a strength alpha alone.
        """
        return {RankCell(alpha=alpha): of_strength(self.perturbation, alpha=alpha) for alpha in self.alphas}


class RankPFD(PerturbedDistance[RankCell, RankPFDConfig]):
    """The mean over the cells: `rank_pfd_FEATURES`; of another perturbation, `rank_pfd_PERTURBATION_FEATURES`."""

    Config = RankPFDConfig

    def check_kind(self, space: LatentSpace) -> None:
        if space.codebook_size is None:
            raise RobustokError(
                f"rank_pfd replaces codes, and this latent space has none ({space.describe()})",
                where="metric rank_pfd",
                hint="use the metric noise_pfd for a continuous tokenizer",
            )

    def cells(self, space: LatentSpace) -> Mapping[RankCell, Spec]:
        return self.config.cells()

    def name_with(self, features: Features) -> str:
        name = self.config.perturbation.name
        return f"rank_pfd_{'' if name == 'rank_law' else f'{name}_'}{features.name}"
