"""Metric `noise_pfd`: the distance between originals and reconstructions from noisy vectors; a continuous pFID.

The definition is ours; the paper has none. Where pFID replaces a share alpha of the tokens by near codewords, this
adds noise to a share alpha of the tokens, with a level in place of delta. The unit of the level is the standard
deviation of each channel over the tokens of the same image, so the scale of the latents has no effect and an
image's noise depends only on the image. docs/pfid.md has the exact definition.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen, validators

from robustok_core.errors import RobustokError
from robustok_core.kinds.features import Features
from robustok_core.kinds.perturbation import of_strength
from robustok_core.values.latents import LatentSpace
from robustok_core.values.spec import Spec, component
from robustok_metrics.perturbed_distance import ALPHAS, GridConfig, PerturbedDistance, own_names

LEVELS = (0.25, 0.5, 0.75)


@frozen(kw_only=True)
class NoiseCell:
    """One perturbation strength: noise of a level on a share alpha of an image's tokens."""

    alpha: float
    level: float

    @property
    def name(self) -> str:
        """Its name in the details of a result, e.g. "alpha0.5_noise0.25"."""
        return f"alpha{self.alpha:g}_noise{self.level:g}"

    @property
    def stream(self) -> tuple[object, ...]:
        """The key of its random numbers."""
        return ("noise_pfd", self.alpha, self.level)


@frozen(kw_only=True)
class NoisePFDConfig(GridConfig):
    """The feature network, the noise, and changes to the grid."""

    perturbation: Spec = component(
        "perturbation",
        doc="a perturbation of fixed strength with the options beta, alpha and tau, which the cells set",
        default={"use": "gaussian", "scale": "relative", "strength": "fixed"},
    )
    levels: tuple[float, ...] = field(
        default=LEVELS,
        validator=[validators.min_len(1), validators.deep_iterable(validators.ge(0.0)), own_names],
        metadata={"doc": "noise levels, in the perturbation's unit of tau: standard deviations of the latents"},
    )

    def __attrs_post_init__(self) -> None:
        strength = getattr(self.perturbation.config, "strength", "fixed")
        if strength != "fixed":
            raise ValueError(f'perturbation.strength is {strength!r}: a cell has one strength, so set "fixed"')
        self.cells()

    def cells(self) -> dict[NoiseCell, Spec]:
        """The distinct cells and their perturbations.

        Raises:
            ValueError: the perturbation lacks the options that cells set.
        """
        return {
            NoiseCell(alpha=alpha, level=level): of_strength(self.perturbation, alpha=alpha, tau=level)
            for alpha in self.alphas
            for level in self.levels
        }

    @property
    def is_defined(self) -> bool:
        """Whether the cells and the noise are those of docs/pfid.md."""
        relative = getattr(self.perturbation.config, "scale", None) == "relative"
        noise = self.perturbation.name == "gaussian" and relative
        return noise and (self.alphas, self.levels) == (ALPHAS, LEVELS)


class NoisePFD(PerturbedDistance[NoiseCell, NoisePFDConfig]):
    """The mean over the cells: `noise_pfd_FEATURES`.

    With another grid or noise than the defined one, the name is `noise_pfd_PERTURBATION_FEATURES`.
    """

    Config = NoisePFDConfig

    def check_kind(self, space: LatentSpace) -> None:
        if space.codebook_size is not None:
            raise RobustokError(
                f"noise_pfd adds noise to vectors, but this latent space has codes ({space.describe()})",
                where="metric noise_pfd",
                hint="use the metric pfid for a discrete tokenizer",
            )

    def cells(self, space: LatentSpace) -> Mapping[NoiseCell, Spec]:
        return self.config.cells()

    def name_with(self, features: Features) -> str:
        perturbation = "" if self.config.is_defined else f"{self.config.perturbation.name}_"
        return f"noise_pfd_{perturbation}{features.name}"
