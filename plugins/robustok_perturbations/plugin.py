"""Registers the perturbations."""

from __future__ import annotations

from robustok_core.recipe.hookspecs import Register, hookimpl
from robustok_perturbations.gaussian import Gaussian
from robustok_perturbations.interpolate import Interpolate
from robustok_perturbations.none import NoPerturbation
from robustok_perturbations.rank_law import RankLaw
from robustok_perturbations.top_delta import TopDelta


@hookimpl
def robustok_register(register: Register) -> None:
    register("perturbation", "none", NoPerturbation)
    register("perturbation", "top_delta", TopDelta)
    register("perturbation", "rank_law", RankLaw)
    register("perturbation", "gaussian", Gaussian)
    register("perturbation", "interpolate", Interpolate)
