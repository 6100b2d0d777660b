"""Entry point of the loss plugin."""

from __future__ import annotations

from robustok_core.recipe.hookspecs import Register, hookimpl
from robustok_losses.adversarial import Adversarial
from robustok_losses.perceptual import Perceptual
from robustok_losses.reconstruction import PixelReconstruction
from robustok_losses.semantic import Semantic


@hookimpl
def robustok_register(register: Register) -> None:
    """Registers the losses under their names."""
    register("loss", "reconstruction", PixelReconstruction)
    register("loss", "perceptual", Perceptual)
    register("loss", "adversarial", Adversarial)
    register("loss", "semantic", Semantic)
